"""EXP3: exponential weights that hold whatever the outcomes are, even chosen by an adversary.

Auer, Cesa-Bianchi, Freund and Schapire 2002, "The Nonstochastic Multiarmed Bandit Problem",
section 3.

    p_a = (1 - g) w_a / sum_b w_b + g / A,      w_a <- w_a exp(g o / (A p_a))  of the chosen arm a

o in [0, 1] is its outcome; o / p_a is what it would bring in expectation, seen or not.  Weights are
kept as logarithms.  Among learners of which some are not able, the others share all of p.
"""

from __future__ import annotations

import numpy as np

from metalearn.selection.online import Online


class EXP3(Online):
    """Chooses by chance, after weights that grow with what was brought.

    Args:
        mix: g, the share of choices that are uniform.

    Raises:
        ValueError: If the share is not in (0, 1].
    """

    def __init__(self, mix: float = 0.1) -> None:
        if not 0 < mix <= 1:
            raise ValueError(f"mix {mix} must be above 0 and at most 1")
        self._mix = mix

    def chances(self, able: np.ndarray) -> np.ndarray:
        """Probability of every arm `[A]`."""
        weights = np.where(able, np.exp(self._logs - self._logs[able].max()), 0.0)
        # (1 - g) w_a / sum_b w_b + g / A
        return (1 - self._mix) * weights / weights.sum() + self._mix * able / able.sum()

    def _begin(self, choices: int, features: int) -> None:
        self._logs = np.zeros(choices)
        self._able = np.ones(choices, bool)

    def _worth(self, features: np.ndarray, able: np.ndarray) -> np.ndarray:
        self._able = np.asarray(able, bool)
        drawn = self.random.choice(len(self._logs), p=self.chances(self._able))
        return np.arange(len(self._logs)) == drawn

    def _expected(self, features: np.ndarray) -> np.ndarray:
        return self._logs

    def _note(self, features: np.ndarray, choice: int, outcome: float) -> None:
        chances = self.chances(self._able)
        # w_a <- w_a exp(g o / (A p_a))
        self._logs[choice] += self._mix * outcome / (self._able.sum() * chances[choice])
