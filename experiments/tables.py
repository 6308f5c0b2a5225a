"""The result of a run as a table: on the console, in Markdown, and as rows for the report."""

from __future__ import annotations

import math
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

HEADERS = (
    "learner",
    "shots",
    "steps",
    "accuracy",
    "macro-F1",
    "loss",
    "vs reference",
    "adapt s/task",
    "train s",
)
"""Columns of the table."""
Result = dict[str, Any]


def percent(interval: dict[str, float] | None) -> str:
    """An interval of a share, in percent with half its width.

    Example:
        >>> percent({"mean": 0.87, "low": 0.86, "high": 0.88})
        '87.0 ± 1.0'
    """
    return _spread(interval, 100, 1)


def _spread(interval: dict[str, float] | None, scale: float, digits: int) -> str:
    if not _known(interval):
        return "-"
    assert interval is not None
    half = scale * (interval["high"] - interval["low"]) / 2
    return f"{scale * interval['mean']:.{digits}f} ± {half:.{digits}f}"


def bounds(interval: dict[str, float] | None, metric: str = "accuracy") -> str:
    """A difference with its interval: in percentage points, or as it is where it is one of losses.

    Example:
        >>> bounds({"mean": 0.025, "low": 0.011, "high": 0.039})
        '+2.5 [+1.1, +3.9]'
        >>> bounds({"mean": 0.025, "low": 0.011, "high": 0.039}, "loss")
        '+0.025 [+0.011, +0.039]'
    """
    if not _known(interval):
        return "-"
    assert interval is not None
    mean, low, high = (plain(interval[part], metric) for part in ("mean", "low", "high"))
    return f"{mean} [{low}, {high}]"


def plain(value: float, metric: str = "accuracy", sign: bool = True) -> str:
    """A score, or a difference with its sign: in percent (points), or as it is for a loss.

    Example:
        >>> plain(0.025), plain(0.025, "loss"), plain(0.025, sign=False)
        ('+2.5', '+0.025', '2.5')
    """
    scale, digits = (1, 3) if metric == "loss" else (100, 1)
    return f"{scale * value:{'+' if sign else ''}.{digits}f}"


def _known(interval: dict[str, float] | None) -> bool:
    return interval is not None and all(
        isinstance(interval.get(part), int | float) and math.isfinite(interval[part])
        for part in ("mean", "low", "high")
    )


def seconds(value: float | None) -> str:
    """A duration with two significant digits below ten seconds."""
    if value is None or not math.isfinite(value):
        return "-"
    if value == 0:
        return "0"
    return f"{value:.0f}" if value >= 10 else f"{value:.2g}"


def headers(result: Result) -> list[str]:
    """The table's head, with the name of the learner that the others are compared with."""
    references = {entry["reference"] for entry in result.get("comparisons", [])}
    reference = references.pop() if len(references) == 1 else "reference"
    names = [f"vs {reference}" if name == "vs reference" else name for name in HEADERS]
    return ["family", *names] if "families" in result else names


def cells(result: Result) -> list[list[str]]:
    """The table's body: one row a learner and number of shots, under `headers`."""
    differences = {
        (entry.get("family"), entry["learner"], entry["shots"]): bounds(
            entry["difference"], entry.get("metric", "accuracy")
        )
        for entry in result.get("comparisons", [])
    }
    return [
        [
            *([row["family"]] if "families" in result else []),
            row["learner"],
            str(row["shots"]),
            str(row.get("step", "-")),
            percent(row.get("accuracy")),
            percent(row.get("macro_f1")),
            _spread(row.get("loss"), 1, 3),
            differences.get((row.get("family"), row["learner"], row["shots"]), ""),
            seconds(row.get("adapt_seconds_per_task")),
            seconds(row.get("train_seconds")),
        ]
        for row in result["rows"]
    ]


def scope(result: Result) -> str:
    """How much the numbers stand on, in words.

    Example:
        >>> scope({"rows": [{"tasks": 600, "folds": 5, "seeds": 1}]})
        '600 test tasks, 5 folds, 1 seed; 95% intervals'
    """
    if not result["rows"]:
        return "no learner was evaluated"
    words = []
    for name, unit in (("tasks", "test task"), ("folds", "fold"), ("seeds", "seed")):
        found = sorted({row.get(name, 0) for row in result["rows"]})
        span = f"{found[0]}" if len(found) == 1 else f"{found[0]} to {found[-1]}"
        words.append(f"{span} {unit}{'' if found == [1] else 's'}")
    return ", ".join(words) + "; 95% intervals"


