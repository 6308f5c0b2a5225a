"""Class-balanced N-way K-shot and uniform drawing of support and query examples.

Pools are built once and hold every text once, so a draw costs O(examples drawn), not O(data set),
and no duplicate of a support text can reach the query.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from tasks.episode import Example, TaskError

TextKey = tuple[str, str]
"""What makes two texts the same: both texts of the example, casefolded, single-spaced."""


def text_key(example: Example) -> TextKey:
    """The texts of an example without the differences of case and white space.

    Example:
        >>> text_key(Example(0, "Where is  my Card?")) == text_key(Example(1, "where is my card? "))
        True
    """
    return _normalize(example.text), _normalize(example.text_b or "")


def _normalize(text: str) -> str:
    return " ".join(text.casefold().split())


@dataclass(frozen=True, slots=True)
class Pool:
    """Examples of which no two have the same text.

    Attributes:
        examples: What can be drawn.
        keys: `text_key` of each example.
    """

    examples: tuple[Example, ...]
    keys: tuple[TextKey, ...]

    def __len__(self) -> int:
        return len(self.examples)


def distinct(examples: Iterable[Example]) -> Pool:
    """A pool of the first example of every text.

    Example:
        >>> len(distinct([Example(0, "Hello"), Example(1, "hello "), Example(2, "bye")]))
        2
    """
    first: dict[TextKey, Example] = {}
    for example in examples:
        first.setdefault(text_key(example), example)
    return Pool(tuple(first.values()), tuple(first))


def n_way_k_shot(
    pools: Mapping[str, Pool], ways: int, shots: int, queries: int, random: np.random.Generator
) -> tuple[tuple[Example, ...], tuple[Example, ...], tuple[str, ...]]:
    """N classes in random order, K support and Q query examples of each, without replacement.

    Args:
        pools: Examples of every class that may be drawn.
        ways: N; 0 means all classes.
        shots: K, support examples a class.
        queries: Q, query examples a class.
        random: The only source of randomness.

    Returns:
        Support `[N * K]` and query `[N * Q]`, class by class, and the N class names.

    Raises:
        TaskError: If there are fewer than N classes, or a class has fewer than K + Q texts.

    Example:
        >>> pools = {c: distinct(Example(i, f"{c} {i}", label=c) for i in range(4)) for c in "abc"}
        >>> draw = n_way_k_shot(pools, 2, 1, 3, np.random.default_rng(0))
        >>> [len(part) for part in draw]
        [2, 6, 2]

    Source: Vinyals et al. 2016, "Matching Networks for One Shot Learning", sec. 2.2.
    """
    _check_sizes(shots, queries)
    names = tuple(pools)
    if ways < 0 or ways > len(names):
        raise TaskError(
            f"{ways} ways asked for, but there are {len(names)} classes to draw from; "
            "ask for fewer ways (0 means all classes)"
        )
    # Every class is checked, not only those drawn now: a run must fail at its first task.
    for name, pool in pools.items():
        _check_count(f"class {name!r}", len(pool), shots, queries)
    order = random.permutation(len(names))[: ways or None]
    chosen = tuple(names[i] for i in order)
    taken: set[TextKey] = set()
    support: list[Example] = []
    query: list[Example] = []
    for name in chosen:
        drawn = _take(f"class {name!r}", pools[name], shots, queries, taken, random)
        support += drawn[:shots]
        query += drawn[shots:]
    return tuple(support), tuple(query), chosen


def uniform(
    pool: Pool, shots: int, queries: int, random: np.random.Generator
) -> tuple[tuple[Example, ...], tuple[Example, ...]]:
    """K support and Q query examples in all, uniformly and without replacement.

    Raises:
        TaskError: If the pool holds fewer than K + Q texts.

    Example:
        >>> pool = distinct(Example(i, str(i)) for i in range(10))
        >>> support, query = uniform(pool, 3, 4, np.random.default_rng(0))
        >>> len(support), len(query), len(set(support) & set(query))
        (3, 4, 0)
    """
    _check_sizes(shots, queries)
    _check_count("the split", len(pool), shots, queries)
    drawn = _take("the split", pool, shots, queries, set(), random)
    return tuple(drawn[:shots]), tuple(drawn[shots:])


def _take(
    what: str,
    pool: Pool,
    shots: int,
    queries: int,
    taken: set[TextKey],
    random: np.random.Generator,
) -> list[Example]:
    """K + Q examples whose texts are not `taken` yet; their texts are added to it."""
    count = shots + queries
    order = random.choice(len(pool), size=count, replace=False)
    if any(pool.keys[i] in taken for i in order):
        # The same text can carry two labels in a source: redraw among what is left.
        order = [i for i in random.permutation(len(pool)) if pool.keys[i] not in taken]
        _check_count(f"{what}, without texts of other drawn classes,", len(order), shots, queries)
        order = order[:count]
    taken.update(pool.keys[i] for i in order)
    return [pool.examples[i] for i in order]


def _check_sizes(shots: int, queries: int) -> None:
    if shots < 0 or queries < 0 or shots + queries == 0:
        raise TaskError(f"{shots} shots and {queries} queries make no task; ask for at least one")


def _check_count(what: str, count: int, shots: int, queries: int) -> None:
    if count < shots + queries:
        raise TaskError(
            f"{what} has {count} distinct examples, but {shots} shots + {queries} queries need "
            f"{shots + queries}; lower shots or queries, or add examples"
        )
