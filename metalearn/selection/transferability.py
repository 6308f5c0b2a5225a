"""How well features, or the classes of another task, explain labels: LogME and LEEP.

You et al. 2021, "LogME: Practical Assessment of Pre-trained Models for Transfer Learning",
section 4 and algorithm 1:

    p(y | F) = int p(y | F w, 1/b) p(w | 0, 1/a) dw,    LogME = max_{a, b} ln p(y | F) / n

averaged over one-against-all labels of the classes.

Nguyen et al. 2020, "LEEP: A New Measure to Evaluate Transferability", equations 1 and 2:

    P(y, z) = (1/n) sum_{i: y_i = y} q(z | x_i)
    LEEP = (1/n) sum_i ln sum_z P(y_i | z) q(z | x_i)
"""

from __future__ import annotations

import numpy as np

ITERATIONS = 100  # the fixed point of a and b is reached in some ten; more change no digit
TOLERANCE = 1e-6  # relative change of a / b that counts as none
LARGEST = 1e6  # b where features explain the labels exactly: the evidence would be infinite


def logme(features: np.ndarray, labels: np.ndarray) -> float:
    """Largest mean log evidence of labels under a Bayesian linear model of features.

    Args:
        features: `[n, D]`.
        labels: `[n]` classes.

    Raises:
        ValueError: If there is one class only.

    Example:
        >>> x = np.repeat(np.eye(2), 3, 0)
        >>> logme(x, np.array([0, 0, 0, 1, 1, 1])) > logme(x, np.array([0, 1, 0, 1, 0, 1]))
        True
    """
    classes = np.unique(labels)
    if len(classes) < 2:
        raise ValueError("LogME compares classes; the labels have one only")
    left, sizes, _ = np.linalg.svd(features, full_matrices=False)
    squares = sizes**2
    return float(
        np.mean(
            [
                _evidence(left.T @ y, y @ y, squares, features.shape)
                for y in (labels[None] == classes[:, None]).astype(np.float64)
            ]
        )
    )


def _evidence(
    projected: np.ndarray, norm: float, squares: np.ndarray, shape: tuple[int, ...]
) -> float:
    """ln p(y | F) / n at the best a and b, by the fixed point of MacKay.

    Args:
        projected: U^T y, with F = U S V^T.
        norm: |y|^2.
        squares: S^2.
        shape: n and D.
    """
    count, width = shape
    a = b = 1.0
    outside = norm - projected @ projected  # of what no linear map of the features reaches
    for _ in range(ITERATIONS):
        t = a / b
        # gamma = sum_i s_i / (s_i + t), |m|^2 and |F m - y|^2 at the mean m of the posterior
        gamma = np.sum(squares / (squares + t))
        size = np.sum(squares * projected**2 / (squares + t) ** 2)
        error = np.sum((t * projected / (squares + t)) ** 2) + outside
        a = gamma / max(size, 1 / LARGEST)
        b = min((count - gamma) / max(error, 1e-12), LARGEST)
        if abs(a / b - t) <= TOLERANCE * t:
            break
    t = a / b
    size = np.sum(squares * projected**2 / (squares + t) ** 2)
    error = np.sum((t * projected / (squares + t)) ** 2) + outside
    # ln p = n/2 ln b + D/2 ln a - n/2 ln 2 pi - b/2 |Fm - y|^2 - a/2 |m|^2 - 1/2 ln |a I + b F^T F|
    determinant = np.sum(np.log(a + b * squares)) + (width - len(squares)) * np.log(a)
    total = count * np.log(b) + width * np.log(a) - count * np.log(2 * np.pi)
    return 0.5 * float(total - b * error - a * size - determinant) / count


def leep(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Mean log likelihood of labels by way of the classes of a source.

    Args:
        probabilities: `[n, Z]` of the source's classes for each example; rows sum to 1.
        labels: `[n]` classes of the target.

    Example:
        >>> round(leep(np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([0, 1])), 3)
        0.0
    """
    classes, y = np.unique(labels, return_inverse=True)
    joint = np.zeros((len(classes), probabilities.shape[1]))
    np.add.at(joint, y, probabilities / len(labels))
    given = joint / np.maximum(joint.sum(0, keepdims=True), 1e-300)
    return float(np.mean(np.log(np.sum(given[y] * probabilities, axis=1))))
