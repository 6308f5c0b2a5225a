"""What the figures of an analysis share: canvas, panels, and a line a learner."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from experiments.figures import MARKERS, PALETTE


def canvas(width: float, height: float, title: str = "", note: str = "") -> Figure:
    """An empty figure, in inches, with its title above and a note below."""
    figure = Figure(figsize=(width, height), layout="constrained", dpi=130)
    FigureCanvasAgg(figure)
    if title:
        title = textwrap.fill(title, int(9 * width))  # letters of an inch
        figure.suptitle(title, fontsize=13, fontweight="bold", x=0.01, ha="left")
    if note:
        figure.text(0.01, -0.02, note, fontsize=9, color="#555555", va="top")
    return figure


def panel_grid(figure: Figure, count: int, **options: Any) -> list[Axes]:
    """Panels side by side."""
    return list(figure.subplots(1, count, squeeze=False, **options)[0])


@contextmanager
def lines(
    axes: Axes, learners: Sequence[str], title: str, x: str, y: str
) -> Iterator[Callable[..., None]]:
    """Draw a line a learner; colours and markers are those of its place among `learners`.

    `draw(learner, label, xs, ys, sizes)`: `sizes` are those of the markers, in points squared.
    """
    drawn: list[tuple[Any, str]] = []

    def draw(learner: str, label: str, xs: Any, ys: Any, sizes: Any = 28) -> None:
        color, marker, style = look(learners.index(learner))
        axes.plot(xs, ys, style, color=color, lw=1.5)
        axes.scatter(xs, ys, s=sizes, marker=marker, color=color, zorder=3)
        drawn.append((axes.plot([], [], marker + style, color=color, ms=5)[0], label))

    yield draw
    frame(axes, title, x, y)
    handles, labels = [handle for handle, _ in drawn], [label for _, label in drawn]
    place = {"loc": "center left", "bbox_to_anchor": (1.01, 0.5), "frameon": False}
    axes.legend(handles, labels, fontsize=8, **place)


def look(place: int) -> tuple[str, str, str]:
    """Colour, marker and line style of the learner at a place; they repeat after 56 learners.

    Example:
        >>> look(0), look(8)
        (('#0072B2', 'o', '-'), ('#0072B2', 's', '--'))
    """
    turn = place // len(PALETTE)
    marker = MARKERS[(place + turn) % len(MARKERS)]
    return PALETTE[place % len(PALETTE)], marker, "--" if turn % 2 else "-"


def frame(axes: Axes, title: str, x: str, y: str) -> None:
    """Title, names of the axes and a light grid."""
    axes.set_title(title, loc="left", fontsize=11)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(color="#e5e5e5", linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def save(figure: Figure, path: Path) -> Path:
    """Write a figure as PNG and return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, bbox_inches="tight", facecolor="white")
    return path
