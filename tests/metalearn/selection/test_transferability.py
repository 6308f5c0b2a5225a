"""LogME and LEEP against their definitions, computed another way."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import multivariate_normal

from metalearn.selection.transferability import leep, logme

RANDOM = np.random.default_rng(0)


def evidence(rows: np.ndarray, y: np.ndarray, logs: np.ndarray) -> float:
    """ln p(y) of y = F w + noise with w ~ N(0, 1/a) and noise ~ N(0, 1/b), from its covariance."""
    a, b = np.exp(logs)
    covariance = rows @ rows.T / a + np.eye(len(rows)) / b
    return multivariate_normal.logpdf(y, np.zeros(len(y)), covariance) / len(y)


@pytest.mark.parametrize(("count", "width"), [(30, 4), (12, 20)])
def test_logme_is_the_largest_evidence(count: int, width: int) -> None:
    rows = RANDOM.standard_normal((count, width))
    noise = 0.7 * RANDOM.standard_normal(count)
    labels = (rows[:, 0] + noise > 0).astype(int) + (rows[:, 1] > 0.5)
    best = []
    for label in np.unique(labels):
        y = (labels == label).astype(float)
        ends = [
            minimize(lambda logs, y=y: -evidence(rows, y, logs), start, method="Nelder-Mead")
            for start in ([0.0, 0.0], [2.0, 2.0])
        ]
        best.append(max(-end.fun for end in ends))
    assert logme(rows, labels) == pytest.approx(np.mean(best), abs=1e-3)


def test_logme_of_one_example_a_class_is_finite() -> None:
    assert np.isfinite(logme(np.eye(3), np.arange(3)))


def test_logme_needs_two_classes() -> None:
    with pytest.raises(ValueError, match="one only"):
        logme(np.eye(3), np.zeros(3))


def test_leep_is_its_definition() -> None:
    source = RANDOM.dirichlet(np.ones(4), 20)
    labels = RANDOM.integers(0, 3, 20)
    joint = np.array(
        [[sum(source[i, z] for i in range(20) if labels[i] == y) / 20 for z in range(4)]
         for y in range(3)]
    )  # fmt: skip
    total = 0.0
    for i in range(20):
        terms = [joint[labels[i], z] / joint[:, z].sum() * source[i, z] for z in range(4)]
        total += np.log(sum(terms)) / 20

    assert leep(source, labels) == pytest.approx(total, rel=1e-12)


def test_leep_of_a_source_that_says_nothing_is_the_entropy_of_the_classes() -> None:
    labels = np.array([0, 0, 0, 1])
    share = np.array([0.75, 0.25])
    assert leep(np.full((4, 5), 0.2), labels) == pytest.approx(np.sum(share * np.log(share)))
