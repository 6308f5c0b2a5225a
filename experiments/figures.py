"""Figures of a run: adaptation curves, scores beside costs, and the course of meta-training."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median
from typing import Any, Literal

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from experiments.metrics import cell_name

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#4D4D4D", "#8C6D31")
"""Colours that stay apart for colour-blind readers (Okabe and Ito 2008, without the yellow)."""
MARKERS = "osD^vPX*"
NAMES = {"accuracy": "accuracy (%)", "macro_f1": "macro-F1 (%)", "loss": "loss"}
Row = dict[str, Any]


def adaptation_curves(
    curves: Sequence[Row],
    path: Path,
    *,
    title: str,
    metric: str = "accuracy",
    support: bool = False,
) -> Path:
    """Draw `metric` and loss on the query set over the inner steps, one row of panels a K.

    A learner without inner steps is a dotted horizontal line whose interval stands at the right.
    Of more learners than there are colours the best are drawn.  Where tasks hold numbers there is
    the loss alone.

    Args:
        curves: Rows {learner, shots, split, step, metric, mean, low, high, tasks}.
        path: PNG file to write.
        title: Title of the figure.
        metric: Metric of the left panels: accuracy or macro_f1.
        support: Draw the support set too, thin and dashed.

    Returns:
        `path`.
    """
    rows = [row for row in curves if math.isfinite(row["mean"])]
    metric = metric if any(row["metric"] == metric for row in rows) else "loss"
    metrics = list(dict.fromkeys((metric, "loss")))
    everyone = list(dict.fromkeys(row["learner"] for row in rows))
    learners = _best(rows, everyone, metric)
    all_shots = sorted({row["shots"] for row in rows}) or [1]
    steps = max((row["step"] for row in rows), default=0)
    size = (2 + 4.5 * len(metrics), 0.6 + 3.9 * len(all_shots))
    figure = Figure(figsize=size, layout="constrained", dpi=130)
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=13, fontweight="bold", x=0.01, ha="left")
    grid = figure.subplots(len(all_shots), len(metrics), squeeze=False)
    for shots, panels in zip(all_shots, grid, strict=True):
        left, right = panels[0], panels[-1]
        here = [row for row in rows if row["shots"] == shots]
        drawn = [
            _panel(axes, here, learners, name, steps, support)
            for axes, name in zip(panels, metrics, strict=True)
        ]
        handles = drawn[0]
        left.set_title(f"{shots}-shot", loc="left", fontsize=11)
        # The best first: scores end in this order at the right.
        order = sorted(handles, key=lambda name: handles[name][1], reverse=metric != "loss")
        off = {name: "" if handles[name][2] else " (off scale)" for name in order}
        right.legend(
            [handles[name][0] for name in order],
            [f"{name}  {_show(handles[name][1], metric)}{off[name]}" for name in order],
            title=f"query {NAMES.get(metric, metric)}",
            loc="center left",
            bbox_to_anchor=(1.02, 0.5),
            frameon=False,
            alignment="left",
        )
    figure.text(
        0.01,
        -0.02,
        "Query set; bands and bars are 95% intervals; dotted: no inner steps (left out if far off)."
        + (" Thin dashed: support set." if support else "")
        + (f" The {len(learners)} best of {len(everyone)}." if learners != everyone else ""),
        fontsize=9,
        color="#555555",
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, bbox_inches="tight", facecolor="white")
    return path


def _best(rows: list[Row], learners: list[str], metric: str) -> list[str]:
    """As many learners as have a colour, those with the best final means over the shots."""
    if len(learners) <= len(PALETTE):
        return learners
    shots = {row["shots"] for row in rows}
    final = {
        name: sum(
            line[-1][1]
            for k in shots
            if (line := _line([r for r in rows if r["shots"] == k], name, "query", metric))
        )
        for name in learners
    }
    best = sorted(learners, key=lambda name: final[name], reverse=metric != "loss")
    return [name for name in learners if name in best[: len(PALETTE)]]


def scores(rows: Sequence[Row], path: Path, *, title: str) -> Path:
    """Draw the final accuracy of every learner with its interval, a panel a K, and its cost.

    Where tasks hold numbers, the loss is drawn.

    Args:
        rows: Rows of a result: learner, shots, loss and perhaps accuracy as intervals, and
            adapt_seconds_per_task.
        path: PNG file to write.
        title: Title of the figure.

    Returns:
        `path`.
    """
    metric = "accuracy" if "accuracy" in rows[0] else "loss"
    scale = 1 if metric == "loss" else 100
    all_shots = sorted({row["shots"] for row in rows})
    means: dict[str, list[float]] = {}
    for row in rows:
        means.setdefault(row["learner"], []).append(row[metric]["mean"])
    # The best on top: the axis begins at the bottom.
    order = sorted(means, key=lambda name: sum(means[name]), reverse=metric == "loss")
    size = (3.6 * (len(all_shots) + 1) + 1, 1.4 + 0.28 * len(order))
    figure = Figure(figsize=size, layout="constrained", dpi=130)
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=13, fontweight="bold", x=0.01, ha="left")
    panels = figure.subplots(1, len(all_shots) + 1, sharey=True)
    for index, (shots, axes) in enumerate(zip(all_shots, panels, strict=False)):
        color = PALETTE[index % len(PALETTE)]
        here = [row for row in rows if row["shots"] == shots]
        worst = _worst_shown([row[metric]["mean"] for row in here], metric)
        for row in here:
            place, value = order.index(row["learner"]), row[metric]
            mean = scale * value["mean"]
            if (value["mean"] - worst) * (-1 if metric == "loss" else 1) >= 0:
                axes.hlines([place], scale * value["low"], scale * value["high"], color=color, lw=2)
                axes.plot([mean], [place], "o", color=color, markersize=5)
            else:
                edge = axes.get_yaxis_transform()
                axes.text(0.01, place, _show(mean, metric), transform=edge, va="center")
            cost = max(row["adapt_seconds_per_task"], 1e-5)
            panels[-1].plot([cost], [place], "o", color=color, markersize=5)
        axes.set_title(f"{shots}-shot", loc="left", fontsize=11)
        _frame(axes, f"query {NAMES[metric]}", "", grid="x")
    panels[0].set_yticks(range(len(order)), order)
    panels[-1].set_xscale("log")
    panels[-1].set_title("cost", loc="left", fontsize=11)
    _frame(panels[-1], "seconds of adaptation a task", "", grid="x")
    note = "Bars are 95% intervals; a bare number lies off the scale."
    figure.text(0.01, -0.02, note, fontsize=9, color="#555555")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, bbox_inches="tight", facecolor="white")
    return path


def _worst_shown(means: list[float], metric: str) -> float:
    """The mean below which showing a learner would squeeze the upper half of them."""
    best = min(means) if metric == "loss" else max(means)
    middle = median(means)
    return middle - 4 * (best - middle)


def _panel(
    axes: Axes, rows: list[Row], learners: list[str], metric: str, steps: int, support: bool
) -> dict[str, tuple[Any, float, bool]]:
    """Draw one metric; returns the line of each learner, its final value and if it is in sight."""
    handles: dict[str, tuple[Any, float, bool]] = {}
    lines = {name: _line(rows, name, "query", metric) for name in learners}
    far = _far(list(lines.values()))
    flat = 0
    for index, (learner, line) in enumerate(lines.items()):
        if not line:
            continue
        marker, color = MARKERS[index % len(MARKERS)], PALETTE[index % len(PALETTE)]
        xs, means, lows, highs = zip(*line, strict=True)
        if line in far:
            handle = axes.plot([], [], ":", color=color)[0]
        elif len(line) == 1:
            # Beside the last step, each at its own place: equal heights stay readable.
            flat += 1
            place = steps + 0.04 * max(steps, 1) * (flat + 0.5)
            handle = axes.plot([0, place], means * 2, ":", linewidth=1.8, color=color)[0]
            spread = [[means[0] - lows[0]], [highs[0] - means[0]]]
            bar = {"capsize": 4, "elinewidth": 1.8, "markersize": 4}
            axes.errorbar([place], means, spread, marker=marker, color=color, **bar)
        else:
            handle = axes.plot(xs, means, marker=marker, markersize=5, linewidth=2, color=color)[0]
            axes.fill_between(xs, lows, highs, alpha=0.15, linewidth=0, color=color)
        shown = _line(rows, learner, "support", metric) if support else []
        if len(shown) > 1:
            axes.plot([p[0] for p in shown], [p[1] for p in shown], "--", lw=1, color=color)
        handles[learner] = (handle, means[-1], line not in far)
    _frame(axes, "inner step", f"query {NAMES.get(metric, metric)}")
    if steps == 0:  # there is no axis of steps
        axes.set_xticks([])
        axes.set_xlabel("no learner takes inner steps")
    low, high = axes.get_ylim()
    axes.set_ylim(max(low, 0), high if metric == "loss" else min(high, 101))
    return handles


def _far(lines: list[list[tuple[float, ...]]]) -> list[list[tuple[float, ...]]]:
    """Level lines so far from the curves that showing them would squeeze everything else."""
    bounds = [bound for line in lines if len(line) > 1 for point in line for bound in point[2:]]
    if not bounds:
        return []
    low, high = min(bounds), max(bounds)
    room = 1.5 * (high - low)
    return [
        line for line in lines if len(line) == 1 and not low - room <= line[0][1] <= high + room
    ]


def _line(rows: list[Row], learner: str, split: str, metric: str) -> list[tuple[float, ...]]:
    scale = 1 if metric == "loss" else 100
    return sorted(
        (row["step"], scale * row["mean"], scale * row["low"], scale * row["high"])
        for row in rows
        if (row["learner"], row["split"], row["metric"]) == (learner, split, metric)
    )


def _show(value: float, metric: str) -> str:
    return f"{value:.3f}" if metric == "loss" else f"{value:.1f}"


def _frame(axes: Axes, x: str, y: str, grid: Literal["x", "y"] = "y") -> None:
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    if grid == "y":
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(axis=grid, color="#e5e5e5", linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def training_curves(metrics: Iterable[Row], path: Path) -> Path:
    """Draw meta-training loss and validation score over the meta-steps, a line a training.

    Args:
        metrics: Records of `metrics.jsonl`: `step`, `loss`, at validations `validation`,
            and the fields that name the training.
        path: PNG file to write.

    Returns:
        `path`.
    """
    cells: dict[str, list[Row]] = {}
    for record in metrics:
        cells.setdefault(cell_name(record) or "training", []).append(record)
    groups = list(dict.fromkeys(name.split("/")[0] for name in cells))
    # A colour a training while they can be told apart, else a colour a learner.
    keys = list(cells) if len(cells) <= len(PALETTE) else groups
    figure = Figure(figsize=(11, 4), layout="constrained", dpi=130)
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    handles: dict[str, Any] = {}
    # Where tasks hold numbers, a score is minus the loss.
    losses = any((r.get("validation") or 0) < 0 for group in cells.values() for r in group)
    scale = 1 if losses else 100
    for name, records in cells.items():
        key = name if name in keys else name.split("/")[0]
        color = PALETTE[keys.index(key) % len(PALETTE)]
        for axes, field, times, marker in (
            (left, "loss", 1, ""),
            (right, "validation", scale, "o"),
        ):
            points = [(r["step"], times * r[field]) for r in records if r.get(field) is not None]
            if points:
                xs, ys = zip(*points, strict=True)
                line = axes.plot(xs, ys, color=color, marker=marker, markersize=4, linewidth=1.5)
                handles.setdefault(key, line[0])
    _frame(left, "meta-step", "meta-training loss")
    _frame(right, "meta-step", "minus validation loss" if losses else "validation accuracy (%)")
    if handles:
        right.legend(
            list(handles.values()),
            list(handles),
            loc="center left",
            bbox_to_anchor=(1.02, 0.5),
            frameon=False,
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, bbox_inches="tight", facecolor="white")
    return path
