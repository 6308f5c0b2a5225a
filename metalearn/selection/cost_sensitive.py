"""One classifier whose classes are the learners, which minimizes cost and not errors.

Every task becomes an example of each learner that is able, with what it gains over the worst:

    {(x_t, a, w_ta)},    w_ta = u_ta - min_b u_tb

A classifier h that minimizes its weighted errors sum_ta w_ta 1[h(x_t) != a] maximizes the utility
sum_t u_{t, h(x_t)}, from which it differs by a constant.  Abe, Zadrozny and Langford 2004, "An
Iterative Method for Multi-Class Cost-Sensitive Learning", section 3.1 (data space expansion).

1. The expanded data enter one random forest as weights; they are not resampled in iterations.
"""

from __future__ import annotations

import numpy as np

from metalearn.selection.policy import Scored
from metalearn.selection.problem import Problem


class CostSensitive(Scored):
    """A cost-sensitive classification forest over the learners.

    Args:
        trees: Trees of the forest.
        leaf: Share of all weight that a leaf holds at least.

    Example:
        >>> random = np.random.default_rng(0)
        >>> features = random.uniform(-1, 1, (60, 2))
        >>> utilities = np.stack([features[:, 0], -features[:, 0]], 1)
        >>> names = tuple(map(str, range(60)))
        >>> policy = CostSensitive(trees=10)
        >>> policy.fit(Problem(
        ...     names, names, ("up", "down"), ("x", "y"), features, utilities[None], 0 * utilities
        ... ), seed=0)
        >>> policy.choose_all(np.array([[0.8, 0.0], [-0.8, 0.0]]), np.ones((2, 2), bool))
        array([0, 1])
    """

    def __init__(self, trees: int = 100, leaf: float = 1e-3) -> None:
        self.trees, self.leaf = trees, leaf

    def fit(self, problem: Problem, seed: int) -> None:
        from sklearn.ensemble import RandomForestClassifier

        able, utility = problem.able, problem.mean
        # w_ta = u_ta - min_b u_tb, over the learners that are able
        worst = np.where(able, utility, np.inf).min(1, keepdims=True)
        weight = np.where(able, utility - worst, 0.0)
        rows, learners = np.nonzero(weight)
        self.size = len(problem.learners)
        self.forest = None
        if len(rows):
            forest = RandomForestClassifier(
                self.trees, min_weight_fraction_leaf=self.leaf, random_state=seed
            )
            scale = weight[rows, learners] / weight[rows, learners].mean()
            self.forest = forest.fit(problem.features[rows], learners, sample_weight=scale)

    def scores(self, features: np.ndarray, able: np.ndarray) -> np.ndarray:
        found = np.zeros((len(features), self.size))
        if self.forest is not None:
            found[:, self.forest.classes_] = self.forest.predict_proba(features)
        return found
