"""The section of a report about several runs: whether they differ by more than chance."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from experiments.compare import HEADERS, cells, compare, differing_lines
from experiments.errors import UserError
from experiments.judged import JudgedRun
from experiments.reports.html import Section, missing, paragraph, table


def sections(folders: Sequence[Path]) -> list[Section]:
    """The first run against each of the others, as `metalearn compare` does it."""
    first, *others = folders
    return [
        Section(f"{o.resolve().name} against {first.resolve().name}", _one(first, o))
        for o in others
    ]


def _one(first: Path, second: Path) -> str:
    try:
        found = compare(JudgedRun(first), JudgedRun(second))
    except UserError as error:
        return missing("the comparison", str(error))
    sides = f"First: {first.resolve().name}; second: {second.resolve().name}."
    lines = [sides, *found.notes, *(f"{title}: {line}." for title, line in differing_lines(found))]
    return table(HEADERS, cells(found), "numbers") + "".join(paragraph(x, "soft") for x in lines)
