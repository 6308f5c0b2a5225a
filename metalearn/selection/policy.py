"""The interface of everything that chooses a learner for a task: observe, answer, learn.

Most policies answer from the features of a task alone: they `choose`.  An `Examiner` looks at more:
it tries learners, which costs, or reads the examples of the task.

A policy is fitted on the tasks of some sources and then used on those of others.  Supervised
policies read the whole rows of their training problem.  Online policies see the outcome of the
chosen learner only: they are fitted by going through the training tasks as a stream, and with
`learn` they go on learning while they are used.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np

from metalearn.selection.problem import Problem


@dataclass(frozen=True)
class Answers:
    """What a policy answered to tasks, and what it tried before.

    Attributes:
        choices: The learner of each task `[T]`.
        tried: In which place a learner was tried, the first in place 1; 0: it was not `[T, A]`.
            Nobody knows the score of a learner before it is tried: what is tried in a place
            follows from the scores of those before it.
    """

    choices: np.ndarray
    tried: np.ndarray


class Policy(ABC):
    """Chooses one of A learners from the F features of a task.

    Attributes:
        online: Whether it learns from the outcomes of its own choices alone.
    """

    online: bool = False

    @abstractmethod
    def fit(self, problem: Problem, seed: int) -> None:
        """Start afresh and learn from training tasks; all randomness comes from the seed."""

    @abstractmethod
    def choose(self, features: np.ndarray, able: np.ndarray) -> int:
        """A learner for a task.

        Args:
            features: `[F]`.
            able: Which learners can work on the task `[A]`; at least one can.
        """

    def choose_all(self, features: np.ndarray, able: np.ndarray) -> np.ndarray:
        """A learner for each of T tasks `[T]`, where nothing is learned between them.

        Args:
            features: `[T, F]`.
            able: `[T, A]`.
        """
        rows = zip(features, able, strict=True)
        return np.array([self.choose(row, mask) for row, mask in rows], dtype=np.int64)

    def answer(self, problem: Problem) -> Answers:
        """A learner for each task of a problem, whose outcomes are not looked at."""
        choices = self.choose_all(problem.features, problem.able)
        return Answers(choices, np.zeros(problem.able.shape, np.int64))

    def learn(self, features: np.ndarray, choice: int, utility: float) -> None:
        """Take note of what the choice brought; what is fitted once learns nothing here."""
        del features, choice, utility

    def trained(self) -> dict[str, np.ndarray]:
        """What a long training found, by name; empty where fitting again takes seconds."""
        return {}

    def restore(self, problem: Problem, seed: int, trained: dict[str, np.ndarray]) -> None:
        """Become what `fit` made of a problem, from what `trained` then said.

        Args:
            problem: The training tasks.
            seed: That of `fit`.
            trained: The arrays; without any the policy is fitted again, to the same end.
        """
        if trained:
            raise ValueError(f"{type(self).__name__} keeps no arrays, but was given {len(trained)}")
        self.fit(problem, seed)


class Examiner(Policy):
    """Looks at more of a task than its features, and answers whole problems only."""

    @abstractmethod
    def answer(self, problem: Problem) -> Answers: ...

    def choose(self, features: np.ndarray, able: np.ndarray) -> int:
        raise ValueError(f"{type(self).__name__} looks at more than features: it has to `answer`")


class Scored(Policy):
    """Chooses the able learner of the largest score, the first of equal ones."""

    @abstractmethod
    def scores(self, features: np.ndarray, able: np.ndarray) -> np.ndarray:
        """How good every learner would be on each of T tasks `[T, A]`; larger is better.

        Args:
            features: `[T, F]`.
            able: Whom a learner is compared with `[T, A]`; scores of the others do not matter.
        """

    def choose(self, features: np.ndarray, able: np.ndarray) -> int:
        return int(self.choose_all(features[None], able[None])[0])

    def choose_all(self, features: np.ndarray, able: np.ndarray) -> np.ndarray:
        # A learner that was never able scores -inf, and still comes before one that is not able.
        scores = np.maximum(self.scores(features, able), -1e300)
        return np.where(able, scores, -np.inf).argmax(1)
