"""One forest of trees for all learners: how much better than the others, and how often better.

    g_ta = (u_ta - mean_b u_tb) / s_g,    q_ta = (rank of u_ta - mean_b rank of u_tb) / s_q
    a = argmax_a (g_a(x) + w q_a(x)),    (g, q) = one regression forest on {(x_t, g_t, q_t)}

All learners are targets of the same trees, so that a split is good for telling learners apart and
not for telling hard tasks from easy ones, on which all learners agree.  Gains say what a choice is
worth, but are ruled by the few tasks on which most learners fail; ranks are told by every task and
say nothing of its worth.  Features enter by their quantiles over the training tasks: units do not
matter.  Breiman 2001, "Random Forests", with several targets.

How it was chosen: on four random splits in five folds of the five scenarios of `metalearn reproduce
aslib`, not on their official folds, with 100 trees and the same settings for all. Mean of the gap
closed, and its range over the splits:

    w                                    0                 .2    .3                 .5    1
    this forest                          .814 (.802-.821)  .836  .841 (.833-.848)  .839  .829
    extremely randomized trees           .803 (.797-.808)  .813  .811 (.805-.817)  .807  .797
    Laplace kernel ridge                 .787 (.768-.814)  .796  .799 (.784-.813)  .801  .800
    forest and randomized trees          .817 (.806-.827)  .836  .839 (.832-.845)  .837  .817
    all three                            .812 (.805-.821)  .829  .832 (.828-.836)  .834  .822

One model was taken, with w among those that do as well.  On two of these splits, where it closes
.843: three tasks a leaf .839; splits by the sum g + w q alone .821; a sum of four models (this one,
three tasks a leaf, randomized trees with that, the kernel) .846, .848 with w = .5.  On one, where
it closes .848: quantiles of utilities over all tasks as further targets .844; the root of F
features a split .829; the sum with splits by ranks alone and the kernel .853.  Such differences are
those between splits.  On the official folds, with 300 trees, it closes .841, .852, .851, .848 and
.836 with seeds 0 to 4; all three with w = 0 and 200 trees: .835 with seed 0, .818 with seed 1.

1. A training task on which a learner is not able counts as an average one for this learner.
"""

from __future__ import annotations

import numpy as np

from metalearn.selection.policy import Scored
from metalearn.selection.problem import Problem


class RegretEnsemble(Scored):
    """An ensemble of trees on the gains and the ranks of all learners.

    Args:
        trees: Trees of the forest.
        ranks: w, what ranks count beside gains, both in units of their deviation.

    Example:
        >>> random = np.random.default_rng(0)
        >>> features = random.uniform(-1, 1, (60, 2))
        >>> utilities = np.stack([features[:, 0], -features[:, 0]], 1)
        >>> names = tuple(map(str, range(60)))
        >>> policy = RegretEnsemble(trees=10)
        >>> policy.fit(Problem(
        ...     names, names, ("up", "down"), ("x", "y"), features, utilities[None], 0 * utilities
        ... ), seed=0)
        >>> policy.choose_all(np.array([[0.8, 0.0], [-0.8, 0.0]]), np.ones((2, 2), bool))
        array([0, 1])
    """

    def __init__(self, trees: int = 300, ranks: float = 0.3) -> None:
        self.trees, self.ranks = trees, ranks

    def fit(self, problem: Problem, seed: int) -> None:
        from sklearn.ensemble import RandomForestRegressor
        from sklearn.preprocessing import QuantileTransformer

        count = min(200, len(problem.tasks))
        self.quantiles = QuantileTransformer(n_quantiles=count, random_state=seed)
        inputs = np.asarray(self.quantiles.fit_transform(problem.features))
        # {(x_t, g_t, q_t)}; a third of the features at a split
        targets = np.concatenate([advantages(problem), rank_advantages(problem)], 1)
        forest = RandomForestRegressor(self.trees, max_features=1 / 3, random_state=seed)
        self.forest = forest.fit(inputs, targets)
        self.ever = problem.able.any(0)

    def scores(self, features: np.ndarray, able: np.ndarray) -> np.ndarray:
        found = self.forest.predict(np.asarray(self.quantiles.transform(features)))
        gains, ranks = np.split(found, 2, axis=1)
        # g_a + w q_a
        return np.where(self.ever, gains + self.ranks * ranks, -np.inf)


def advantages(problem: Problem) -> np.ndarray:
    """g_ta: utility above the mean of the task's able learners, in deviations of all `[T, A]`."""
    utilities = np.where(problem.able, problem.mean, 0.0)
    mean = utilities.sum(1, keepdims=True) / problem.able.sum(1, keepdims=True)
    return _filled(np.where(problem.able, utilities - mean, np.nan))


def rank_advantages(problem: Problem) -> np.ndarray:
    """q_ta: the same of the ranks of the able learners of each task, the best with the highest."""
    from scipy.stats import rankdata

    ranks = rankdata(np.where(problem.able, problem.mean, -np.inf), axis=1)
    mean = np.where(problem.able, ranks, 0.0).sum(1, keepdims=True)
    mean = mean / problem.able.sum(1, keepdims=True)
    return _filled(np.where(problem.able, ranks - mean, np.nan))


def _filled(values: np.ndarray) -> np.ndarray:
    """In units of their deviation, what is missing replaced by the mean of its column."""
    known = np.isfinite(values)
    means = np.where(known, values, 0.0).sum(0) / np.maximum(known.sum(0), 1)
    return np.where(known, values, means) / (values[known].std() or 1.0)
