"""What the figures of an analysis share: a canvas without a window, and how it becomes a file."""

from __future__ import annotations

from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure


def canvas(width: float, height: float, title: str = "", note: str = "") -> Figure:
    """An empty figure, in inches, with its title above and a note below."""
    figure = Figure(figsize=(width, height), layout="constrained", dpi=130)
    FigureCanvasAgg(figure)
    if title:
        figure.suptitle(title, fontsize=13, fontweight="bold", x=0.01, ha="left")
    if note:
        figure.text(0.01, -0.02, note, fontsize=9, color="#555555", va="top")
    return figure


def save(figure: Figure, path: Path) -> Path:
    """Write a figure as PNG and return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, bbox_inches="tight", facecolor="white")
    return path
