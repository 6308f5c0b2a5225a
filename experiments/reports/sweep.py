"""The sections of a report about the folder of a sweep."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from experiments.files import read_json
from experiments.folder import flatten
from experiments.reports.html import (
    Section,
    Strong,
    bar,
    figure,
    missing,
    paragraph,
    settings,
    table,
)
from experiments.sweeps.board import value_text

SWEEP, SUMMARY, BEST = "sweep.json", "summary.json", "best.json"


def is_sweep(folder: Path) -> bool:
    """Whether a folder is that of a sweep."""
    return (folder / SWEEP).exists()


def sections(folder: Path) -> tuple[str, list[Section]]:
    """Lead and sections about a sweep."""
    if not (folder / SUMMARY).exists():
        reason = "the sweep has not ended; go on with metalearn sweep FILE --resume"
        return "", [Section("Trials", missing(SUMMARY, reason))]
    summary = read_json(folder / SUMMARY)
    found = [
        Section("Trials", _trials(summary)),
        Section("Parameters", _parameters(folder, summary)),
        Section("Best settings", _best(folder, summary)),
        Section(
            "Environment",
            settings(flatten(summary["environment"])),
        ),
    ]
    return _lead(summary), found


def _lead(summary: dict[str, Any]) -> str:
    trials = summary["trials"]
    ended = sum(trial["state"] == "finished" for trial in trials)
    lines = [
        f"{len(trials)} trials of {summary['experiment']} ({summary['method']}), {ended} finished."
    ]
    best = next((t for t in trials if _name(t) == summary["best"]), None)
    if best is not None:
        lines.append(f"Best: {_name(best)}, {summary['metric']} {_score(best)}.")
    lines.append("Scores are those on validation classes; no test class is behind them.")
    return f'<div class="lead">{"".join(map(paragraph, lines))}</div>'


def _trials(summary: dict[str, Any]) -> str:
    names = list(dict.fromkeys(name for t in summary["trials"] for name in t["settings"]))
    rows = []
    for trial in summary["trials"]:
        name = _name(trial)
        first = Strong(name) if name == summary["best"] else name
        values = (value_text(trial["settings"].get(key, "")) for key in names)
        state = trial["state"] + (f": {trial['reason']}" if trial["reason"] else "")
        rows.append([first, _score(trial), str(trial["validations"]), *values, state])
    headers = ("trial", summary["metric"], "validations", *names, "state")
    note = "The best first; ± half of the 95% interval over folds and seeds."
    return table(headers, rows, "numbers") + paragraph(note, "soft")


def _parameters(folder: Path, summary: dict[str, Any]) -> str:
    parts = []
    if summary["importance"]:
        rows = [[name, bar(share)] for name, share in summary["importance"].items()]
        parts.append(table(("parameter", "share of the metric's variance (fANOVA)"), rows))
    else:
        parts.append(paragraph("Too few trials that differ to say which parameter matters."))
    path = folder / (summary["figure"] or "figures/parallel.png")
    if path.exists():
        caption = (
            "Every trial is a line through its settings to its score, bright where that is high; "
            "dotted: not finished."
        )
        parts.append(figure(path, caption))
    else:
        parts.append(missing("figures/parallel.png", "no trial has a score yet"))
    return "".join(parts)


def _best(folder: Path, summary: dict[str, Any]) -> str:
    if not (folder / BEST).exists():
        return missing(BEST, "no trial has finished")
    command = f"metalearn train {summary['experiment']} --config {folder / BEST}"
    return settings(read_json(folder / BEST)) + paragraph(command, "soft")


def _score(trial: dict[str, Any]) -> str:
    if trial["score"] is None:
        return "-"
    half = "" if trial["half"] is None else f" ± {trial['half']:.4f}"
    return f"{trial['score']:.4f}{half}"


def _name(trial: dict[str, Any]) -> str:
    return f"trial-{trial['number']:03d}"