def rises(result: Result) -> list[str]:
    """How far each learner's steps carry it: the paired difference of its last step to step 0.

    Over several families it would be a page of words: curves and `result.json` say it there.

    Example:
        >>> rise = {"mean": 0.1, "low": 0.08, "high": 0.12}
        >>> rises({"rows": [{"learner": "maml", "shots": 1, "step": 5, "rise": rise}]})
        ['maml, 1-shot: +10.0 [+8.0, +12.0] from step 0 to 5']
    """
    return [
        f"{row['learner']}, {row['shots']}-shot: "
        f"{bounds(row['rise'], 'loss' if 'loss' in row and 'accuracy' not in row else 'accuracy')} "
        f"from step 0 to {row['step']}"
        for row in result["rows"]
        if "rise" in row and "families" not in result
    ]


def family_table(result: Result) -> list[list[str]]:
    """The scores on every family side by side: a head, then a row a number of shots and learner.

    Args:
        result: Content of a `result.json` with `families`.

    Returns:
        Rows of text: shots, learner, tasks of each family, a column a family; where there are
        several, the mean, the paired difference to the reference and the mean rank, all three over
        the tasks that every learner has met.
    """
    scores = {(r["shots"], r["learner"], r["family"]): r.get("accuracy") for r in result["rows"]}
    families = list(result["families"])
    over = {(e["shots"], r["learner"]): r for e in result["across"] for r in e["learners"]}
    reference = result["across"][0]["reference"] if over else ""
    summary = ["mean", f"vs {reference}", "rank"] if over else []
    tasks = {(r["shots"], r["learner"]): r["tasks"] for r in result["rows"]}
    rows = [["shots", "learner", "tasks", *families, *summary]]
    for shots, learner in dict.fromkeys((r["shots"], r["learner"]) for r in result["rows"]):
        row = [str(shots), learner, str(tasks[shots, learner])]
        row += [percent(scores.get((shots, learner, family))) for family in families]
        if over:
            entry = over[shots, learner]
            difference = entry.get("difference")
            row += [
                percent(entry.get("accuracy")),
                bounds(difference) if difference else "",
                f"{entry['rank']:.2f}",
            ]
        rows.append(row)
    return rows


def rank_notes(result: Result) -> list[str]:
    """What the ranks stand on, in words, for each number of shots."""
    return [
        f"{entry['shots']}-shot: mean, difference and rank over {len(entry['families'])} data "
        f"sets, of their first {entry['tasks']} tasks each, Friedman p {_probability(entry['p'])}, "
        f"critical difference of ranks {entry['critical_difference']:.2f}"
        for entry in result["across"]
    ]


def _probability(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"= {p:.3f}"


def result_table(result: Result) -> Table:
    """The result for the console: scores side by side where there are several families."""
    several, families = bool(result.get("across")), list(result.get("families", ()))
    table = Table(
        title=" on ".join([result.get("experiment", ""), *([] if several else families)]),
        caption="\n".join([scope(result), *(rank_notes if several else rises)(result)]),
        title_justify="left",
        caption_justify="left",
        box=SIMPLE_HEAD,
        padding=0,
        show_edge=False,
    )
    names, *rows = [headers(result), *cells(result)]
    if several:  # the caption says how many tasks
        names, *rows = [row[:2] + row[3:] for row in family_table(result)]
    elif "families" in result:  # it is a single one
        names, *rows = [row[1:] for row in (names, *rows)]
    for name in names:
        # On a narrow terminal differences are broken between words; no number is ever cut.
        difference = name.startswith("vs ")
        table.add_column(
            name.replace(" s", "\ns") if not difference else name,
            justify="left" if name == "learner" else "right",
            no_wrap=not difference,
            min_width=(11 if several else 13) if difference else None,
        )
    exact = 0 if several else names.index("accuracy") + 1
    for row in rows:
        # Without most intervals, to fit: Markdown and the report have them.
        table.add_row(*row[:exact], *(cell.split(" ±")[0] for cell in row[exact:]))
    return table


def markdown_table(result: Result) -> str:
    """The result as Markdown.

    Example:
        >>> print(markdown_table({"rows": []}).splitlines()[1][:13])
        | :-- | --: |
    """
    return markdown([headers(result), *cells(result)])


def markdown(rows: list[list[str]]) -> str:
    """A head and rows as Markdown; names stand left, numbers right."""
    rules = [":--" if name in ("family", "learner") else "--:" for name in rows[0]]
    lines = [rows[0], rules, *rows[1:]]
    return "\n".join("| " + " | ".join(row) + " |" for row in lines) + "\n"
