"""Tries every learner and takes the one of the best cross-validated score: what careful people do.

    a = argmax_a v_ta

over the able learners, with v_ta the accuracy of learner a in a cross-validation on the support set
of task t (`metalearn.selection.trial`).  Among equal scores, of which small support sets have many,
the learner that was best on the training tasks comes first.  All of them have to be tried, so that

    s_t = u_ta - lambda sum_{b able} cost_tb.

Stone 1974, "Cross-Validatory Choice and Assessment of Statistical Predictions", section 3.
"""

from __future__ import annotations

import numpy as np

from metalearn.selection.policy import Answers, Examiner
from metalearn.selection.problem import Problem
from metalearn.selection.static import SingleBest


class CrossValidated(Examiner):
    """The best score on the support set; of equal ones that of the best learner in training.

    Example:
        >>> problem = Problem(
        ...     ("one", "two"), ("s", "s"), ("cheap", "dear"), (), np.zeros((2, 0)),
        ...     np.array([[[0.5, 0.9], [0.8, 0.6]]]), np.ones((2, 2)),
        ...     np.array([[0.6, 0.6], [0.7, 0.5]]),
        ... )
        >>> policy = CrossValidated()
        >>> policy.fit(problem, seed=0)
        >>> policy.answer(problem).choices
        array([1, 0])
    """

    def fit(self, problem: Problem, seed: int) -> None:
        single = SingleBest()
        single.fit(problem, seed)
        self.score = single.score

    def answer(self, problem: Problem) -> Answers:
        tries = np.where(problem.able, problem.scores, -np.inf)
        # a = argmax_a v_ta
        best = tries == tries.max(1, keepdims=True)
        choices = np.where(best, np.maximum(self.score, -1e300), -np.inf).argmax(1)
        return Answers(choices, np.where(problem.able, problem.able.cumsum(1), 0))
