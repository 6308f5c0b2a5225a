"""Where a run tells what it finds, beside its own files: Weights & Biases and TensorBoard.

Every sink hears the same: each training record, once at the end what the test tasks say, and that
the run has ended.  A run goes on after a crash: a sink shows every record once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from experiments import checkpoint
from experiments.config import TrackingSettings
from experiments.folder import CHECKPOINTS


@dataclass(frozen=True)
class Findings:
    """What a run has found, as it is told once at the end.

    Attributes:
        curves: Rows {family, learner, shots, split, step, metric, mean, low, high, tasks}.
        rows: The table of results: a row a learner and number of shots, scores as intervals.
        figures: PNG files.
        report: The HTML page about the run; None: there is none.
        best: Its best checkpoint; None: nothing was trained.
    """

    curves: list[dict[str, Any]]
    rows: list[dict[str, Any]] = field(default_factory=list)
    figures: Sequence[Path] = ()
    report: Path | None = None
    best: BestCheckpoint | None = None

    def scores(self) -> dict[str, float]:
        """The means of the table by name.

        Example:
            >>> row = {"learner": "maml", "shots": 1, "accuracy": {"mean": 0.5}}
            >>> Findings([], [row]).scores()
            {'test/maml/1-shot/accuracy': 0.5}
        """
        return {
            f"test/{self.place(row)}/{name}": value["mean"]
            for row in self.rows
            for name, value in row.items()
            if isinstance(value, dict) and name != "rise"
        }

    def place(self, row: dict[str, Any]) -> str:
        """Learner and shots of a row of either table, and the family where there are several."""
        several = len({row.get("family") for row in self.curves or self.rows}) > 1
        family = f"{row['family']}/" if several else ""
        return f"{family}{row['learner']}/{row['shots']}-shot"


@dataclass(frozen=True)
class BestCheckpoint:
    """The checkpoint of a run's training with the best validation score.

    Attributes:
        folder: Its directory, below `checkpoints/` of the run folder.
        training: Name of the training.
        step: The meta-step of its best state.
        score: The validation score: mean accuracy, minus the mean loss where tasks hold numbers.
    """

    folder: Path
    training: str
    step: int
    score: float


def best_checkpoint(run: Path) -> BestCheckpoint | None:
    """Find the best checkpoint of a run folder; None where no training has ended with a score."""
    found = []
    places = run / CHECKPOINTS
    for place in sorted(places.iterdir()) if places.is_dir() else ():
        loaded = checkpoint.load(place)
        meta = loaded[1] if loaded else {}
        if meta.get("ended") and meta.get("best_score") is not None:
            folder = place / checkpoint.name(meta["step"])
            best = BestCheckpoint(folder, place.name, meta["best_step"], meta["best_score"])
            found.append(best)
    # Of equals the first.
    return max(found, key=lambda one: one.score, default=None)


class Tracked(Protocol):
    """Settings of anything that can be tracked."""

    @property
    def name(self) -> str:
        """W&B groups runs by it."""
        ...

    @property
    def tracking(self) -> TrackingSettings:
        """Where it is told."""
        ...

    def model_dump(self, *, mode: str) -> dict[str, Any]:
        """All settings, for JSON."""
        ...


class Sink(Protocol):
    """One place where a run tells what it finds."""

    def log(self, record: dict[str, Any], step: int) -> None:
        """Take a training record.

        Args:
            record: What is appended to `metrics.jsonl`; the fields `CELL` say which training it
                belongs to and `step` is the meta-step in it.
            step: Position of the record in `metrics.jsonl`.
        """

    def conclude(self, findings: Findings) -> None:
        """Take what was found, once, after all records."""

    def preempted(self) -> None:
        """Hear that the run is interrupted, and will go on."""

    def finish(self, exit_code: int = 0) -> None:
        """End, and bring everything to the disk; also after a failure."""


class Sinks:
    """All sinks of a run, as one.

    Args:
        sinks: They are told in this order.
    """

    def __init__(self, *sinks: Sink) -> None:
        self._sinks = sinks

    def log(self, record: dict[str, Any], step: int) -> None:
        for sink in self._sinks:
            sink.log(record, step)

    def conclude(self, findings: Findings) -> None:
        for sink in self._sinks:
            sink.conclude(findings)

    def preempted(self) -> None:
        for sink in self._sinks:
            sink.preempted()

    def finish(self, exit_code: int = 0) -> None:
        for sink in self._sinks:
            sink.finish(exit_code)


def open_sinks(experiment: Tracked, folder: Path, resume: bool = False) -> Sinks:
    """The sinks that the settings of a run ask for.

    Args:
        experiment: Its settings.
        folder: Its folder.
        resume: Whether the run is taken up again.

    Raises:
        UserError: If one cannot be opened.
    """
    from experiments.tracking import start

    sinks: list[Sink] = []
    if experiment.tracking.tensorboard:
        from experiments.tensorboard import Board

        sinks.append(Board(folder, resume))
    return Sinks(start(experiment, folder, resume), *sinks)
