"""Linear Thompson sampling: take the learner that is best under a draw of the coefficients.

Agrawal and Goyal 2013, "Thompson Sampling for Contextual Bandits with Linear Payoffs", algorithm 1.

    theta~_a ~ N(theta_a, v^2 V_a^-1),    learner = argmax_a  x_a' theta~_a

Deviation: v is the noise R of the outcomes, which makes the draw one from the posterior of Gaussian
outcomes with prior N(0, R^2 / l); the theorem's v = R sqrt(9 D ln(t / delta)) explores far more.
"""

from __future__ import annotations

import numpy as np

from metalearn.selection.linear import Linear


class LinearThompson(Linear):
    """Chooses by a draw of ridge regressions.

    Args:
        shared: See `Linear`.
        penalty: l.
        noise: v.

    Raises:
        ValueError: If the noise is not positive.
    """

    def __init__(self, shared: bool = False, penalty: float = 1.0, noise: float = 0.1) -> None:
        super().__init__(shared, penalty)
        if noise <= 0:
            raise ValueError(f"noise {noise} must be positive")
        self._noise = noise

    def _worth(self, features: np.ndarray, able: np.ndarray) -> np.ndarray:
        ridge = self._ridge
        root = np.linalg.cholesky(ridge.inverse)
        normal = self.random.standard_normal(ridge.theta.shape)
        # theta~_a ~ N(theta_a, v^2 V_a^-1)
        drawn = ridge.theta + self._noise * (root @ normal[..., None])[..., 0]
        # x_a' theta~_a
        return (self._examples(features) * drawn).sum(1)
