"""Comparisons of two sides: right in closed cases, calibrated, and as careful as they say."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import false_discovery_control, ttest_1samp, ttest_ind

from metalearn.comparison import difference, holm
from metalearn.statistics import paired


@pytest.mark.parametrize("gap", [0.0, 0.1, 0.2, 0.3])
def test_p_is_that_of_the_paired_t_test_on_many_tasks(gap: float) -> None:
    random = np.random.default_rng(3)
    theirs = random.normal(0.0, 5.0, 300)
    ours = theirs + random.normal(gap, 1.5, 300)

    found = difference([ours], [theirs], resamples=8000)

    assert found.p == pytest.approx(ttest_1samp(ours - theirs, 0).pvalue, abs=0.02)
    assert found.interval == paired([ours], [theirs], resamples=8000)


def test_without_pairs_p_is_that_of_welch() -> None:
    random = np.random.default_rng(4)
    ours, theirs = random.normal(0.25, 1.0, 200), random.normal(0.0, 2.0, 300)

    found = difference([ours], [theirs], shared="nothing", resamples=8000)

    assert found.p == pytest.approx(ttest_ind(ours, theirs, equal_var=False).pvalue, abs=0.02)
    assert found.interval.mean == pytest.approx(ours.mean() - theirs.mean())


def test_five_of_a_hundred_differences_of_nothing_look_real() -> None:
    random = np.random.default_rng(0)
    pairs = [random.normal(0.8, 0.1, (2, 60)) for _ in range(400)]

    found = [difference([a], [b], resamples=300).p for a, b in pairs]

    assert 0.02 <= np.mean(np.array(found) < 0.05) <= 0.09  # a deviation is 1.1 points
    assert 0.4 <= np.mean(found) <= 0.6


@pytest.mark.parametrize("shared", ["seeds", "tasks", "nothing"])
def test_p_is_below_five_in_a_hundred_where_the_interval_is_off_zero(shared) -> None:
    random = np.random.default_rng(1)
    for gap in np.linspace(0.0, 0.6, 25):
        ours, theirs = random.normal(gap, 1.0, (3, 2, 40)), random.normal(0.0, 1.0, (3, 2, 40))
        found = difference(list(ours), list(theirs), shared=shared, resamples=1999)
        if not 0.045 < found.p < 0.055:  # a quantile lies between two resamples
            assert (found.p < 0.05) == (found.interval.low > 0 or found.interval.high < 0)


def test_the_same_scores_are_no_difference() -> None:
    scores = np.random.default_rng(0).normal(size=(3, 40))
    found = difference([scores], [scores], resamples=100)
    assert (found.interval.mean, found.interval.low, found.interval.high, found.p) == (0, 0, 0, 1)


def test_hard_tasks_cancel_only_between_sides_that_share_them() -> None:
    random = np.random.default_rng(0)
    hardness = random.normal(0.0, 1.0, 200)
    ours = hardness + 0.1 + random.normal(0.0, 0.1, 200)
    theirs = hardness + random.normal(0.0, 0.1, 200)

    assert difference([ours], [theirs], shared="tasks").p < 0.01
    assert difference([ours], [theirs], shared="nothing").p > 0.1


def test_seeds_drawn_apart_add_the_variances_of_both_sides() -> None:
    """No noise of tasks: the deviation is that of two means of resampled seeds."""
    ours, theirs = np.array([[0.0], [1.0], [5.0]]), np.array([[2.0], [4.0]])
    constant = [np.repeat(side, 50, axis=1) for side in (ours, theirs)]

    found = difference([constant[0]], [constant[1]], shared="tasks", resamples=20000)

    # Percentiles of all 27 x 4 draws, each as likely.
    draws = [
        np.mean([ours[i], ours[j], ours[k]]) - np.mean([theirs[m], theirs[n]])
        for i, j, k in np.ndindex(3, 3, 3)
        for m, n in np.ndindex(2, 2)
    ]
    low, high = np.quantile(draws, (0.025, 0.975))
    assert found.interval.mean == pytest.approx(-1.0)
    assert found.interval.low == pytest.approx(low, abs=0.35)
    assert found.interval.high == pytest.approx(high, abs=0.35)
    assert found.p == pytest.approx(2 * np.mean(np.array(draws) >= 0), abs=0.03)


def test_what_is_not_shared_is_refused() -> None:
    with pytest.raises(ValueError, match="same tasks"):
        difference([np.ones(3)], [np.ones(4)], shared="tasks")
    with pytest.raises(ValueError, match="same seeds"):
        difference([np.ones((2, 3))], [np.ones((1, 3))])
    with pytest.raises(ValueError, match="at least one score"):
        difference([np.ones(3)], [np.ones(0)], shared="nothing")


def test_holm_lies_between_no_correction_and_that_of_bonferroni() -> None:
    p = np.random.default_rng(0).uniform(0, 0.2, 12)
    adjusted = np.array(holm(list(p)))

    assert (adjusted >= false_discovery_control(p) - 1e-12).all()  # never laxer than Benjamini's
    assert (adjusted <= np.minimum(1, 12 * p)).all()
    assert adjusted.min() == pytest.approx(min(1, 12 * p.min()))
    assert (np.argsort(adjusted, kind="stable")[:3] == np.argsort(p)[:3]).all()
    assert holm([]) == []
