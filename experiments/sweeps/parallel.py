"""The figure of a sweep: every trial as a line through its settings to its metric."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from experiments.sweeps.board import value_text
from experiments.sweeps.ledger import Trial
from experiments.sweeps.space import Choice, Parameter

COLOURS = "viridis"
"""Told apart by colour-blind readers and in print: dark is low."""
TICKS = (0.0, 0.25, 0.5, 0.75, 1.0)
LABELS = 12
"""Values of a choice that are written beside its axis."""


def parallel_coordinates(
    parameters: Sequence[Parameter], trials: Sequence[Trial], path: Path, *, title: str, metric: str
) -> Path:
    """Draw trials over parallel axes, one a parameter and the last the metric.

    A range runs over the quantiles of its distribution, so that a logarithmic one is drawn so.
    Trials that were stopped early, or diverged, are thin and dotted.

    Args:
        parameters: What was swept.
        trials: Those with a score.
        path: PNG file to write.
        title: Title of the figure.
        metric: Name of the metric.

    Returns:
        `path`.
    """
    scores = [trial.score or 0.0 for trial in trials]
    low, high = min(scores), max(scores)
    scale = Normalize(low, high if high > low else low + 1)
    width = 1.6 * (len(parameters) + 1) + 1.5
    figure = Figure(figsize=(max(6.0, width), 4.5), layout="constrained", dpi=130)
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=13, fontweight="bold", x=0.01, ha="left")
    axes = figure.subplots()
    # The best last, and so on top.
    for trial in sorted(trials, key=lambda trial: trial.score or 0.0):
        heights = [_height(parameter, trial.point[parameter.name]) for parameter in parameters]
        score = float(scale(trial.score or 0.0))
        finished = trial.state == "finished"
        axes.plot(
            range(len(heights) + 1),
            [*heights, score],
            color=colormaps[COLOURS](0.95 * score),
            linewidth=1.8 if finished else 0.9,
            linestyle="-" if finished else ":",
        )
    for place, parameter in enumerate(parameters):
        _axis(axes, place, _ticks(parameter))
    last = len(parameters)
    _axis(axes, last, [(t, f"{low + t * (high - low):.3g}") for t in TICKS])
    axes.set_xticks(range(last + 1), [*(p.name.replace(".", ".\n") for p in parameters), metric])
    axes.set_xlim(-0.2, last + 0.5)
    axes.set_yticks([])
    for side in ("top", "right", "bottom", "left"):
        axes.spines[side].set_visible(False)
    axes.tick_params(axis="x", length=0)
    note = "A line is a trial, bright where the metric is high; dotted: not finished."
    figure.text(0.01, -0.02, note, fontsize=9, color="#555555")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, bbox_inches="tight", facecolor="white")
    return path


def _height(parameter: Parameter, coordinate: float) -> float:
    if isinstance(parameter, Choice):
        return coordinate / max(1, len(parameter.values) - 1)
    return coordinate


def _ticks(parameter: Parameter) -> list[tuple[float, str]]:
    if not isinstance(parameter, Choice):
        return [(t, value_text(parameter.value(t))) for t in TICKS]
    count = len(parameter.values)
    shown = sorted({round(i) for i in np.linspace(0, count - 1, min(count, LABELS))})
    return [(_height(parameter, i), value_text(parameter.values[i])) for i in shown]


def _axis(axes: Axes, place: int, ticks: list[tuple[float, str]]) -> None:
    axes.axvline(place, color="#999999", linewidth=1, zorder=0)
    for height, text in ticks:
        box = {"facecolor": "white", "alpha": 0.75, "pad": 0.8, "linewidth": 0}
        axes.text(place + 0.04, height, text, fontsize=8, va="center", bbox=box)
