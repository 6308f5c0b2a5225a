"""Figures of judged policies: regret over the stream, closed gaps, and what they chose."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from experiments.analysis.drawing import canvas, frame, lines, look, panel_grid, save
from experiments.selection.policies import VIRTUAL_BEST

Result = dict[str, Any]


BANDS = 4
"""Lines of the regret that have a band: more would hide each other."""


def draw(result: Result, folder: Path, prefix: str = "") -> list[Path]:
    """Write all figures of a result.

    Args:
        result: What `result.json` holds.
        folder: Where to.
        prefix: Of their names.

    Returns:
        The files.
    """
    makers = {"regret": regret, "gaps": gaps, "choices": choices}
    return [save(make(result), folder / f"{prefix}{name}.png") for name, make in makers.items()]


def _by_weight(result: Result) -> dict[float, list[dict[str, Any]]]:
    rows: dict[float, list[dict[str, Any]]] = {}
    for row in result["rows"]:
        rows.setdefault(row["weight"], []).append(row)
    return rows


def _title(result: Result) -> str:
    sources, tasks = result["sources"], result["tasks"]
    return f"{tasks} tasks of {sources} sources, {len(result['learners'])} learners"


def regret(result: Result):
    """Cumulated regret over the stream of tasks, a line a policy, a panel a lambda."""
    panels = _by_weight(result)
    note = (
        "Regret against the cross-fitted virtual best; bands: the least and the largest of "
        f"{result['settings']['repetitions']} cross-validations, of the best {BANDS}. Legend: at "
        "the end, best first."
    )
    figure = canvas(7.5 * len(panels), 5.2, f"Regret of policies: {_title(result)}", note)
    for axes, (weight, rows) in zip(panel_grid(figure, len(panels)), panels.items(), strict=True):
        names = [row["policy"] for row in rows]
        ordered = sorted(rows, key=lambda row: row["curve"]["mean"][-1])
        ends = [row["curve"]["mean"][-1] for row in ordered]
        # What is far off, as chance is, would squeeze all others.
        room = 1.6 * float(np.quantile(ends, 0.75))
        with lines(axes, names, f"lambda {weight:g}", "tasks", "cumulated regret") as put:
            for place, row in enumerate(ordered):
                line, end = row["curve"], row["curve"]["mean"][-1]
                off = " (off scale)" if end > room else ""
                label = f"{row['policy']}  {end:.1f}{off}"
                marked = np.arange(len(line["tasks"])) % 8 == 4
                put(row["policy"], label, line["tasks"], line["mean"], 24 * marked)
                if place < BANDS:
                    color = look(names.index(row["policy"]))[0]
                    span = line["low"], line["high"]
                    axes.fill_between(line["tasks"], *span, color=color, alpha=0.1)
        low = min(0.0, *ends)
        axes.set_ylim(1.05 * low, min(room, 1.05 * max(ends)) if room > 0 else None)
    return figure


def gaps(result: Result):
    """Closed gap of every policy with its interval, a panel a lambda."""
    panels = _by_weight(result)
    note = "0: the single best of the training tasks; 1: the virtual best. Bars: 95% intervals."
    count = max(map(len, panels.values()))
    size = (5.5 * len(panels) + 1, 1.2 + 0.3 * count)
    figure = canvas(*size, f"Closed gap: {_title(result)}", note)
    for axes, (weight, rows) in zip(panel_grid(figure, len(panels)), panels.items(), strict=True):
        judged = [row for row in rows if row["gap"] is not None and row["policy"] != VIRTUAL_BEST]
        if not judged:
            axes.text(0.5, 0.5, "no gap to close", transform=axes.transAxes, ha="center")
        ordered = sorted(judged, key=lambda row: row["gap"]["mean"])
        for place, row in enumerate(ordered):
            gap, color = row["gap"], look(0 if row["gap"]["low"] > 0 else 6)[0]
            axes.barh(place, gap["mean"], color=color, alpha=0.6, height=0.7)
            axes.hlines([place], gap["low"], gap["high"], color=color, lw=2)
        axes.set_yticks(range(len(ordered)), [row["policy"] for row in ordered])
        axes.axvline(0, color="#555555", lw=0.8)
        # Policies that lose more than the whole gap are cut off: how much more says nothing.
        lows = [max(-1.5, row["gap"]["low"]) for row in ordered] or [0.0]
        axes.set_xlim(min(-0.1, *lows) - 0.05, 1.05)
        frame(axes, f"lambda {weight:g}", "closed gap", "")
    return figure


def choices(result: Result):
    """How often every policy chose every learner, in percent, a panel a lambda."""
    panels, learners = _by_weight(result), result["learners"]
    count = max(map(len, panels.values()))
    size = (len(panels) * (2.2 + 0.36 * len(learners)), 2.4 + 0.28 * count)
    note = "Percent of the tasks; learners from the cheapest to the dearest."
    figure = canvas(*size, f"What policies chose: {_title(result)}", note)
    for axes, (weight, rows) in zip(panel_grid(figure, len(panels)), panels.items(), strict=True):
        shares = 100 * np.array([[row["chosen"][name] for name in learners] for row in rows])
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=100, aspect="auto")
        for place in np.argwhere(shares >= 0.5):
            share = shares[tuple(place)]
            color = "white" if share > 60 else "black"
            text = {"ha": "center", "va": "center", "fontsize": 7, "color": color}
            axes.text(place[1], place[0], f"{share:.0f}", **text)
        axes.set_xticks(range(len(learners)), learners, rotation=60, ha="right", fontsize=8)
        axes.set_yticks(range(len(rows)), [row["policy"] for row in rows], fontsize=8)
        axes.set_title(f"lambda {weight:g}", loc="left", fontsize=11)
    return figure
