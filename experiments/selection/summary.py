"""The table of judged policies: on a terminal, as files, and in Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from experiments.tables import markdown as joined

HEADERS = ("lambda", "policy", "utility", "regret", "closed gap", "best", "accuracy", "cost")
WIDTH = 120
"""Columns of a terminal that the table takes: it is not cut off in a narrow one, or in a file."""
Row = dict[str, Any]


def cells(row: Row) -> list[str]:
    """A row as text: scores in points, intervals in brackets.

    Example:
        >>> one = {"mean": 0.5, "low": 0.4, "high": 0.6}
        >>> row = {"policy": "p", "weight": 0.0, "accuracy": 0.5, "best": 0.25, "online": True}
        >>> cells(row | {"utility": one, "regret": one, "gap": None, "cost": one})[1:5]
        ['p*', '50.0 [40.0, 60.0]', '50.0 [40.0, 60.0]', '-']
    """
    return [
        f"{row['weight']:g}",
        row["policy"] + "*" * row["online"],
        _interval(row["utility"], 100, 1),
        _interval(row["regret"], 100, 1),
        _interval(row["gap"], 1, 2),
        f"{100 * row['best']:.0f}%",
        f"{100 * row['accuracy']:.1f}",
        f"{row['cost']['mean']:.2f}",
    ]


def _interval(value: dict[str, float] | None, scale: float, digits: int) -> str:
    if value is None:
        return "-"
    mean, low, high = (f"{scale * value[name]:.{digits}f}" for name in ("mean", "low", "high"))
    return f"{mean} [{low}, {high}]"


def scope(result: dict[str, Any]) -> str:
    """What the numbers stand on, in a line."""
    wanted = result["settings"]
    revision = (result["environment"].get("git") or {}).get("revision") or "unknown"
    parts = [
        f"{result['tasks']} tasks of {result['sources']} sources, "
        f"{len(result['learners'])} learners",
        f"{wanted['repetitions']} cross-validations by source in {wanted['folds']} folds",
        "utility, regret and accuracy in points with 95% intervals over sources, then tasks",
        f"cost in {wanted['cost']}",
        "best: share of tasks whose chosen learner is as good as any",
        f"revision {revision[:9]}",
    ]
    if any(row["online"] for row in result["rows"]):
        parts.insert(2, "* goes on learning from its own choices")
    if wanted["missing"] != "refuse":
        parts.insert(1, "cells that were not measured marginalized")
    return f"{'; '.join(parts)}."


def markdown(result: dict[str, Any]) -> str:
    """The table and its scope, as the README shows them."""
    table = joined([list(HEADERS), *map(cells, result["rows"])])
    return f"{table}\n{scope(result)}\n"


def show(result: dict[str, Any]) -> None:
    """Print the table."""
    console = Console(highlight=False)
    console.width = max(console.width, WIDTH)
    table = Table(box=SIMPLE_HEAD, padding=0, show_edge=False)
    for header in HEADERS:
        table.add_column(header, justify="left" if header == "policy" else "right", no_wrap=True)
    for row in result["rows"]:
        table.add_row(*cells(row))
    console.print(table)
    console.print(scope(result), markup=False)


def write_tables(folder: Path, rows: Sequence[Row]) -> None:
    """`table.csv` and `table.parquet`: a column a number, an interval three of them."""
    flat = []
    for row in rows:
        values: Row = {}
        for name, value in row.items():
            if name in ("utility", "regret", "gap", "cost"):
                value = value or dict.fromkeys(("mean", "low", "high"))
                values |= {name: value["mean"]}
                values |= {f"{name}_{end}": value[end] for end in ("low", "high")}
            elif name == "chosen":
                values |= {f"chosen.{learner}": share for learner, share in value.items()}
            elif name != "curve":
                values[name] = value
        flat.append(values)
    table = pd.DataFrame(flat)
    table.to_csv(folder / "table.csv", index=False)
    table.to_parquet(folder / "table.parquet", index=False)
