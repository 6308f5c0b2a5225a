"""Features and outcomes in units in which a policy's constants mean something.

    z = clip((x - mean) / sd, -3, 3)        of the training tasks; constant features become 0
    o = clip((u - low) / (high - low), 0, 1)    low, high: least and largest utility of training

A policy that sees outcomes of its choices alone is so told the range of utilities, as the bandit
literature tells it that they lie in [0, 1], and nothing else of what it did not choose.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from metalearn.selection.problem import Problem

LIMIT = 3.0
"""Deviations that a feature may be away: one strange task must not overrule all others."""


@dataclass(frozen=True)
class Scale:
    """Standardizes features.

    Attributes:
        mean: `[F]`.
        deviation: `[F]`; 1 where a feature is constant.

    Example:
        >>> Scale.of(np.array([[0.0, 5.0], [2.0, 5.0]]))(np.array([3.0, 5.0]))
        array([2., 0.])
    """

    mean: np.ndarray
    deviation: np.ndarray

    @classmethod
    def of(cls, features: np.ndarray) -> Scale:
        """That of features `[T, F]`."""
        deviation = features.std(0)
        return cls(features.mean(0), np.where(deviation > 0, deviation, 1.0))

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """Features `[..., F]` in deviations from the mean."""
        return np.clip((features - self.mean) / self.deviation, -LIMIT, LIMIT)


@dataclass(frozen=True)
class Unit:
    """Brings utilities to [0, 1].

    Attributes:
        low: What becomes 0.
        high: What becomes 1.

    Example:
        >>> Unit(-10.0, 10.0)(5.0), Unit(-10.0, 10.0)(11.0)
        (0.75, 1.0)
    """

    low: float = 0.0
    high: float = 1.0

    @classmethod
    def of(cls, problem: Problem) -> Unit:
        """That of the utilities of a problem."""
        known = problem.mean[problem.able]
        low, high = float(known.min()), float(known.max())
        return cls(low, high if high > low else low + 1.0)

    def __call__(self, utility: float) -> float:
        """A utility in [0, 1]."""
        return float(np.clip((utility - self.low) / (self.high - self.low), 0.0, 1.0))

    def problem(self, problem: Problem, features: np.ndarray) -> Problem:
        """The problem with utilities in [0, 1] and other features of its tasks `[T, F]`."""
        utilities = (problem.utilities - self.low) / (self.high - self.low)
        price = problem.price / (self.high - self.low)
        return replace(problem, features=features, utilities=utilities, price=price)
