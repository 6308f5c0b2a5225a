"""Average ranks, Friedman's test and the critical difference, against Demsar 2006 and by hand."""

import itertools
import math

import numpy as np
import pytest
from scipy.stats import chi2

from metalearn.ranking import Ranking, critical_difference, rank_learners

# Table 5a of Demsar 2006: critical values of the two-tailed Nemenyi test.
QUANTILES = {
    0.05: (1.960, 2.343, 2.569, 2.728, 2.850, 2.949, 3.031, 3.102, 3.164),
    0.10: (1.645, 2.052, 2.291, 2.459, 2.589, 2.693, 2.780, 2.855, 2.920),
}

# Table 6 of Demsar 2006: AUC of C4.5 with and without two parameters on 14 data sets.
AUC = np.array(
    [
        [0.763, 0.768, 0.771, 0.798],
        [0.599, 0.591, 0.590, 0.569],
        [0.954, 0.971, 0.968, 0.967],
        [0.628, 0.661, 0.654, 0.657],
        [0.882, 0.888, 0.886, 0.898],
        [0.936, 0.931, 0.916, 0.931],
        [0.661, 0.668, 0.609, 0.685],
        [0.583, 0.583, 0.563, 0.625],
        [0.775, 0.838, 0.866, 0.875],
        [1.000, 1.000, 1.000, 1.000],
        [0.940, 0.962, 0.965, 0.962],
        [0.619, 0.666, 0.614, 0.669],
        [0.972, 0.981, 0.9751, 0.975],
        [0.957, 0.978, 0.946, 0.970],
    ]
)


@pytest.mark.parametrize("alpha", QUANTILES)
def test_the_critical_difference_is_the_published_one(alpha):
    for k, quantile in enumerate(QUANTILES[alpha], start=2):
        wanted = quantile * math.sqrt(k * (k + 1) / (6 * 14))
        assert critical_difference(k, 14, alpha) == pytest.approx(wanted, abs=6e-4)


def test_the_published_example():
    found = rank_learners(AUC)
    assert found.ranks == pytest.approx([3.143, 2.000, 2.893, 1.964], abs=1e-3)
    assert found.critical == pytest.approx(1.25, abs=0.01)
    # 9.28 without the correction for ties, which makes it larger.
    plain = 12 * 14 / (4 * 5) * (np.sum(found.ranks**2) - 4 * 25 / 4)
    assert plain == pytest.approx(9.28, abs=0.01)
    assert found.statistic > plain
    assert found.p == pytest.approx(chi2.sf(found.statistic, 3))


def test_without_ties_the_statistic_is_the_formula():
    table = np.random.default_rng(0).normal(size=(7, 5))
    found = rank_learners(table)
    ranks = np.array([[1 + sum(other > own for other in row) for own in row] for row in table])
    assert found.ranks == pytest.approx(ranks.mean(0))
    formula = 12 * 7 / (5 * 6) * (np.sum(ranks.mean(0) ** 2) - 5 * 36 / 4)
    assert found.statistic == pytest.approx(formula)
    assert rank_learners(100 * table + 3).ranks == pytest.approx(found.ranks)


def test_equal_learners_are_no_evidence():
    found = rank_learners(np.ones((3, 4)))
    assert found.ranks.tolist() == [2.5] * 4
    assert (found.statistic, found.p) == (0.0, 1.0)
    assert found.groups() == [(0, 1, 2, 3)]


def test_two_learners_have_ranks_and_no_test():
    found = rank_learners([[1.0, 0.0], [1.0, 0.0]])
    assert found.ranks.tolist() == [1.0, 2.0]
    assert math.isnan(found.statistic) and math.isnan(found.p)


@pytest.mark.parametrize("seed", range(20))
def test_a_group_is_as_large_as_can_be_and_holds_all_pairs_that_are_near(seed):
    random = np.random.default_rng(seed)
    ranks = random.choice(np.arange(1, 8, 0.5), size=6)
    found = Ranking(ranks, 0.0, 1.0, critical=float(random.uniform(0.3, 4)), blocks=5)
    groups = [set(group) for group in found.groups()]
    for group in groups:
        assert np.ptp(ranks[list(group)]) < found.critical
        assert not any(group < other for other in groups)
    for a, b in itertools.combinations(range(6), 2):
        near = abs(ranks[a] - ranks[b]) < found.critical
        assert near == any({a, b} <= group for group in groups)


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ([[1.0, 2.0]], r"two data sets and two learners; the scores are \(1, 2\)"),
        ([[1.0], [2.0]], "two data sets and two learners"),
        ([[1.0, math.nan], [2.0, 1.0]], "a finite score"),
    ],
)
def test_what_cannot_be_ranked_is_refused(scores, message):
    with pytest.raises(ValueError, match=message):
        rank_learners(scores)
