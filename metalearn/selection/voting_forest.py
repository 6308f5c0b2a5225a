"""A forest for each pair of learners votes for the better one; most votes are chosen.

    a = argmax_a sum_b 1[p_ab(x) > 1/2],    p_ab = a classification forest on
    {(x_t, 1[u_ta > u_tb])} with weights |u_ta - u_tb|

A task on which two learners are as good as each other says nothing about them; one on which a wrong
choice costs much counts much.  Xu, Hutter, Hoos and Leyton-Brown 2012, "Evaluating Component Solver
Contributions to Portfolio-Based Algorithm Selectors", section 3 (SATzilla 2012).

1. Equal votes are decided by the sum of the probabilities, not by another prediction.
2. No pre-solvers, no back-up solver, and no prediction of what the features cost.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from metalearn.selection.policy import Scored
from metalearn.selection.problem import Problem


class VotingForest(Scored):
    """A cost-sensitive classification forest for each pair of learners.

    Args:
        trees: Trees a forest; 99 as in the paper.

    Example:
        >>> random = np.random.default_rng(0)
        >>> features = random.uniform(-1, 1, (60, 2))
        >>> utilities = np.stack([features[:, 0], -features[:, 0]], 1)
        >>> names = tuple(map(str, range(60)))
        >>> policy = VotingForest(trees=9)
        >>> policy.fit(Problem(
        ...     names, names, ("up", "down"), ("x", "y"), features, utilities[None], 0 * utilities
        ... ), seed=0)
        >>> policy.choose_all(np.array([[0.8, 0.0], [-0.8, 0.0]]), np.ones((2, 2), bool))
        array([0, 1])
    """

    def __init__(self, trees: int = 99) -> None:
        self.trees = trees

    def fit(self, problem: Problem, seed: int) -> None:
        size = len(problem.learners)
        self.forests = {
            (a, b): self._forest(problem, a, b, seed) for a in range(size) for b in range(a)
        }

    def _forest(self, problem: Problem, a: int, b: int, seed: int) -> Any:
        """p_ab; a number where the training tasks have only one answer, or none."""
        from sklearn.ensemble import RandomForestRegressor

        both = problem.able[:, a] & problem.able[:, b]
        gain = problem.mean[both, a] - problem.mean[both, b]
        # 1[u_ta > u_tb] with weight |u_ta - u_tb|
        better, weight = gain > 0, np.abs(gain)
        if len(set(better[weight > 0])) < 2:
            return float(np.sign(gain.sum()) + 1) / 2
        # On answers 0 and 1 the variance of a leaf, p (1 - p), is half its Gini impurity: these are
        # the classifier's trees, and their mean its probability, without its checks of classes.
        options: dict[str, Any] = {"max_features": "sqrt", "random_state": seed}
        forest = RandomForestRegressor(self.trees, **options)
        # In units of their mean: the weights of a whole scenario may be tiny.
        told = weight > 0
        scale = weight[told] / weight.mean()
        return forest.fit(
            problem.features[both][told], better[told].astype(float), sample_weight=scale
        )

    def scores(self, features: np.ndarray, able: np.ndarray) -> np.ndarray:
        votes = np.zeros(able.shape)
        for (a, b), forest in self.forests.items():
            constant = isinstance(forest, float)
            p = np.full(len(features), forest) if constant else forest.predict(features)
            # a's vote is 1[p > 1/2], a half where p = 1/2; all probabilities weigh less than a vote
            vote = (np.sign(p - 0.5) + 1) / 2 + p / able.shape[1] ** 2
            against = 1 + 1 / able.shape[1] ** 2 - vote
            votes[:, a] += np.where(able[:, b], vote, 0.0)
            votes[:, b] += np.where(able[:, a], against, 0.0)
        return votes
