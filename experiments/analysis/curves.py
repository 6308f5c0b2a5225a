"""Scores over the number of shots, and over what they cost."""

from __future__ import annotations

import math
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from experiments.analysis.drawing import canvas, frame, lines, look, panel_grid
from experiments.figures import NAMES

COSTS = {
    "passes": "passes over the support set",
    "adapt_flops": "operations of a task",
    "adapt_seconds_per_task": "seconds of adaptation a task",
    "adapt_bytes": "bytes at once, of a task",
}
"""Axes of cost, by their names in a result."""
Row = dict[str, Any]


def shots_figure(result: dict[str, Any], title: str, family: str = "") -> Figure:
    """Final scores over the number of shots, with 95% intervals: metric and loss.

    Args:
        result: Content of a `result.json`.
        title: Title of the figure.
        family: Which family; empty: all rows are of one.
    """
    rows = [row for row in result["rows"] if family in ("", row["family"])]
    metrics = [name for name in ("accuracy", "loss") if name in rows[0]]
    learners = list(dict.fromkeys(row["learner"] for row in rows))
    all_shots = sorted({row["shots"] for row in rows})
    note = "Query set after the last step; bars are 95% intervals."
    figure = canvas(4.6 * len(metrics) + 2.4, 4.2, title, note)
    for metric, axes in zip(metrics, panel_grid(figure, len(metrics)), strict=True):
        scale = 1 if metric == "loss" else 100
        order = _best_first(rows, metric)
        with lines(axes, learners, "", "shots", NAMES[metric]) as draw:
            for number, name in enumerate(order):
                one = sorted((r for r in rows if r["learner"] == name), key=lambda r: r["shots"])
                # Beside each other, so that bars of equal learners can be read.
                xs = [r["shots"] * (1 + 0.03 * (number - len(order) / 2)) for r in one]
                means = [scale * r[metric]["mean"] for r in one]
                for x, row in zip(xs, one, strict=True):
                    low, high = scale * row[metric]["low"], scale * row[metric]["high"]
                    axes.vlines(x, low, high, color=look(learners.index(name))[0], lw=1.2)
                draw(name, f"{name}  {means[-1]:.{3 if metric == 'loss' else 1}f}", xs, means)
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(FixedLocator(all_shots))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xticklabels([str(shots) for shots in all_shots])
    return figure


def cost_figure(result: dict[str, Any], title: str, family: str = "") -> Figure:
    """Final accuracy (loss, where tasks hold numbers) over each measure of cost.

    Args:
        result: Content of a `result.json`.
        title: Title of the figure.
        family: Which family; empty: all rows are of one.
    """
    rows = [row for row in result["rows"] if family in ("", row["family"])]
    metric = "accuracy" if "accuracy" in rows[0] else "loss"
    scale = 1 if metric == "loss" else 100
    costs = [name for name in COSTS if all(name in row for row in rows)]
    all_shots = sorted({row["shots"] for row in rows})
    learners = list(dict.fromkeys(row["learner"] for row in rows))
    order = _best_first(rows, metric)
    note = (
        "Bars are 95% intervals; a cost of nothing stands at the left edge. What is kept of "
        "texts is not\ncomputed again. Learners far below the others are out of sight."
    )
    figure = canvas(3.3 * len(costs) + 2, 0.5 + 3.4 * len(all_shots), title, note)
    grid = figure.subplots(len(all_shots), len(costs), squeeze=False, sharey="row")
    for shots, panels in zip(all_shots, grid, strict=True):
        here = {row["learner"]: row for row in rows if row["shots"] == shots}
        for cost, axes in zip(costs, panels, strict=True):
            known = [row[cost] for row in here.values() if row[cost] > 0]
            least = min(known, default=1.0) / 3
            for name in (one for one in order if one in here):
                (color, marker, _), value = look(learners.index(name)), here[name][metric]
                x = max(here[name][cost], least)
                axes.vlines(x, scale * value["low"], scale * value["high"], color=color, lw=1.2)
                axes.plot([x], [scale * value["mean"]], marker, color=color, label=name)
            axes.set_xscale("log")
            if cost == "passes":
                ticks = sorted({row[cost] for row in here.values() if row[cost] > 0})
                axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
                axes.xaxis.set_minor_locator(NullLocator())
            frame(axes, f"{shots}-shot" if axes is panels[0] else "", COSTS[cost], "")
        panels[0].set_ylabel(f"query {NAMES[metric]}")
        means = sorted(scale * row[metric]["mean"] for row in here.values())
        _squeeze_not(panels[0], means, metric)
    handles, labels = grid[0][0].get_legend_handles_labels()
    place = {"loc": "center left", "bbox_to_anchor": (1.02, 0.5), "frameon": False}
    grid[0][-1].legend(handles, labels, fontsize=8, **place)
    return figure


def _best_first(rows: list[Row], metric: str) -> list[str]:
    means: dict[str, list[float]] = {}
    for row in rows:
        means.setdefault(row["learner"], []).append(row[metric]["mean"])
    sign = 1 if metric == "loss" else -1
    return sorted(means, key=lambda name: sign * math.fsum(means[name]) / len(means[name]))


def _squeeze_not(axes: Any, means: list[float], metric: str) -> None:
    """Leave off the scale what would squeeze the better half of the learners."""
    middle = means[len(means) // 2]
    best = means[0] if metric == "loss" else means[-1]
    room = 4 * abs(best - middle)
    low, high = axes.get_ylim()
    if metric == "loss":
        axes.set_ylim(max(low, 0), min(high, middle + room) if room else high)
    else:
        axes.set_ylim(max(low, middle - room) if room else low, min(high, 100.5))
