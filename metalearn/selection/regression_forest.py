"""A random forest for each learner predicts its utility; the largest prediction is chosen.

    a = argmax_a f_a(x),    f_a = a regression forest on {(x_t, u_ta)}

Leyton-Brown, Nudelman and Shoham 2002, "Learning the Empirical Hardness of Optimization Problems",
for the models; Bischl et al. 2016, "ASlib", section 5, for the forest (`regr.randomForest`).
"""

from __future__ import annotations

import numpy as np

from metalearn.selection.policy import Scored
from metalearn.selection.problem import Problem


class RegressionForest(Scored):
    """A regression forest for each learner.

    Args:
        trees: Trees a forest.
        share: Features tried at a split, as a share of F: a third, as in R's randomForest, which
            made the published numbers.
        leaf: Tasks a leaf holds at least; R's default for regression.

    Example:
        >>> random = np.random.default_rng(0)
        >>> features = random.uniform(-1, 1, (60, 2))
        >>> utilities = np.stack([features[:, 0], -features[:, 0]], 1)
        >>> names = tuple(map(str, range(60)))
        >>> policy = RegressionForest(trees=10)
        >>> policy.fit(Problem(
        ...     names, names, ("up", "down"), ("x", "y"), features, utilities[None], 0 * utilities
        ... ), seed=0)
        >>> policy.choose_all(np.array([[0.8, 0.0], [-0.8, 0.0]]), np.ones((2, 2), bool))
        array([0, 1])
    """

    def __init__(self, trees: int = 100, share: float = 1 / 3, leaf: int = 5) -> None:
        self.trees, self.share, self.leaf = trees, share, leaf

    def fit(self, problem: Problem, seed: int) -> None:
        from sklearn.ensemble import RandomForestRegressor

        self.forests = []
        for utility, able in zip(problem.mean.T, problem.able.T, strict=True):
            forest = RandomForestRegressor(
                self.trees,
                max_features=self.share,
                min_samples_leaf=self.leaf,
                random_state=seed,
            )
            # f_a on {(x_t, u_ta)}
            known = problem.features[able], utility[able]
            self.forests.append(forest.fit(*known) if able.any() else None)

    def scores(self, features: np.ndarray, able: np.ndarray) -> np.ndarray:
        never = np.full(len(features), -np.inf)
        found = [never if forest is None else forest.predict(features) for forest in self.forests]
        return np.stack(found, 1)
