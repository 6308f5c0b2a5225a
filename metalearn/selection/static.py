"""Policies that look at no feature: what a learned one has to beat.

    random        a ~ uniform over the able learners
    single best   a = argmin_a mean_t (max_b u_tb - u_ta), over the training tasks

The mean regret orders learners as the mean utility does; where a learner is not able on some tasks,
it does not reward that these were hard.  The virtual best, which knows the outcome, is no policy:
`metalearn.selection.crossvalidation.virtual_best`.
Bischl et al. 2016, "ASlib: A Benchmark Library for Algorithm Selection", section 4.
"""

from __future__ import annotations

import numpy as np

from metalearn.selection.policy import Policy, Scored
from metalearn.selection.problem import Problem


class Random(Policy):
    """A learner at random, of those that are able."""

    def fit(self, problem: Problem, seed: int) -> None:
        self.random = np.random.default_rng(seed)

    def choose(self, features: np.ndarray, able: np.ndarray) -> int:
        return int(self.random.choice(np.flatnonzero(able)))


class SingleBest(Scored):
    """Always the learner that was best over the training tasks.

    Example:
        >>> problem = Problem(
        ...     ("one", "two"), ("s", "s"), ("cheap", "dear"), (), np.zeros((2, 0)),
        ...     np.array([[[0.5, 0.9], [0.8, 0.6]]]), np.ones((2, 2)),
        ... )
        >>> policy = SingleBest()
        >>> policy.fit(problem, seed=0)
        >>> policy.choose(np.zeros(0), np.array([True, True]))
        1
        >>> policy.choose(np.zeros(0), np.array([True, False]))
        0
    """

    def fit(self, problem: Problem, seed: int) -> None:
        # r_a = mean over the tasks where a is able of max_b u_tb - u_ta
        regret = regrets(problem)
        able = problem.able
        total = np.where(able, regret, 0.0).sum(0)
        mean = total / np.maximum(able.sum(0), 1)
        self.score = np.where(able.any(0), -mean, -np.inf)

    def scores(self, features: np.ndarray, able: np.ndarray) -> np.ndarray:
        return np.broadcast_to(self.score, (len(features), len(self.score)))


def regrets(problem: Problem) -> np.ndarray:
    """What a learner loses to the best of its task `[T, A]`; infinite where it is not able."""
    utilities = np.where(problem.able, problem.mean, -np.inf)
    return utilities.max(1, keepdims=True) - utilities
