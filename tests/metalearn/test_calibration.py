"""The calibration error by hand, against a second implementation, and what it refuses."""

import numpy as np
import pytest
from sklearn.calibration import calibration_curve

from metalearn.calibration import reliability


def test_by_hand():
    # (0.6, 0.8]: two of three right at 0.7; (0.8, 1]: both right at 0.95.
    found = reliability(np.array([0.7, 0.7, 0.7, 0.9, 1.0]), np.array([1, 0, 1, 1, 1]), bins=5)
    assert found.counts.tolist() == [0, 0, 0, 3, 2]
    assert found.accuracy[3:] == pytest.approx([2 / 3, 1.0])
    assert found.confidence[3:] == pytest.approx([0.7, 0.95])
    assert np.isnan(found.accuracy[:3]).all() and np.isnan(found.confidence[:3]).all()
    assert found.ece == pytest.approx(3 / 5 * (0.7 - 2 / 3) + 2 / 5 * 0.05)


def test_an_edge_belongs_to_the_bin_below_and_zero_to_the_first():
    found = reliability(np.array([0.0, 0.5, 0.5001, 1.0]), np.ones(4), bins=2)
    assert found.counts.tolist() == [2, 2]


def test_sklearn_has_the_same_bins():
    random = np.random.default_rng(0)
    probability = random.uniform(size=2000)
    correct = random.uniform(size=2000) < probability**2
    found = reliability(probability, correct, bins=10)
    accuracy, confidence = calibration_curve(correct, probability, n_bins=10)
    assert found.accuracy == pytest.approx(accuracy)
    assert found.confidence == pytest.approx(confidence)
    direct = 0.0
    for low in np.arange(10) / 10:
        inside = (probability > low) & (probability <= low + 0.1)
        direct += inside.mean() * abs(correct[inside].mean() - probability[inside].mean())
    assert found.ece == pytest.approx(direct, abs=1e-12)
    # E |p - p^2| = 1/6 for uniform p
    assert found.ece == pytest.approx(1 / 6, abs=0.03)


@pytest.mark.parametrize(
    ("probability", "correct", "bins", "message"),
    [
        ([], [], 15, "at least one"),
        ([0.5], [1, 0], 15, "one probability a prediction"),
        ([1.5], [1], 15, "not from 0 to 1"),
        ([float("nan")], [1], 15, "not from 0 to 1"),
        ([0.5], [1], 0, "0 bins"),
    ],
)
def test_what_is_no_probability_is_refused(probability, correct, bins, message):
    with pytest.raises(ValueError, match=message):
        reliability(np.array(probability), np.array(correct), bins)
