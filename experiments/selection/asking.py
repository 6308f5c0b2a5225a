"""A fitted policy asked about a user's examples, with all that it wants to look at.

A policy that tries learners has those cross-validated on the examples, each as it is asked for and
once; one that looks at the examples is given their embeddings.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from experiments.selection.fitting import Fitted
from metalearn.selection.policy import Answers
from metalearn.selection.problem import Problem
from metalearn.selection.readings import Readings


class Question:
    """A task of which nothing but the examples is known.

    Args:
        fitted: The policy.
        features: Of the task `[F]`.
        readings: Its examples, for a policy that looks at them.
        validate: Cross-validates a learner on the examples: its place in, its score out.

    Attributes:
        scores: Of the learners tried so far, by their place, in the order of the tries.
    """

    def __init__(
        self,
        fitted: Fitted,
        features: np.ndarray,
        readings: Readings | None,
        validate: Callable[[int], float],
    ) -> None:
        self._fitted, self._features, self._readings = fitted, features, readings
        self._validate = validate
        self.scores: dict[int, float] = {}

    def choice(self, able: np.ndarray) -> int:
        """The learner that is chosen among those that are able `[A]`, after what is tried."""
        while True:
            answers = self._answers(able)
            new = self._unknown(answers)
            if not new:
                return int(answers.choices[0])
            # What is tried after it may follow from its score.
            self.scores[new[0]] = self._validate(new[0])

    def runner_up(self, able: np.ndarray, choice: int) -> int | None:
        """What is chosen without the choice; None: nothing, or more would have to be tried."""
        others = able & (np.arange(len(able)) != choice)
        if not others.any():
            return None
        answers = self._answers(others)
        return None if self._unknown(answers) else int(answers.choices[0])

    def _unknown(self, answers: Answers) -> list[int]:
        """Learners that are tried and whose score is not known, in their order."""
        tried = answers.tried[0]
        return [int(a) for a in np.argsort(tried) if tried[a] and int(a) not in self.scores]

    def _answers(self, able: np.ndarray) -> Answers:
        """Answers from which nothing is learned; scores that are not known yet are never seen."""
        tries = np.where(able, 0.0, np.nan)
        tries[list(self.scores)] = list(self.scores.values())
        return self._fitted.policy.answer(self._task(able, tries))

    def _task(self, able: np.ndarray, tries: np.ndarray) -> Problem:
        known = self._fitted.problem
        return replace(
            known,
            tasks=("task",),
            sources=("examples",),
            features=self._features[None],
            utilities=np.where(able, 0.0, np.nan)[None, None],
            costs=np.nanmean(known.costs, 0)[None],
            tries=tries[None],
            readings=self._readings,
        )
