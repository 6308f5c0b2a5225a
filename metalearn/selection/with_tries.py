"""Tries what is cheap to try, and gives the scores to a policy as further features.

    z = [x, v_b - mean_c v_c for b in C, mean_c v_c],      a = pi(z),
    s_t = u_ta - lambda sum_{b in C} cost_tb,      C: the cheapest, their price together <= most

v_b is the cross-validated score of learner b on the support set, and pi any policy that chooses
from features, fitted to the z of the training tasks.  A score says something of a learner that was
tried and of those that resemble it.  Scores enter as what a learner is above the mean of those
tried, for that is what tells learners apart, and as that mean, which says how hard a task is.
Where lambda is 0 everything is tried.  Scores of cheap learners as features: Pfahringer, Bensusan
and Giraud-Carrier 2000, "Meta-Learning by Landmarking Various Learning Algorithms", section 2.

How it was chosen: the bound is one on all tries together since one on each of them, seen first,
spent on the tasks of the README more than it won at lambda 0.002.  Nothing else was compared.

1. A learner without a score on a task, since it is not able, counts there as one of the mean.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from metalearn.selection.policy import Answers, Examiner, Policy
from metalearn.selection.problem import Problem


class WithTries(Examiner):
    """A policy that sees how cheap learners did on the support set.

    Args:
        policy: pi.
        most: Utility that the tries of a task may take together, in the mean over training tasks.

    Example:
        >>> from metalearn.selection.nearest_tasks import NearestTasks
        >>> random = np.random.default_rng(0)
        >>> utilities = random.uniform(size=(60, 2))
        >>> names = tuple(map(str, range(60)))
        >>> problem = Problem(
        ...     names, names, ("cheap", "dear"), (), np.zeros((60, 0)), utilities[None],
        ...     np.ones((60, 2)), utilities,
        ... )
        >>> policy = WithTries(NearestTasks(k=3))
        >>> policy.fit(problem, seed=0)
        >>> answers = policy.answer(problem)
        >>> bool((answers.choices == utilities.argmax(1)).mean() > 0.8), answers.tried[0]
        (True, array([1, 2]))
    """

    def __init__(self, policy: Policy, most: float = 0.002) -> None:
        self.policy, self.most = policy, most

    def fit(self, problem: Problem, seed: int) -> None:
        able = problem.able
        costs = np.where(able, problem.costs, 0.0).sum(0) / np.maximum(able.sum(0), 1)
        # C: the cheapest, their price together <= most
        cheapest = [b for b in np.argsort(costs, kind="stable") if able[:, b].any()]
        count = int(np.sum(problem.price * np.cumsum(costs[cheapest]) <= self.most))
        self.chosen = np.array(cheapest[:count], dtype=np.int64)
        self.policy.fit(self._told(problem), seed)

    def answer(self, problem: Problem) -> Answers:
        told = self._told(problem)
        tried = np.zeros(problem.able.shape, np.int64)
        tried[:, self.chosen] = np.arange(1, len(self.chosen) + 1)
        tried = np.where(problem.able, tried, 0)
        return Answers(self.policy.choose_all(told.features, told.able), tried)

    def _told(self, problem: Problem) -> Problem:
        """The problem with scores among its features."""
        scores = problem.scores[:, self.chosen]
        known = np.isfinite(np.asarray(problem.tries)[:, self.chosen])
        mean = scores.sum(1, keepdims=True) / np.maximum(known.sum(1, keepdims=True), 1)
        above = np.where(known, scores - mean, 0.0)
        # z = [x, v_b - mean_c v_c, mean_c v_c]
        names = [f"try.{problem.learners[learner]}" for learner in self.chosen]
        return replace(
            problem,
            feature_names=(*problem.feature_names, *names, "try.mean"),
            features=np.concatenate([problem.features, above, mean], 1),
        )
