"""The trials of a sweep and how each ended, in one file that is replaced at every change.

What a trial found is in its run folder alone; the ledger says which settings it has, and what the
folder cannot say: that it was stopped early, or cannot be finished.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from experiments.files import read_json, write_json
from experiments.metrics import read_metrics
from experiments.standing import Standing
from experiments.sweeps.space import Point

TRIALS = "trials.json"
State = Literal["open", "finished", "stopped", "diverged", "failed"]
"""open: not ended; stopped: early, by comparison; diverged: a loss was not finite; failed: in an
error, or its processes died too often.  Open and failed trials are run by a resumed sweep."""


@dataclass
class Trial:
    """One trial.

    Attributes:
        number: Its place in the sweep.
        point: Its coordinates, see `experiments.sweeps.space`.
        settings: The settings that it replaces.
        state: How it ended.
        score: Its metric, None before the first validation.
        half: Half of the 95% interval of the metric, over folds and seeds; None for a single one.
        validations: How many the metric stands on.
        reason: Why it failed or diverged.
    """

    number: int
    point: Point
    settings: dict[str, Any]
    state: State = "open"
    score: float | None = None
    half: float | None = None
    validations: int = 0
    reason: str = ""

    @property
    def name(self) -> str:
        """Name of its run folder."""
        return f"trial-{self.number:03d}"

    @property
    def settled(self) -> bool:
        """Whether it need not be run again."""
        return self.state not in ("open", "failed")


@dataclass
class Ledger:
    """The trials of a sweep.

    Attributes:
        folder: The folder of the sweep.
        metric: Name of the metric.
        trials: In order of their numbers.
    """

    folder: Path
    metric: str
    trials: list[Trial] = field(default_factory=list)

    @classmethod
    def open(cls, folder: Path, metric: str) -> Ledger:
        """The ledger of a folder, empty where it has none."""
        path = folder / TRIALS
        entries = read_json(path) if path.exists() else []
        return cls(folder, metric, [Trial(**entry) for entry in entries])

    def run_folder(self, trial: Trial) -> Path:
        """The run folder of a trial."""
        return self.folder / trial.name

    def add(self, point: Point, settings: dict[str, Any]) -> Trial:
        """Enter the next trial."""
        trial = Trial(len(self.trials), point, settings)
        self.trials.append(trial)
        self._write()
        return trial

    def settle(self, trial: Trial, last: Mapping[str, Any] | None, lost: bool) -> None:
        """Enter how a trial ended.

        Args:
            trial: The trial.
            last: What it reported last.
            lost: Whether its process died.
        """
        self.look(trial)
        ended = (last or {}).get("ended")
        if (self.run_folder(trial) / "result.json").exists():
            trial.state, trial.reason = "finished", ""
        elif ended is not None:
            trial.state, trial.reason = ended, (last or {})["reason"]
        elif lost:
            trial.state, trial.reason = "failed", "its process died, several times"
        else:
            trial.state, trial.reason = "stopped", ""
        self._write()

    def look(self, trial: Trial) -> None:
        """Read the score of a trial from its records."""
        standing = Standing.of(read_metrics(self.run_folder(trial) / "metrics.jsonl"))
        trial.score = standing.metrics().get(self.metric)
        trial.half = half_width(standing.places(self.metric))
        trial.validations = standing.count

    def best(self) -> Trial | None:
        """The finished trial with the largest metric, of equals the first."""
        finished = [t for t in self.trials if t.state == "finished" and t.score is not None]
        return max(finished, key=lambda t: t.score or 0.0, default=None)

    def _write(self) -> None:
        write_json(self.folder / TRIALS, [asdict(trial) for trial in self.trials])


def half_width(values: list[float]) -> float | None:
    """Half of Student's 95% interval of the mean; None for fewer than two values.

    Example:
        >>> half_width([0.5]), round(half_width([0.5, 0.6, 0.7]), 3)
        (None, 0.248)
    """
    if len(values) < 2:
        return None
    from scipy.stats import t

    mean = math.fsum(values) / len(values)
    variance = math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)
    return float(t.ppf(0.975, len(values) - 1)) * math.sqrt(variance / len(values))
