"""How far probabilities can be trusted: the expected calibration error and what it is made of.

    ECE = sum_b n_b / n |acc(b) - conf(b)|

Bin b holds the n_b predictions whose probability lies in ((b - 1) / B, b / B], the first one 0 too;
acc(b) is the share of them that is right, conf(b) their mean probability.  Bins are of equal width.
Guo et al. 2017, "On Calibration of Modern Neural Networks", equation 3.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Reliability:
    """Predictions by their probability.

    Attributes:
        edges: `[B + 1]` edges of the bins, from 0 to 1.
        counts: `[B]` predictions in each bin.
        accuracy: `[B]` share that is right; NaN in an empty bin.
        confidence: `[B]` mean probability; NaN in an empty bin.
    """

    edges: np.ndarray
    counts: np.ndarray
    accuracy: np.ndarray
    confidence: np.ndarray

    @property
    def ece(self) -> float:
        """The expected calibration error, from 0 to 1."""
        gaps = np.abs(np.nan_to_num(self.accuracy) - np.nan_to_num(self.confidence))
        return float(np.sum(self.counts * gaps) / np.sum(self.counts))


def reliability(probability: np.ndarray, correct: np.ndarray, bins: int = 15) -> Reliability:
    """Bin predictions by their probability.

    Args:
        probability: `[n]` probability that each prediction was given, from 0 to 1.
        correct: `[n]` whether it was right.
        bins: B, 15 as in the paper.

    Raises:
        ValueError: If there is no prediction, the lengths differ, or a probability is none.

    Example:
        >>> found = reliability(np.array([0.9, 0.9, 0.6, 0.6]), np.array([1, 1, 1, 0]), bins=2)
        >>> found.counts.tolist(), round(found.ece, 3)
        ([0, 4], 0.0)
        >>> round(reliability(np.array([0.9, 0.9, 0.6, 0.6]), np.array([1, 1, 1, 0])).ece, 3)
        0.1
    """
    probability = np.asarray(probability, dtype=np.float64)
    correct = np.asarray(correct, dtype=np.float64)
    if probability.shape != correct.shape or probability.ndim != 1 or not probability.size:
        raise ValueError(
            f"calibration needs one probability a prediction, and at least one; "
            f"there are {probability.shape} and {correct.shape}"
        )
    # Sums in single precision may pass 1 by some roundings.
    if not ((probability >= 0) & (probability <= 1 + 1e-5)).all():
        raise ValueError("a probability is not from 0 to 1")
    if bins < 1:
        raise ValueError(f"{bins} bins are none; give 1 or more")
    edges = np.linspace(0, 1, bins + 1)
    place = np.clip(np.searchsorted(edges, probability, side="left") - 1, 0, bins - 1)
    counts = np.bincount(place, minlength=bins)
    some = np.where(counts, counts, np.nan)
    accuracy = np.bincount(place, correct, minlength=bins) / some
    confidence = np.bincount(place, probability, minlength=bins) / some
    return Reliability(edges, counts, accuracy, confidence)
