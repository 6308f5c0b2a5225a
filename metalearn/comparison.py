"""Is the difference between two learners more than chance? Interval and p by one resampling.

Scores lie as in `metalearn.statistics`: a group a fold, in it `[E]` episodes or `[R, E]` seeds x
episodes.  Both sides of a resample hold the same drawn groups and the same drawn episodes, which
takes out what makes a task hard for everybody.  Seeds are drawn once for both sides where row r of
one side belongs to row r of the other, and apart where they are trainings of their own.  Sides on
different tasks are drawn apart altogether.

With d* the resampled differences of the means, the interval is [q_.025(d*), q_.975(d*)] and

    p = min(1, 2 (1 + min(#{d* <= 0}, #{d* >= 0})) / (B + 1)),

the level at which the interval begins to hold 0.  Davison and Hinkley 1997, "Bootstrap Methods and
their Application", sections 4.4 and 5.3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from metalearn.statistics import Interval, resampled_means

Shared = Literal["seeds", "tasks", "nothing"]
"""What two sides have in common: tasks and training seeds, tasks alone, or neither."""


@dataclass(frozen=True)
class Difference:
    """A mean difference, its 95% interval and its p.

    Attributes:
        interval: Of ours minus theirs.
        p: Two-sided; no smaller than 2 / (resamples + 1).
    """

    interval: Interval
    p: float


def difference(
    ours: Sequence[np.ndarray],
    theirs: Sequence[np.ndarray],
    *,
    shared: Shared = "seeds",
    resamples: int = 2000,
    seed: int = 0,
) -> Difference:
    """The mean of ours minus that of theirs, with interval and p.

    Args:
        ours: Scores of each group, `[E]` or `[R, E]`.
        theirs: Scores of the same groups; with `shared` "nothing", of any.
        shared: What the sides have in common.
        resamples: Number of resamples B.
        seed: Seed of the resampling.

    Raises:
        ValueError: If a side has no score, or the sides do not hold what they are said to share.

    Example:
        >>> found = difference([np.arange(9) + 1.0], [np.arange(9)], resamples=999)
        >>> found.interval, found.p
        (Interval(mean=1.0, low=1.0, high=1.0), 0.002)
    """
    left = [np.atleast_2d(np.asarray(group, dtype=np.float64)) for group in ours]
    right = [np.atleast_2d(np.asarray(group, dtype=np.float64)) for group in theirs]
    if not left or not right or any(group.size == 0 for group in (*left, *right)):
        raise ValueError("a difference needs at least one score in every group of both sides")
    axis = {"seeds": 0, "tasks": 1}.get(shared)
    if axis is not None and [g.shape[axis:] for g in left] != [g.shape[axis:] for g in right]:
        raise ValueError(f"the sides do not hold the same {shared}; see `shared`")
    random = np.random.default_rng(seed)
    if shared == "nothing":
        drawn = resampled_means(left, random, resamples)
        drawn = drawn - resampled_means(right, random, resamples)
    elif shared == "tasks":
        drawn = resampled_means(left, random, resamples, right)
    else:
        left = [a - b for a, b in zip(left, right, strict=True)]
        right = [np.zeros(1)]
        drawn = resampled_means(left, random, resamples)
    low, high = np.quantile(drawn, (0.025, 0.975))
    mean = float(np.mean([g.mean() for g in left]) - np.mean([g.mean() for g in right]))
    beyond = min(int(np.sum(drawn <= 0)), int(np.sum(drawn >= 0)))
    p = min(1.0, 2 * (1 + beyond) / (resamples + 1))
    return Difference(Interval(mean, float(low), float(high)), p)


def holm(p: Sequence[float]) -> list[float]:
    """The p of several comparisons made at once, so that all of them together err in 5 of 100.

    Sorted p_(1) <= ... <= p_(m) become max over j <= i of min(1, (m - j + 1) p_(j)).
    Holm 1979, "A Simple Sequentially Rejective Multiple Test Procedure".

    Example:
        >>> [round(value, 3) for value in holm([0.01, 0.04, 0.03])]
        [0.03, 0.06, 0.06]
    """
    adjusted, largest = [0.0] * len(p), 0.0
    for place, index in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        largest = max(largest, min(1.0, (len(p) - place) * p[index]))
        adjusted[index] = largest
    return adjusted
