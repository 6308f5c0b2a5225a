"""Figures of a performance matrix: all of it, and what choosing from it can bring."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from experiments.analysis.drawing import canvas, frame
from experiments.figures import PALETTE
from metalearn.selection.matrix import Matrix

ENDS = 20  # points, of the colours of a difference; larger ones are few
COLUMN, ROW = 0.19, 0.115  # inches of a learner and of a task
ABSENT = "#bbbbbb"


def accuracy(matrix: Matrix, single: str) -> Figure:
    """Every learner on every task: the accuracy of one, and how far all others are from it.

    Learners stand in the order of their means; tasks by source, those first whose learners are the
    farthest apart.

    Args:
        matrix: The matrix.
        single: Name of the single best.
    """
    values = 100 * matrix.accuracy.mean(0)
    means = np.nanmean(values, 0)
    learners = np.argsort(-means, kind="stable")
    level = values[:, [matrix.learners.index(single)]]
    above = (values - level)[:, learners]
    tasks = _ordered(matrix.sources, np.nanmax(above, 1) - np.nanmin(above, 1))
    blocks = _halves(tasks, matrix.sources)
    rows = max(map(len, blocks))
    note = (
        f"First column: accuracy of {single}, the single best. The others: points above or below "
        f"it, beyond {ENDS} in the colour of {ENDS}.\nLearners by their mean accuracy, which "
        "stands before the name; sources by how far their learners are apart."
    )
    figure = canvas(
        len(blocks) * (COLUMN * len(learners) + 2.1) + 0.8,
        2.2 + ROW * rows,
        f"Accuracy of {len(learners)} learners, {len(tasks)} tasks of "
        f"{len(set(matrix.sources))} sources",
        note,
    )
    names = [f"{means[at]:.1f}  {matrix.learners[at]}" for at in learners]
    sizes = {"width_ratios": [1, len(learners)] * len(blocks)}
    panels = figure.subplots(1, 2 * len(blocks), squeeze=False, gridspec_kw=sizes)[0]
    for place, chosen in enumerate(blocks):
        left, right = panels[2 * place : 2 * place + 2]
        levels = _image(left, level[chosen], "viridis", (0, 100), rows)
        points = _image(right, above[chosen], "RdBu", (-ENDS, ENDS), rows)
        left.set_xticks([0], ["accuracy"], rotation=90, fontsize=8)
        right.set_xticks(range(len(learners)), names, rotation=90, fontsize=8)
        right.set_yticks([])
        _name_sources(left, right, [matrix.sources[task] for task in chosen])
    bar = {"ax": panels.tolist(), "shrink": 0.25, "pad": 0.01}
    figure.colorbar(points, label=f"points above {single}", extend="both", **bar)
    figure.colorbar(levels, label="accuracy (%)", **bar)
    return figure


def _ordered(sources: Sequence[str], apart: np.ndarray) -> list[int]:
    """Tasks by source, the source with the largest mean of `apart` first; then by `apart`."""
    source = np.array(sources)
    mean = {name: apart[source == name].mean() for name in set(sources)}
    return sorted(range(len(source)), key=lambda t: (-mean[sources[t]], sources[t], -apart[t]))


def _halves(tasks: Sequence[int], sources: Sequence[str]) -> list[list[int]]:
    """Side by side they are no longer than a page; a source is in one of them."""
    named = [sources[task] for task in tasks]
    starts = [row for row in range(1, len(named)) if named[row] != named[row - 1]]
    if not starts:
        return [list(tasks)]
    middle = min(starts, key=lambda row: abs(2 * row - len(named)))
    return [list(tasks[:middle]), list(tasks[middle:])]


def _image(axes: Axes, values: np.ndarray, colors: str, ends: tuple[int, int], rows: int):
    shown = matplotlib.colormaps[colors].with_extremes(bad=ABSENT)
    image = axes.imshow(values, aspect="auto", cmap=shown, vmin=ends[0], vmax=ends[1])
    axes.set_ylim(rows - 0.5, -0.5)  # a block that is shorter has rows of the same height
    for side in axes.spines.values():
        side.set_visible(False)
    axes.tick_params(length=0)
    return image


def _name_sources(left: Axes, right: Axes, sources: Sequence[str]) -> None:
    """The name of each source at the middle of its rows, and a line below the last of them."""
    starts = [row for row, name in enumerate(sources) if not row or sources[row - 1] != name]
    ends = [*starts[1:], len(sources)]
    places = [(start + end - 1) / 2 for start, end in zip(starts, ends, strict=True)]
    names = []
    for start, end in zip(starts, ends, strict=True):
        name = " ".join(sources[start].replace("_", " ").split())
        name = name if len(name) <= 28 else f"{name[:26]}..."
        names.append(name if end - start == 1 else f"{name} ({end - start})")
    left.set_yticks(places, names, fontsize=7)
    for axes in (left, right):
        for end in ends:
            axes.axhline(end - 0.5, color="white", lw=0.6)


def gaps(record: dict[str, Any]) -> Figure:
    """The gap of every task, and on how many tasks each learner is the best.

    Args:
        record: What is said of the matrix, see `experiments.selection.view`.
    """
    bounds = record["bounds"]
    figure = canvas(13, 5.5, "What choosing a learner for each task can bring")
    left, right = figure.subplots(1, 2)
    height = 0.8 / len(bounds)
    for place, row in enumerate(bounds):
        weight, color = f"lambda {row['weight']:g}", PALETTE[place % len(PALETTE)]
        mean, low, high = (f"{100 * row['gap'][end]:.1f}" for end in ("mean", "low", "high"))
        name = f"{weight}: {mean} [{low}, {high}] over sources"
        left.plot(100 * np.array(row["above"]), color=color, lw=1.8, label=name)
        ends = np.arange(len(row["best"])) + place * height
        right.barh(ends, list(row["best"].values()), height, color=color, label=weight)
    left.axhline(0, color="#777777", lw=0.8)
    frame(left, "virtual best above single best", "tasks, sorted", "points of utility")
    left.legend(frameon=False, fontsize=9)
    names = list(bounds[0]["best"])
    right.set_yticks(np.arange(len(names)) + 0.4 - height / 2, names, fontsize=8)
    right.invert_yaxis()
    right.xaxis.set_major_locator(MaxNLocator(integer=True))
    frame(right, "tasks on which a learner is the best", "tasks", "")
    right.legend(frameon=False, fontsize=9)
    return figure
