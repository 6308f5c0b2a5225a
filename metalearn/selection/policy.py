"""The interface of everything that chooses a learner for a task: observe, choose, learn.

A policy is fitted on the tasks of some sources and then used on those of others.  Supervised
policies read the whole rows of their training problem.  Online policies see the outcome of the
chosen learner only: they are fitted by going through the training tasks as a stream, and with
`learn` they go on learning while they are used.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np

from metalearn.selection.problem import Problem


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

    def learn(self, features: np.ndarray, choice: int, utility: float) -> None:
        """Take note of what the choice brought; what is fitted once learns nothing here."""
        del features, choice, utility
