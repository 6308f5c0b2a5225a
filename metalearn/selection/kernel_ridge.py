"""Kernel ridge regression of several targets, its two parameters by the exact leave-one-out error.

With K_ij = exp(- |z_i - z_j| / (g m)), m the median distance and G = (K + l I)^-1,

    f(x) = k(x)' G Y,    Y_i - f_{-i}(x_i) = (G Y)_i / G_ii

where f_{-i} has not seen i; g and l minimize the mean square of the right side over a grid, for
which one eigendecomposition a bandwidth is enough.
Rifkin and Lippert 2007, "Notes on Regularized Least Squares", section 3.
"""

from __future__ import annotations

import numpy as np

BANDWIDTHS = (0.25, 0.5, 1.0)
RIDGES = tuple(10.0 ** np.arange(-2, 1.6, 0.5))


class KernelRidge:
    """Ridge regression under a Laplace kernel.

    Args:
        inputs: `[T, F]`, in units that are alike.
        targets: `[T, A]`.

    Example:
        >>> inputs = np.linspace(-1, 1, 40)[:, None]
        >>> model = KernelRidge(inputs, np.abs(inputs))
        >>> model.predict(np.array([[0.5]])).round(1)
        array([[0.5]])
    """

    def __init__(self, inputs: np.ndarray, targets: np.ndarray) -> None:
        self.inputs, self.mean = inputs, targets.mean(0)
        distances = self._distances(inputs)
        median = float(np.median(distances)) or 1.0
        centered, least = targets - self.mean, np.inf
        for bandwidth in BANDWIDTHS:
            values, vectors = np.linalg.eigh(np.exp(-distances / (bandwidth * median)))
            rotated, squares = vectors.T @ centered, vectors**2
            for ridge in RIDGES:
                # G Y and the diagonal of G, in the basis in which K is diagonal
                inverse = 1 / (np.maximum(values, 0) + ridge)
                weights = vectors @ (inverse[:, None] * rotated)
                # Y_i - f_{-i}(x_i) = (G Y)_i / G_ii
                error = float(((weights / (squares @ inverse)[:, None]) ** 2).mean())
                if error < least:
                    least, self.width, self.weights = error, bandwidth * median, weights

    def predict(self, inputs: np.ndarray) -> np.ndarray:
        """`[T, A]` for inputs `[T, F]`."""
        # f(x) = k(x)' G Y
        return np.exp(-self._distances(inputs) / self.width) @ self.weights + self.mean

    def _distances(self, inputs: np.ndarray) -> np.ndarray:
        from scipy.spatial.distance import cdist

        return cdist(inputs, self.inputs)
