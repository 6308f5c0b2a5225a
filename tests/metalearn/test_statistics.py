"""Intervals: do they cover, widen and narrow as they should?"""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import f1_score

from metalearn.statistics import Interval, bootstrap, macro_f1, paired


def width(interval: Interval) -> float:
    return interval.high - interval.low


def test_an_interval_covers_the_true_mean_in_95_of_100_cases() -> None:
    random = np.random.default_rng(0)
    found = [bootstrap([random.normal(0.7, 0.1, 60)], resamples=300) for _ in range(400)]

    covered = np.mean([interval.low <= 0.7 <= interval.high for interval in found])

    # A binomial of 400 has a deviation of 1.1 points; the percentile interval is a little short.
    assert 0.90 <= covered <= 0.98


def test_an_interval_is_as_wide_as_the_normal_one() -> None:
    scores = np.random.default_rng(0).normal(0.0, 1.0, 400)

    interval = bootstrap([scores])

    assert interval.mean == pytest.approx(scores.mean())
    assert width(interval) == pytest.approx(2 * 1.96 * scores.std() / 20, rel=0.1)


def test_an_interval_over_groups_that_differ_is_wider() -> None:
    random = np.random.default_rng(0)
    noise = random.normal(0.0, 0.1, (5, 100))
    differing = noise + np.array([0.0, 0.2, 0.4, 0.6, 0.8])[:, None]

    flat = bootstrap([differing.ravel()])
    grouped = bootstrap(list(differing))
    alike = bootstrap(list(noise))

    assert grouped.mean == pytest.approx(flat.mean)
    assert width(grouped) > 3 * width(flat)
    assert width(alike) < 0.2 * width(grouped)


def test_groups_weigh_the_same_whatever_their_size() -> None:
    interval = bootstrap([np.zeros(10), np.ones(1000)], resamples=500)

    assert interval.mean == 0.5
    assert (interval.low, interval.high) == (0.0, 1.0)  # both draws from one group happen


def test_short_groups_are_resampled_within_themselves() -> None:
    """Equal groups of unequal size: nothing but their value can come out."""
    assert bootstrap([np.full(3, 0.4), np.full(50, 0.4)], resamples=100) == Interval(
        pytest.approx(0.4), pytest.approx(0.4), pytest.approx(0.4)
    )


def test_pairing_removes_what_both_learners_share() -> None:
    random = np.random.default_rng(0)
    hardness = random.normal(0.0, 0.2, (3, 100))
    ours, theirs = (list(hardness + random.normal(mean, 0.02, (3, 100))) for mean in (0.71, 0.70))

    difference = paired(ours, theirs)

    assert difference.mean == pytest.approx(np.mean(ours) - np.mean(theirs))
    assert width(difference) < 0.3 * width(bootstrap(ours))
    assert difference.low > 0
    assert bootstrap(ours).low < bootstrap(theirs).high


def test_the_seed_decides() -> None:
    scores = [np.random.default_rng(0).random(30)]

    assert bootstrap(scores, seed=1) == bootstrap(scores, seed=1)
    assert bootstrap(scores, seed=1) != bootstrap(scores, seed=2)


@pytest.mark.parametrize("groups", [[], [[]], [[0.5], []]])
def test_an_interval_of_nothing_is_refused(groups: list) -> None:
    with pytest.raises(ValueError, match="at least one score"):
        bootstrap(groups)


def test_pairs_must_match() -> None:
    with pytest.raises(ValueError, match="same episodes"):
        paired([np.zeros(3)], [np.zeros(4)])


@pytest.mark.parametrize("seed", range(5))
def test_macro_f1_is_that_of_scikit_learn(seed: int) -> None:
    random = np.random.default_rng(seed)
    labels, said = random.integers(0, 4, 30), random.integers(0, 6, 30)

    expected = f1_score(labels, said, labels=np.unique(labels), average="macro", zero_division=0)

    assert macro_f1(labels, said) == pytest.approx(expected)


def test_seeds_judged_on_the_same_episodes_add_no_episodes() -> None:
    episodes = np.random.default_rng(0).normal(size=100)
    alone = bootstrap([episodes])
    thrice = bootstrap([np.stack([episodes] * 3)])
    assert width(thrice) == pytest.approx(width(alone), rel=0.1)
    assert width(bootstrap([episodes] * 3)) < 0.75 * width(alone)  # as folds they would count anew
