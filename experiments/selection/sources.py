"""The tasks of the performance matrix: which classes of which data sets, and how many shots.

A plan is drawn once from a seed and written into the matrix's folder; the matrix is a function of
the plan.  Data sets that share texts count as one source, so that none is on both sides of a split
by source.
"""

from __future__ import annotations

import gzip
import json
import math
import zlib
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

import numpy as np
from pydantic import Field

from experiments.errors import UserError
from experiments.schema import Settings
from tasks.episode import EpisodeShape, Example, Task, TaskError, TaskStream
from tasks.sampling import distinct
from tasks.sources.files import find, to_examples
from tasks.sources.records import RecordFamily

SHOTS = (1, 2, 3, 4, 5, 6, 8, 12, 16)
LARGEST = 80  # examples of a support set: what a gradient learner can be given for every task
QUERIES = 204  # of a task in all, at least, over its support sets
SETS = (3, 4, 6)  # support sets: more of them where a class has too few examples for large queries

SAME = {
    "movie reviews": ("sst2", "mr", "subj"),
    "amazon reviews": (
        *("rating_books", "sentiment_books", "sentiment_dvd", "sentiment_kitchen"),
        *("multilingual_amazon_reviews", "amazon_polarity", "amazon_fine_food_reviews"),
    ),
    "trec": ("trec-coarse", "trec-fine"),
    "scitail": ("scitail", "scitailv1.1"),
    "snli": ("snli", "e_snli"),
    "roc stories": ("rocstories", "roc_stories", "timetravel", "tellmewhy"),
    "winograd": ("wsc; enhanced_wsc", "wsc_fiexed", "winowhy"),
    "propara": ("propara", "wiqa"),
    "squad": ("disfl_qa", "adversarial_qa"),
    "word pairs": ("bless", "root09"),
    "congress": ("political_audience", "political_bias", "political_message"),
}
"""Data sets with texts in common, by the name of the source that they count as."""
LEOPARD = {
    **dict.fromkeys(("airline", "disaster", "restaurant", "conll", "political_message"), 2),
    **dict.fromkeys(("political_audience", "political_bias", "rating_books", "scitail"), 1),
    **dict.fromkeys(("sentiment_books", "sentiment_dvd", "sentiment_kitchen"), 1),
}
"""Tasks of LEOPARD whose published test examples are there, and how often they are drawn."""
WHOLE = {
    "agnews": ("label", (0, 0, 0)),
    "sst2": ("label", (0, 0)),
    "mr": ("label", (0, 0)),
    "subj": ("label", (0, 0)),
    "cr": ("label", (0, 0)),
    "banking77": ("label", (3, 5, 8, 12, 16, 20)),
    "huffpost": ("label", (2, 4, 6, 10, 15, 20)),
    "trec-coarse": ("label", (0, 2, 3)),
    "trec-fine": ("label_fine", (3, 5, 8, 12)),
}
"""Data sets: column of the class, and ways of each task (0: all classes)."""


class Planned(Settings):
    """A task of the matrix."""

    name: str
    """Unique; also the key of its episodes' randomness."""
    source: str
    """What counts as its data set in a split."""
    path: str
    """File below METALEARN_DATA."""
    part: str = ""
    """Records whose column `task` is this; empty: all."""
    label: str = "label"
    """Column of the class."""
    text_b: str = ""
    """Column of a second text."""
    classes: tuple[str, ...]
    """Its classes."""
    shots: int = Field(ge=1)
    """K, support examples of a class."""
    balanced: bool = True
    """Whether every class has K, or each from 1 to K."""
    queries: int = Field(ge=1)
    """Q, queries of a class and support set."""
    sets: int = Field(ge=1)
    """Support sets."""


def plan(seed: int = 0) -> list[Planned]:
    """The tasks of all sources at hand.

    Raises:
        TaskError: If a file is missing.
    """
    with gzip.open(find("superni_core120/tasks.json.gz"), "rt", encoding="utf-8") as file:
        about = json.load(file)
    wanted: list[dict[str, Any]] = [
        {"name": name, "source": entry["source"][0], "path": "superni_core120", "part": name}
        for name, entry in about.items()
    ]
    for part, times in LEOPARD.items():
        pair = {"text_b": "text_b"} if part in ("conll", "restaurant", "scitail") else {}
        one = {"source": part, "path": "leopard", "part": part, **pair}
        wanted += [{"name": f"{part}-{number}", **one} for number in range(times)]
    for name, (label, sizes) in WHOLE.items():
        one = {"source": name, "path": name.partition("-")[0], "label": label}
        wanted += [{"name": f"{name}-{n}", "ways": ways, **one} for n, ways in enumerate(sizes)]
    counted = {member: source for source, members in SAME.items() for member in members}
    found = []
    for task in wanted:
        task["path"] += "/data.jsonl.gz"
        task["source"] = counted.get(task["source"], task["source"])
        drawn = _drawn(task, task.pop("ways", 0), np.random.default_rng((seed, *_key(task))))
        if drawn is not None:
            found.append(drawn)
    return found


