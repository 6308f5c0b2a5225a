"""Progress of meta-training: a bar on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import time
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar


class Progress:
    """Shows the step, the figures given, seconds a step and the time left.

    Args:
        total: Steps of the whole training.
        label: What is trained.
        start: Steps already done (after a resume).
        lines: Plain lines printed at most (and one for the last step).
        console: Where to show it; standard error by default, so that output stays clean.

    Example:
        >>> import io
        >>> out = io.StringIO()
        >>> with Progress(2, "maml", console=Console(file=out)) as progress:
        ...     progress.update(1, {"loss": 1.5})
        >>> out.getvalue().startswith("maml 1/2  loss 1.500")
        True
    """

    def __init__(
        self,
        total: int,
        label: str,
        *,
        start: int = 0,
        lines: int = 10,
        console: Console | None = None,
    ) -> None:
        self.total = total
        self.label = label
        self.console = console or Console(stderr=True)
        self.figures: dict[str, float] = {}
        self._begin = time.monotonic()
        self._start = start
        self._every = max(1, -(-total // lines))
        self._bar: Bar | None = None
        if self.console.is_terminal:
            self._bar = Bar(
                TextColumn("{task.description}"),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TextColumn("{task.fields[figures]}"),
                TimeRemainingColumn(),
                console=self.console,
            )
            self._task = self._bar.add_task(label, total=total, completed=start, figures="")
            self._bar.start()

    def update(self, step: int, figures: dict[str, float]) -> None:
        """Show that `step` steps are done; figures given earlier stay until they are replaced."""
        self.figures |= figures
        seconds = (time.monotonic() - self._begin) / max(1, step - self._start)
        text = "  ".join(f"{name} {value:.3f}" for name, value in self.figures.items())
        text = f"{text}  {seconds:.2f} s/step"
        if self._bar is not None:
            self._bar.update(self._task, completed=step, figures=text)
        elif step % self._every == 0 or step == self.total:
            left = round(seconds * (self.total - step))
            self.console.print(
                f"{self.label} {step}/{self.total}  {text}  {left} s left",
                highlight=False,
                markup=False,
                soft_wrap=True,
            )

    def close(self) -> None:
        """End the display."""
        if self._bar is not None:
            self._bar.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
