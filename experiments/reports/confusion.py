"""Which classes are taken for which: the most frequent mistakes of a run, from its predictions.

Tasks have classes of their own, so a mistake is counted against its chances: n(a -> b) of the
queries of class a in those tasks that have class b as well.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import NamedTuple

import pyarrow.parquet as pq

MOST = 8
"""Mistakes shown of a learner."""


class Mistake(NamedTuple):
    """A class that was taken for another one.

    Attributes:
        label: The class.
        said: What it was taken for.
        count: How often.
        chances: Queries of `label` in tasks that have `said` too.
    """

    label: str
    said: str
    count: int
    chances: int


def mistakes(
    predictions: Path, learner: str, shots: int, family: str | None = None
) -> tuple[list[Mistake], int]:
    """The mistakes of a learner on query sets after its last step, the most frequent first.

    Args:
        predictions: `predictions.parquet` of a run.
        learner: Name of the learner.
        shots: K.
        family: Name of the family, where the run was judged on several.

    Returns:
        The mistakes, and how many predictions they are among.

    """
    wanted = [("learner", "==", learner), ("shots", "==", shots), ("split", "==", "query")]
    wanted += [("family", "==", family)] if family else []
    columns = ["fold", "seed", "episode", "step", "label", "prediction"]
    table = pq.read_table(predictions, columns=columns, filters=wanted)
    tasks: dict[tuple[str, int, int], tuple[int, Counter[tuple[str, str]]]] = {}
    for row in table.sort_by("step").to_pylist():
        task = (row["fold"] or "", row["seed"], row["episode"])
        # The steps ascend: a later one replaces those before.
        if task not in tasks or tasks[task][0] != row["step"]:
            tasks[task] = (row["step"], Counter())
        tasks[task][1][row["label"], row["prediction"]] += 1
    found: Counter[tuple[str, str]] = Counter()
    chances: Counter[tuple[str, str]] = Counter()
    for _, pairs in tasks.values():
        queries: Counter[str] = Counter()
        for (label, said), count in pairs.items():
            queries[label] += count
            if said != label:
                found[label, said] += count
        for label, count in queries.items():
            for other in queries:
                chances[label, other] += count
    ordered = sorted(found.items(), key=lambda item: (-item[1], item[0]))
    made = [Mistake(*pair, count, chances[pair]) for pair, count in ordered]
    return made, sum(sum(pairs.values()) for _, pairs in tasks.values())
