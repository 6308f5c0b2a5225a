"""LinUCB: take the learner whose linear prediction could be the largest.

Li, Chu, Langford and Schapire 2010, "A Contextual-Bandit Approach to Personalized News Article
Recommendation", algorithm 1; the width is that of Abbasi-Yadkori, Pal and Szepesvari 2011,
"Improved Algorithms for Linear Stochastic Bandits", theorem 2.

    learner = argmax_a  x_a' theta_a + beta_a sqrt(x_a' V_a^-1 x_a)
    beta_a  = R sqrt(2 ln(1 / delta) + ln(det V_a / l^D)) + sqrt(l) S

R is the noise of outcomes, S bounds the norm of theta, and with probability 1 - delta no true
expectation is ever above its bound.
"""

from __future__ import annotations

import numpy as np

from metalearn.selection.linear import Linear


class LinUCB(Linear):
    """Chooses by upper confidence bounds of ridge regressions.

    Args:
        shared: See `Linear`.
        penalty: l.
        noise: R.
        norm: S.
        delta: Probability that a bound fails.

    Raises:
        ValueError: If delta is not in (0, 1).
    """

    def __init__(
        self,
        shared: bool = False,
        penalty: float = 1.0,
        noise: float = 0.1,
        norm: float = 1.0,
        delta: float = 0.1,
    ) -> None:
        super().__init__(shared, penalty)
        if not 0 < delta < 1:
            raise ValueError(f"delta {delta} must be between 0 and 1")
        self._noise, self._norm, self._delta = noise, norm, delta

    def _worth(self, features: np.ndarray, able: np.ndarray) -> np.ndarray:
        ridge, variance = self._ridge, self._ridge.variance(self._examples(features))
        # beta_a = R sqrt(2 ln(1 / delta) + ln(det V_a / l^D)) + sqrt(l) S
        width = self._noise * np.sqrt(2 * np.log(1 / self._delta) + ridge.growth)
        width = width + self._penalty**0.5 * self._norm
        # x_a' theta_a + beta_a sqrt(x_a' V_a^-1 x_a)
        return self._expected(features) + width * np.sqrt(variance)
