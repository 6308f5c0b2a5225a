"""Learners compared over several data sets: average ranks, and the least difference that counts.

    R_j    = 1/B sum_b rank of learner j on data set b                (1 is the best, ties share)
    chi2_F = 12 B / (k (k + 1)) [ sum_j R_j^2 - k (k + 1)^2 / 4 ]     (corrected for ties)
    CD     = q_alpha sqrt( k (k + 1) / (6 B) )

Friedman's test asks whether all k learners are alike on B data sets; if not, two of them differ
where their average ranks are at least CD apart (Nemenyi; q_alpha is the quantile of the
Studentized range of k means, over sqrt(2)).  The unit is the data set: few of them can tell only
large differences, however many tasks each has.
Demsar 2006, "Statistical Comparisons of Classifiers over Multiple Data Sets", section 3.2.2.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import friedmanchisquare, rankdata, studentized_range


@dataclass(frozen=True)
class Ranking:
    """How k learners rank over B data sets.

    Attributes:
        ranks: `[k]` average ranks; 1 is the best.
        statistic: Friedman's chi-square, corrected for ties; NaN where k < 3.
        p: Its probability if all learners are alike (chi-square of k - 1 degrees of freedom).
        critical: CD, the least difference of two average ranks that counts.
        blocks: B.
    """

    ranks: np.ndarray
    statistic: float
    p: float
    critical: float
    blocks: int

    def entry(self, names: Sequence[str]) -> dict[str, Any]:
        """For JSON: the numbers, and rank and groups by the names of the learners."""
        return {
            "blocks": self.blocks,
            "statistic": self.statistic,
            "p": self.p,
            "critical_difference": self.critical,
            "groups": [[names[j] for j in group] for group in self.groups()],
            "learners": [
                {"learner": name, "rank": float(rank)}
                for name, rank in zip(names, self.ranks, strict=True)
            ],
        }

    def groups(self) -> list[tuple[int, ...]]:
        """The largest groups of learners that cannot be told apart, each from best to worst.

        Example:
            >>> Ranking(np.array([1.0, 3.0, 1.5]), 0.0, 1.0, 1.6, 9).groups()
            [(0, 2), (2, 1)]
        """
        order = [int(j) for j in np.argsort(self.ranks, kind="stable")]
        found: list[tuple[int, ...]] = []
        end = -1
        for first in range(len(order)):
            last = first
            while (
                last + 1 < len(order)
                and self.ranks[order[last + 1]] - self.ranks[order[first]] < self.critical
            ):
                last += 1
            if last > max(first, end):
                found.append(tuple(order[first : last + 1]))
                end = last
        return found


def rank_learners(scores: Sequence[Sequence[float]] | np.ndarray, alpha: float = 0.05) -> Ranking:
    """Average ranks with Friedman's test and the critical difference of Nemenyi.

    Args:
        scores: `[B, k]`, the score of each learner on each data set; more is better.
        alpha: Level of the critical difference.

    Raises:
        ValueError: If there are fewer than two data sets or learners, or a score is not finite.

    Example:
        >>> found = rank_learners([[0.9, 0.8, 0.7], [0.6, 0.5, 0.5], [0.8, 0.7, 0.6]])
        >>> found.ranks.round(2).tolist(), round(found.critical, 2)
        ([1.0, 2.17, 2.83], 1.91)
    """
    table = np.asarray(scores, dtype=np.float64)
    if table.ndim != 2 or min(table.shape) < 2:
        raise ValueError(f"ranks need two data sets and two learners; the scores are {table.shape}")
    if not np.isfinite(table).all():
        raise ValueError("ranks need a finite score of every learner on every data set")
    blocks, learners = table.shape
    ranks = rankdata(-table, axis=1)
    statistic = p = math.nan
    if learners > 2:
        alike = (ranks == ranks[:, :1]).all()  # the correction for ties would divide by zero
        test = (0.0, 1.0) if alike else friedmanchisquare(*ranks.T)
        statistic, p = (float(value) for value in test)
    return Ranking(
        ranks.mean(0), statistic, p, critical_difference(learners, blocks, alpha), blocks
    )


def critical_difference(learners: int, blocks: int, alpha: float = 0.05) -> float:
    """CD = q_alpha sqrt(k (k + 1) / (6 B)), in ranks.

    Args:
        learners: k, at least 2.
        blocks: B, the number of data sets.
        alpha: Level.

    Example:
        >>> round(critical_difference(4, 14), 2)  # 1.25 in Demsar 2006, with q = 2.569
        1.25
    """
    quantile = studentized_range.ppf(1 - alpha, learners, math.inf) / math.sqrt(2)
    return float(quantile * math.sqrt(learners * (learners + 1) / (6 * blocks)))
