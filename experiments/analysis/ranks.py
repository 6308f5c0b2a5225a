"""Learners over several families, or over tasks: critical differences, and paired ones.

What is drawn are the entries `across` of a `result.json`, see `experiments.across`.
"""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.analysis.drawing import canvas

Entry = dict[str, Any]
SOFT = "#777777"


def critical_difference(entries: list[Entry], title: str, unit: str = "data sets") -> Figure:
    """Critical-difference figure (Demsar 2006): average ranks, a panel a number of shots.

    Learners that a bar joins cannot be told apart (Nemenyi, 5%); the ruler is the least difference
    of two ranks that counts.

    Args:
        entries: `across` of a result, or `task_ranks` of a run; at least one.
        title: Title of the figure.
        unit: What was ranked on, in words.
    """
    most = max(len(entry["learners"]) for entry in entries)
    note = (
        f"Average rank over {entries[0]['blocks']} {unit} (1 is the best). A bar joins "
        "learners that are not apart by the\ncritical difference CD (Nemenyi, 5%)."
    )
    height = 1.3 + 0.26 * ((most + 1) // 2 + max(len(e["groups"]) for e in entries))
    figure = canvas(9, 0.6 + height * len(entries), title, note)
    panels = figure.subplots(len(entries), 1, squeeze=False)[:, 0]
    for entry, axes in zip(entries, panels, strict=True):
        _panel(axes, entry)
    return figure


def _panel(axes: Axes, entry: Entry) -> None:
    rows = sorted(entry["learners"], key=lambda row: row["rank"])
    learners, groups = len(rows), entry["groups"]
    place = {row["learner"]: row["rank"] for row in rows}
    axes.set_xlim(1 - 0.35 * learners, learners + 0.35 * learners)
    half = (learners + 1) // 2
    top = 1.6
    bottom = -(0.9 + 0.55 * len(groups) + half)
    axes.set_ylim(bottom, top + 0.9)
    axes.axis("off")
    axes.set_title(f"{entry['shots']}-shot", loc="left", fontsize=11)
    axes.hlines(0, 1, learners, color="black", lw=1.2)
    for rank in range(1, learners + 1):
        axes.vlines(rank, 0, 0.25, color="black", lw=1)
        axes.text(rank, 0.35, str(rank), ha="center", va="bottom", fontsize=9)
    width = entry["critical_difference"]
    axes.hlines(top, 1, 1 + width, color="black", lw=1.2)
    axes.vlines([1, 1 + width], top - 0.15, top + 0.15, color="black", lw=1.2)
    axes.text(1 + width / 2, top + 0.15, f"CD {width:.2f}", ha="center", va="bottom", fontsize=9)
    for number, group in enumerate(groups):
        ranks = [place[name] for name in group]
        y = -0.45 - 0.55 * number
        axes.hlines(y, min(ranks) - 0.06, max(ranks) + 0.06, color="#0072B2", lw=4)
    for index, row in enumerate(rows):
        left = index < half
        y = -(0.9 + 0.55 * len(groups) + (index if left else learners - 1 - index))
        edge = 1 - 0.05 * learners if left else learners + 0.05 * learners
        axes.plot([row["rank"], row["rank"], edge], [0, y, y], color=SOFT, lw=0.9)
        label = (
            f"{row['learner']}  {row['rank']:.2f}"
            if left
            else f"{row['rank']:.2f}  {row['learner']}"
        )
        x = edge - 0.02 * learners if left else edge + 0.02 * learners
        axes.text(x, y, label, ha="right" if left else "left", va="center", fontsize=10)


def differences(result: dict[str, Any], title: str) -> Figure:
    """Paired difference to the reference on every family, with its interval.

    Args:
        result: Content of a `result.json` with `families` and comparisons.
        title: Title of the figure.
    """
    from experiments.figures import MARKERS, PALETTE

    families = list(result["families"])
    entries = result["comparisons"]
    shown = _near([row for row in entries])
    all_shots = sorted({row["shots"] for row in entries})
    learners = [n for n in dict.fromkeys(r["learner"] for r in entries) if n in shown]
    left_out = [n for n in dict.fromkeys(r["learner"] for r in entries) if n not in shown]
    note = "Bars are 95% intervals over the tasks of a data set."
    if left_out:
        note += f" Off the scale: {', '.join(left_out)}."
    figure = canvas(4.6 * len(all_shots) + 1.5, 1.3 + 0.5 * len(learners), title, note)
    panels = figure.subplots(1, len(all_shots), sharey=True, squeeze=False)[0]
    for shots, axes in zip(all_shots, panels, strict=True):
        axes.axvline(0, color=SOFT, lw=1)
        for row in entries:
            if row["shots"] != shots or row["learner"] not in shown:
                continue
            index = families.index(row["family"])
            shift = 0.7 * ((index + 0.5) / len(families) - 0.5)
            y = learners.index(row["learner"]) + shift
            scale = 1 if row["metric"] == "loss" else 100
            mean, low, high = (scale * row["difference"][part] for part in ("mean", "low", "high"))
            color = PALETTE[index % len(PALETTE)]
            marker = MARKERS[index % len(MARKERS)]
            axes.hlines(y, low, high, color=color, lw=1.6)
            axes.plot([mean], [y], marker, color=color, markersize=4.5)
        axes.set_title(f"{shots}-shot", loc="left", fontsize=11)
        unit = "loss" if entries[0]["metric"] == "loss" else "accuracy, points"
        axes.set_xlabel(f"difference to {entries[0]['reference']} ({unit})")
        axes.grid(axis="x", color="#e5e5e5", linewidth=0.8)
        axes.set_axisbelow(True)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    panels[0].set_yticks(range(len(learners)), learners)
    panels[0].invert_yaxis()
    handles = [
        panels[-1].plot([], [], MARKERS[i % len(MARKERS)], color=PALETTE[i % len(PALETTE)])[0]
        for i in range(len(families))
    ]
    panels[-1].legend(
        handles, families, loc="center left", bbox_to_anchor=(1.02, 0.5), frameon=False
    )
    return figure


def _near(entries: list[Entry]) -> set[str]:
    """Learners whose differences can be shown without squeezing all others."""
    means: dict[str, float] = {}
    for row in entries:
        size = abs(row["difference"]["mean"])
        means[row["learner"]] = max(size, means.get(row["learner"], 0.0))
    ordered = sorted(means.values())
    middle = ordered[len(ordered) // 2] if ordered else 0.0
    return {name for name, size in means.items() if size <= 6 * middle or len(means) < 3}
