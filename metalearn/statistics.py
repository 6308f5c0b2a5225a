"""Intervals: hierarchical bootstraps, paired between learners.

Scores lie in groups (a group is a fold) of episodes `[E]`, or of seeds x episodes `[R, E]` where
several seeds were judged on the same episodes.  A resample draws groups with replacement, then
within each drawn group seeds, and episodes that all of its seeds share: drawing episodes for each
seed anew would count the same episodes as if they were independent, and make intervals too narrow.
Two learners are compared by the interval of their differences on the same episodes.
Davison and Hinkley 1997, "Bootstrap Methods and their Application", section 3.8.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Interval:
    """A mean with its 95% interval.

    Attributes:
        mean: Mean over groups of the mean over episodes.
        low: 2.5% quantile of the resampled means.
        high: 97.5% quantile.
    """

    mean: float
    low: float
    high: float

    def as_dict(self) -> dict[str, float]:
        """For JSON."""
        return {"mean": self.mean, "low": self.low, "high": self.high}


def bootstrap(
    groups: Sequence[Sequence[float] | np.ndarray], *, resamples: int = 2000, seed: int = 0
) -> Interval:
    """Mean over groups of the mean over episodes, with the 95% percentile interval.

    Args:
        groups: Scores of each fold, `[E]` or `[R, E]`.
        resamples: Number of resamples.
        seed: Seed of the resampling; the same seed resamples two learners alike.

    Raises:
        ValueError: If there is no group, or one without scores.

    Example:
        >>> interval = bootstrap([[0.0, 1.0] * 50], resamples=500)
        >>> interval.mean, interval.low < 0.5 < interval.high
        (0.5, True)
    """
    scores = [np.atleast_2d(np.asarray(group, dtype=np.float64)) for group in groups]
    if not scores or any(group.size == 0 for group in scores):
        raise ValueError("an interval needs at least one score in every group")
    means = resampled_means(scores, np.random.default_rng(seed), resamples)
    low, high = np.quantile(means, (0.025, 0.975))
    mean = float(np.mean([group.mean() for group in scores]))
    return Interval(mean, float(low), float(high))


def resampled_means(
    groups: Sequence[np.ndarray],
    random: np.random.Generator,
    resamples: int,
    others: Sequence[np.ndarray] | None = None,
) -> np.ndarray:
    """Means of resamples `[B]`; minus those of others on the same drawn groups and episodes.

    Args:
        groups: Scores of each group, `[R, E]`.
        random: Where the draws come from.
        resamples: Number of resamples B.
        others: Scores `[R', E]` of the same episodes by seeds of their own, which are drawn apart.

    Example:
        >>> resampled_means([np.ones((2, 3))], np.random.default_rng(0), 2, [np.zeros((1, 3))])
        array([1., 1.])
    """
    means = np.zeros(resamples)
    for drawn in random.integers(len(groups), size=(len(groups), resamples)):
        for index, group in enumerate(groups):
            rows = np.flatnonzero(drawn == index)
            seeds = random.integers(group.shape[0], size=(len(rows), group.shape[0], 1))
            episodes = random.integers(group.shape[1], size=(len(rows), 1, group.shape[1]))
            means[rows] += group[seeds, episodes].mean((1, 2)) / len(groups)
            if others is not None:
                count = others[index].shape[0]
                seeds = random.integers(count, size=(len(rows), count, 1))
                means[rows] -= others[index][seeds, episodes].mean((1, 2)) / len(groups)
    return means


def paired(
    ours: Sequence[np.ndarray],
    theirs: Sequence[np.ndarray],
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """Interval of the mean difference `ours - theirs` on the same episodes.

    Args:
        ours: Scores of each group, `[E]` or `[R, E]`.
        theirs: Scores of the same episodes of the same groups.
        resamples: Number of resamples.
        seed: Seed of the resampling.

    Raises:
        ValueError: If the groups do not hold the same numbers of episodes.

    Example:
        >>> paired([np.ones(9)], [np.zeros(9)], resamples=10)
        Interval(mean=1.0, low=1.0, high=1.0)
    """
    if [len(group) for group in ours] != [len(group) for group in theirs]:
        raise ValueError("a paired interval needs the same episodes on both sides")
    differences = [np.asarray(a) - np.asarray(b) for a, b in zip(ours, theirs, strict=True)]
    return bootstrap(differences, resamples=resamples, seed=seed)


def macro_f1(labels: np.ndarray, predictions: np.ndarray) -> float:
    """Mean over the classes of `labels` of F1 = 2 TP / (2 TP + FP + FN).

    Args:
        labels: True classes.
        predictions: Predicted classes, of the same length.

    Example:
        >>> macro_f1(np.array([0, 0, 1, 1]), np.array([0, 0, 1, 1]))
        1.0
    """
    scores = []
    for label in np.unique(labels):
        true, said = labels == label, predictions == label
        scores.append(2 * np.sum(true & said) / (np.sum(true) + np.sum(said)))
    return float(np.mean(scores))
