"""The figure of time and memory over the number of inner steps and of tasks."""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import Any

from experiments.benchmarks.tables import at_one_thread, peak_of, time_of
from experiments.figures import MARKERS, PALETTE

AXES = {"steps": "inner steps (one task)", "tasks": "tasks (five inner steps)"}
FIGURES = {"seconds a meta-step": (time_of, 1.0), "peak memory, GB": (peak_of, 1e-9)}


def draw(record: dict[str, Any], path: Path) -> Path:
    """Draw a record of "length": a row a figure, a column an axis.

    A line ends where the next size would not fit into memory, or was not measured.  Seconds are
    those of the table.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    record = at_one_thread(record)
    figure = Figure(figsize=(11, 7.5), layout="constrained", dpi=130)
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(FIGURES), len(AXES), squeeze=False)
    names = list(dict.fromkeys(row["case"]["name"] for row in record["rows"]))
    for panels, (title, (value, scale)) in zip(grid, FIGURES.items(), strict=True):
        for axes, (axis, label) in zip(panels, AXES.items(), strict=True):
            for index, name in enumerate(names):
                points = [
                    (row["case"]["work"][axis], scale * median(map(value, row["rounds"])))
                    for row in record["rows"]
                    if row["case"]["name"] == name and row["case"]["axis"] == axis and row["rounds"]
                ]
                if points:
                    look = {"color": PALETTE[index], "marker": MARKERS[index]}
                    axes.plot(*zip(*sorted(points), strict=True), label=name, **look)
            axes.set(xlabel=label, ylabel=title, ylim=(0, None))
            axes.grid(alpha=0.3)
    grid[0][0].legend(fontsize=8)
    figure.savefig(path)
    return path