def _drawn(task: dict[str, Any], ways: int, random: np.random.Generator) -> Planned | None:
    """Classes, shots and sets that the examples suffice for; None where they suffice for none."""
    pools = _pools(task["path"], task.get("part", ""), *_columns(task))
    sizes = {label: len(distinct(pool)) for label, pool in sorted(pools.items())}
    for sets in SETS:
        for least in (SHOTS[3], SHOTS[0]) if sets == SETS[-1] else (SHOTS[3],):
            classes = sorted(sizes)
            # A class too rare for its share of the queries is left out.
            for _ in range(len(classes)):
                width = math.ceil(QUERIES / (sets * (ways or len(classes))))
                classes, before = [c for c in classes if sizes[c] >= width + least], classes
                if classes == before:
                    break
            if len(classes) < max(2, ways) or len(classes) < 0.7 * len(sizes) * (not ways):
                continue
            chosen = tuple(random.permutation(classes)[: ways or 20].tolist())
            width = math.ceil(QUERIES / (sets * len(chosen)))
            room = min(sizes[label] for label in chosen) - width
            fitting = [k for k in SHOTS if k <= room and k * len(chosen) <= LARGEST]
            if not fitting:
                continue
            shots = int(random.choice(fitting))
            balanced = shots < 4 or bool(random.random() < 0.7)
            found = Planned(
                **task, classes=chosen, shots=shots, balanced=balanced, queries=width, sets=sets
            )
            try:
                for index in range(sets):
                    draw(found, index)
            except TaskError:  # the same texts stand in several classes
                continue
            return found
    return None


def draw(planned: Planned, index: int) -> Task:
    """Support set `index` of a task, with its queries: a function of the plan alone.

    Raises:
        TaskError: If a file is missing, or the examples do not suffice.
    """
    task = stream(planned).task(index)
    if planned.balanced:
        return task
    random = np.random.default_rng((*_key(planned.model_dump()), index))
    keep = {label: int(random.integers(1, planned.shots + 1)) for label in task.label_names}
    seen = dict.fromkeys(keep, 0)
    support = []
    for example in task.support:
        seen[example.label or ""] += 1
        if seen[example.label or ""] <= keep[example.label or ""]:
            support.append(example)
    return Task(
        task.source, task.kind, tuple(support), task.query, task.label_names, task.class_ids
    )


def stream(planned: Planned) -> TaskStream:
    """The support sets of a task, one after the other."""
    pools = _pools(planned.path, planned.part, planned.label, planned.text_b)
    lost = [label for label in planned.classes if label not in pools]
    if lost:
        raise UserError(f"task {planned.name}: {planned.path} has no class {lost[0]}")
    examples = [example for label in planned.classes for example in pools[label]]
    family = RecordFamily(planned.name, "class", examples, {"test": planned.classes})
    shape = EpisodeShape(0, planned.shots, planned.queries)
    return TaskStream(family, "test", shape, seed=_key(planned.model_dump())[0])


def part(planned: Planned, example: Example) -> int:
    """Which half of the queries an example is in: always the same, whatever set it is drawn in."""
    return zlib.crc32(f"{planned.name} {example.id}".encode()) & 1


def _key(task: Mapping[str, Any]) -> tuple[int]:
    return (zlib.crc32(task["name"].encode()),)


def _columns(task: Mapping[str, Any]) -> tuple[str, str]:
    return task.get("label", "label"), task.get("text_b", "")


@lru_cache(maxsize=2)
def _pools(path: str, part: str, label: str, text_b: str) -> dict[str, list[Example]]:
    """Examples of each class."""
    rows = _rows(path).get(part) if part else _all(_rows(path))
    if not rows:
        raise UserError(f"{path} has no task {part}; correct the plan")
    numbered = ((f"record {number}", row) for number, row in rows)
    pools: dict[str, list[Example]] = {}
    for example in to_examples(numbered, path, "class", "text", label, text_b):
        pools.setdefault(example.label or "", []).append(example)
    return pools


Numbered = list[tuple[int, dict[str, Any]]]


@lru_cache(maxsize=1)
def _rows(path: str) -> dict[str, Numbered]:
    """Records of a file by their column `task`, numbered."""
    groups: dict[str, Numbered] = {}
    file = find(path)
    opener = gzip.open if file.suffix == ".gz" else open
    with opener(file, "rt", encoding="utf-8") as lines:
        for number, line in enumerate(lines):
            row = json.loads(line)
            groups.setdefault(row.get("task", ""), []).append((number, row))
    return groups


def _all(groups: Mapping[str, Numbered]) -> Numbered:
    return [row for group in groups.values() for row in group]


def names(planned: Iterable[Planned]) -> list[str]:
    """Names of the sources, sorted."""
    return sorted({task.source for task in planned})
