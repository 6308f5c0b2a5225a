"""The learner that was best on the k most similar training tasks.

    a = argmin_a mean_{t in N_k(x)} (max_b u_tb - u_ta),    N_k(x): the k smallest |z(x) - z(x_t)|

with z the features in units of their deviation over the training tasks; the mean goes over the
neighbours on which a learner is able.  Kadioglu, Malitsky, Sabharwal, Samulowitz and Sellmann 2011,
"Algorithm Selection and Scheduling", section 3.
"""

from __future__ import annotations

import numpy as np

from metalearn.selection.policy import Scored
from metalearn.selection.problem import Problem
from metalearn.selection.static import regrets


class NearestTasks(Scored):
    """The best learner of the nearest tasks.

    Args:
        k: Neighbours; no more than there are training tasks.

    Raises:
        ValueError: If `k` is below 1.

    Example:
        >>> features = np.linspace(-1, 1, 20)[:, None]
        >>> utilities = np.concatenate([features, -features], 1)
        >>> names = tuple(map(str, range(20)))
        >>> policy = NearestTasks(k=3)
        >>> policy.fit(Problem(
        ...     names, names, ("up", "down"), ("x",), features, utilities[None], 0 * utilities
        ... ), seed=0)
        >>> policy.choose(np.array([0.8]), np.array([True, True]))
        0
    """

    def __init__(self, k: int = 10) -> None:
        if k < 1:
            raise ValueError(f"{k} nearest tasks: there must be at least one")
        self.k = k

    def fit(self, problem: Problem, seed: int) -> None:
        self.center = problem.features.mean(0)
        spread = problem.features.std(0)
        self.spread = np.where(spread > 0, spread, 1.0)
        self.known = (problem.features - self.center) / self.spread
        self.regret = regrets(problem)

    def scores(self, features: np.ndarray, able: np.ndarray) -> np.ndarray:
        from sklearn.metrics import pairwise_distances

        z = (features - self.center) / self.spread
        # N_k(x); the first of equal distances, so that it does not depend on the machine
        order = pairwise_distances(z, self.known).argsort(1, kind="stable")
        regret = self.regret[order[:, : self.k]]
        known = np.isfinite(regret)
        mean = np.where(known, regret, 0.0).sum(1) / np.maximum(known.sum(1), 1)
        return np.where(known.any(1), -mean, -np.inf)
