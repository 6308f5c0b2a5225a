"""Ridge regressions that grow by one example at a time, which linear bandits keep of their arms.

    V = l I + sum x x',    b = sum x y,    theta = V^-1 b
    V^-1 <- V^-1 - (V^-1 x)(V^-1 x)' / (1 + x' V^-1 x)
    log det V <- log det V + log(1 + x' V^-1 x)

(Sherman and Morrison; the matrix determinant lemma.)
"""

from __future__ import annotations

import numpy as np


class Ridge:
    """G regressions on D numbers, each with examples of its own.

    Args:
        count: G.
        size: D.
        penalty: l.

    Attributes:
        theta: Coefficients `[G, D]`.
        inverse: V^-1 `[G, D, D]`.
        growth: log det V - D log l `[G]`.

    Raises:
        ValueError: If the penalty is not positive.

    Example:
        >>> ridge = Ridge(1, 2, penalty=1e-9)
        >>> for x, y in (([1.0, 0.0], 3.0), ([1.0, 1.0], 5.0)):
        ...     ridge.note(0, np.array(x), y)
        >>> ridge.theta.round(3)
        array([[3., 2.]])
    """

    def __init__(self, count: int, size: int, penalty: float) -> None:
        if penalty <= 0:
            raise ValueError(f"penalty {penalty} must be positive")
        self.theta, self._sum = np.zeros((count, size)), np.zeros((count, size))
        self.inverse = np.tile(np.eye(size) / penalty, (count, 1, 1))
        self.growth = np.zeros(count)

    def note(self, group: int, example: np.ndarray, outcome: float) -> None:
        """Add an example `[D]` and its outcome to regression `group`."""
        direction = self.inverse[group] @ example
        more = 1 + example @ direction
        self.inverse[group] -= np.outer(direction, direction / more)
        self.growth[group] += np.log(more)
        self._sum[group] += outcome * example
        self.theta[group] = self.inverse[group] @ self._sum[group]

    def variance(self, examples: np.ndarray) -> np.ndarray:
        """x' V^-1 x of an example of each regression `[G, D]`, or of many where there is one."""
        return ((examples[:, None] @ self.inverse)[:, 0] * examples).sum(1)
