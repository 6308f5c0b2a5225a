"""Progress of a sweep: a line for each trial, alive on a terminal, when it ends elsewhere."""

from __future__ import annotations

from typing import Any, Self

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from experiments.sweeps.ledger import Ledger, Trial


class Board:
    """Shows the trials that run, and leaves a line of each that has ended.

    Args:
        total: Number of trials.
        console: Where; standard error by default, so that output stays clean.
    """

    def __init__(self, total: int, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True)
        self._total = total
        self._lines: dict[int, TaskID] = {}
        self._alive: Progress | None = None
        if self.console.is_terminal:
            columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
            self._alive = Progress(*columns, console=self.console)
            self._alive.start()

    def start(self, trial: Trial) -> None:
        """A trial is about to run."""
        if self._alive:
            self._lines[trial.number] = self._alive.add_task(self.line(trial), total=None)

    def update(self, trial: Trial) -> None:
        """A trial has been validated."""
        if self._alive:
            self._alive.update(self._lines[trial.number], description=self.line(trial))

    def end(self, trial: Trial, ledger: Ledger) -> None:
        """A trial has ended."""
        if self._alive:
            self._alive.remove_task(self._lines.pop(trial.number))
        best = ledger.best()
        ahead = f"  (best: {best.name} {best.score:.4f})" if best and best is not trial else ""
        self.console.print(
            f"{self.line(trial)}{ahead}", highlight=False, markup=False, soft_wrap=True
        )

    def line(self, trial: Trial) -> str:
        """How a trial stands.

        Example:
            >>> trial = Trial(2, {}, {"inner.rate": 0.123456}, "finished", 0.75, validations=3)
            >>> Board(9, Console(quiet=True)).line(trial)
            'trial-002/9  finished  0.7500 after 3 validations  inner.rate 0.1235'
        """
        state = "running" if trial.state == "open" else trial.state
        known = trial.score is not None
        score = f"{trial.score:.4f} after {trial.validations} validations" if known else ""
        words = (f"{trial.name}/{self._total}", state, score, shown(trial.settings), trial.reason)
        return "  ".join(word for word in words if word)

    def close(self) -> None:
        """End the display."""
        if self._alive:
            self._alive.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def shown(settings: dict[str, Any]) -> str:
    """Settings in a line."""
    return ", ".join(f"{name} {value_text(value)}" for name, value in settings.items())


def value_text(value: Any) -> str:
    """A value as it is shown.

    Example:
        >>> value_text(0.123456), value_text(["maml", "anil"])
        ('0.1235', 'maml anil')
    """
    if isinstance(value, float):
        return f"{value:.4g}"
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
