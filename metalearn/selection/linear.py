"""What linear bandits see of a task: one vector for every learner.

Disjoint: all learners see [1, z / sqrt(F)] with the features z, and each has its own coefficients.
Shared: the features *are* a vector of D numbers for each learner, one after the other, and all have
the same coefficients (the classical linear bandit).
"""

from __future__ import annotations

import numpy as np

from metalearn.selection.online import Online
from metalearn.selection.ridge import Ridge


class Linear(Online):
    """A bandit over ridge regressions of outcomes.

    Args:
        shared: One regression for all learners, on vectors of their own, and not one for each.
        penalty: l of the ridge.

    Raises:
        ValueError: If the features of a task cannot be shared out evenly among the learners.
    """

    def __init__(self, shared: bool = False, penalty: float = 1.0) -> None:
        self._shared, self._penalty = shared, penalty

    def _begin(self, choices: int, features: int) -> None:
        if self._shared and features % choices:
            raise ValueError(f"{features} features are not a vector for each of {choices} learners")
        self._choices = choices
        count, size = (1, features // choices) if self._shared else (choices, features + 1)
        self._ridge = Ridge(count, size, self._penalty)

    def _examples(self, features: np.ndarray) -> np.ndarray:
        """A vector of each learner `[A, D]`."""
        if self._shared:
            return features.reshape(self._choices, -1)
        one = np.append(1.0, features / max(len(features), 1) ** 0.5)
        return np.broadcast_to(one, (self._choices, len(one)))

    def _expected(self, features: np.ndarray) -> np.ndarray:
        # x_a' theta_a
        return (self._examples(features) * self._ridge.theta).sum(1)

    def _note(self, features: np.ndarray, choice: int, outcome: float) -> None:
        group = 0 if self._shared else choice
        self._ridge.note(group, self._examples(features)[choice], outcome)
