"""Epsilon-greedy: mostly the learner with the largest linear prediction, sometimes any.

Auer, Cesa-Bianchi and Fischer 2002, "Finite-time Analysis of the Multiarmed Bandit Problem",
figure 3, on predictions in place of means.

    learner = any, with probability e_t = min(1, c A / t);  else argmax_a x_a' theta_a

t counts the rounds, so that exploring fades; the regressions are ridge regressions.
"""

from __future__ import annotations

import numpy as np

from metalearn.selection.linear import Linear


class EpsilonGreedy(Linear):
    """Chooses by ridge regressions, and by chance in a share of rounds that falls as 1 / t.

    Args:
        shared: See `Linear`.
        penalty: l.
        explore: c, about how often each learner is tried by chance before the share falls.

    Raises:
        ValueError: If explore is negative.
    """

    def __init__(self, shared: bool = False, penalty: float = 1.0, explore: float = 1.0) -> None:
        super().__init__(shared, penalty)
        if explore < 0:
            raise ValueError(f"explore {explore} is negative; give 0 or more")
        self._explore = explore

    def _worth(self, features: np.ndarray, able: np.ndarray) -> np.ndarray:
        # e_t = min(1, c A / t)
        if self.random.random() < min(1.0, self._explore * self._choices / (self.rounds + 1)):
            return self.random.random(self._choices)
        return self._expected(features)
