"""Policies fitted on the whole rows of a problem: what each must do, whatever its method."""

from collections.abc import Callable

import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier

from metalearn.selection.cost_sensitive import CostSensitive
from metalearn.selection.crossvalidation import folds_by_source, judge, single_best
from metalearn.selection.metrics import closed_gap
from metalearn.selection.nearest_tasks import NearestTasks
from metalearn.selection.policy import Policy
from metalearn.selection.problem import Problem
from metalearn.selection.regression_forest import RegressionForest
from metalearn.selection.regret_ensemble import RegretEnsemble, advantages, rank_advantages
from metalearn.selection.static import Random, SingleBest, regrets
from metalearn.selection.voting_forest import VotingForest

LEARNED: dict[str, Callable[[], Policy]] = {
    "nearest": lambda: NearestTasks(5),
    "regression": lambda: RegressionForest(trees=20),
    "voting": lambda: VotingForest(trees=9),
    "cost": lambda: CostSensitive(trees=20),
    "ensemble": lambda: RegretEnsemble(trees=20),
}
ALL = LEARNED | {"random": Random, "single": SingleBest}


def made(tasks: int = 80, seed: int = 0, scale: float = 1.0) -> Problem:
    """Three learners of which the sign of the first feature, or the second one, says the best."""
    random = np.random.default_rng(seed)
    features = random.uniform(-1, 1, (tasks, 4))
    good = np.stack([features[:, 0] > 0, features[:, 0] <= 0, features[:, 1] > 0.5], 1)
    utilities = scale * (good * [1.0, 1.0, 1.5] + random.uniform(0, 0.2, (2, tasks, 3)))
    names = tuple(f"task{row}" for row in range(tasks))
    return Problem(
        names, names, ("up", "down", "dear"), tuple("wxyz"), features, utilities, 0 * utilities[0]
    )


def gappy(problem: Problem) -> Problem:
    """The same, but the last learner cannot work on half of the tasks, the first on a few."""
    utilities = problem.utilities.copy()
    utilities[:, ::2, 2] = np.nan
    utilities[1, 1::7, 0] = np.nan
    return Problem(
        problem.tasks,
        problem.sources,
        problem.learners,
        problem.feature_names,
        problem.features,
        utilities,
        problem.costs,
    )


@pytest.mark.parametrize("make", LEARNED.values(), ids=LEARNED)
@pytest.mark.parametrize("scale", [1.0, 1e-6, 1e6])
def test_most_of_the_gap_is_closed_whatever_the_unit(make: Callable[[], Policy], scale: float):
    problem = made(scale=scale)
    found = judge(make, problem, folds_by_source(problem, 4, seed=0))
    assert closed_gap(found, single_best(problem), resamples=10).mean > 0.5


@pytest.mark.parametrize("make", ALL.values(), ids=ALL)
def test_only_able_learners_are_chosen(make: Callable[[], Policy]):
    problem = gappy(made())
    assert not problem.able.all()
    found = judge(make, problem, folds_by_source(problem, 2, seed=0))
    assert problem.able[np.arange(80), found.choices[0]].all()
    policy = make()
    policy.fit(problem, seed=0)
    for only in range(3):
        assert policy.choose(problem.features[0], np.arange(3) == only) == only


@pytest.mark.parametrize("make", ALL.values(), ids=ALL)
def test_a_learner_that_was_never_able_is_a_last_resort(make: Callable[[], Policy]):
    problem = made(20)
    utilities = problem.utilities.copy()
    utilities[:, :, 1] = np.nan
    problem = gappy(problem).select(range(20))
    object.__setattr__(problem, "utilities", utilities)
    policy = make()
    policy.fit(problem, seed=0)
    able = np.array([True, True, True])
    if make is not Random:
        assert {policy.choose(row, able) for row in problem.features} <= {0, 2}
    assert policy.choose(problem.features[0], np.array([False, True, False])) == 1


@pytest.mark.parametrize("make", ALL.values(), ids=ALL)
def test_one_at_a_time_is_all_at_once_and_a_seed_says_all(make: Callable[[], Policy]):
    problem, chosen = made(40), []
    for _ in range(2):
        policy = make()
        policy.fit(problem, seed=3)
        chosen.append(policy.choose_all(problem.features, problem.able))
    assert (chosen[0] == chosen[1]).all()
    policy.fit(problem, seed=3)
    single = [policy.choose(*row) for row in zip(problem.features, problem.able, strict=True)]
    assert (chosen[0] == single).all()


@pytest.mark.parametrize("make", ALL.values(), ids=ALL)
def test_tasks_and_learners_that_are_all_alike_do_no_harm(make: Callable[[], Policy]):
    names = tuple("abcdef")
    problem = Problem(
        names, names, ("one", "two"), ("x",), np.ones((6, 1)), np.ones((1, 6, 2)), np.ones((6, 2))
    )
    policy = make()
    policy.fit(problem, seed=0)
    assert policy.choose(np.ones(1), np.array([True, True])) in (0, 1)


def test_the_single_best_is_not_the_one_that_has_only_easy_tasks():
    utilities = np.array([[[0.2, np.nan], [0.3, np.nan], [0.9, 0.8], [0.9, 0.8]]])
    names = tuple("abcd")
    problem = Problem(
        names, names, ("both", "easy"), (), np.zeros((4, 0)), utilities, np.ones((4, 2))
    )
    policy = SingleBest()
    policy.fit(problem, seed=0)
    assert policy.choose(np.zeros(0), np.array([True, True])) == 0
    np.testing.assert_allclose(regrets(problem)[2:], [[0, 0.1], [0, 0.1]])
    assert np.isinf(regrets(problem)[0, 1])


def test_random_takes_every_learner_about_as_often():
    problem = made(600)
    policy = Random()
    policy.fit(problem, seed=0)
    counts = np.bincount(policy.choose_all(problem.features, problem.able))
    assert counts.min() > 150


def test_votes_count_what_a_mistake_costs():
    """Ten small wins against two large losses at the same place: the weights decide."""
    utilities = np.array([[[0.1, 0.0]] * 10 + [[0.0, 5.0]] * 2])
    names = tuple("abcdefghijkl")
    problem = Problem(
        names, names, ("often", "rare"), ("x",), np.zeros((12, 1)), utilities, np.ones((12, 2))
    )
    for make in (VotingForest, CostSensitive, lambda: NearestTasks(12), RegretEnsemble):
        policy = make()
        policy.fit(problem, seed=0)
        assert policy.choose(np.zeros(1), np.array([True, True])) == 1


def test_ranks_decide_between_learners_whose_gains_are_alike():
    """Nine small wins and one large loss that cancel out: what is better more often is chosen."""
    utilities = np.array([[[1.0, 0.0]] * 9 + [[0.0, 9.0]]])
    names = tuple("abcdefghij")
    problem = Problem(
        names, names, ("often", "rare"), ("x",), np.zeros((10, 1)), utilities, np.ones((10, 2))
    )
    np.testing.assert_allclose(advantages(problem).mean(0), 0, atol=1e-12)
    for weight in (0.3, 1.0):
        policy = RegretEnsemble(ranks=weight)
        policy.fit(problem, seed=0)
        assert policy.choose(np.zeros(1), np.array([True, True])) == 0


def test_gains_and_ranks_are_in_units_of_their_deviation():
    problem = gappy(made())
    for values in (advantages(problem), rank_advantages(problem)):
        assert values[problem.able].std() == pytest.approx(1)
        sums = np.where(problem.able, values, 0).sum(1)
        np.testing.assert_allclose(sums, 0, atol=1e-12)
    best = np.where(problem.able, problem.mean, -np.inf).argmax(1)
    ranks = np.where(problem.able, rank_advantages(problem), -np.inf)
    assert (ranks.argmax(1) == best).all()


def test_no_neighbour_is_refused():
    with pytest.raises(ValueError, match="at least one"):
        NearestTasks(0)


def test_the_trees_of_a_pair_are_those_of_a_classifier():
    """The paper's forest, a cost-sensitive classifier, says the same to the last digit."""
    problem, new = made(), made(40, seed=1)
    policy = VotingForest(trees=9)
    policy.fit(problem, seed=3)
    gain = problem.mean[:, 1] - problem.mean[:, 0]
    told = gain != 0
    classifier = RandomForestClassifier(9, random_state=3).fit(
        problem.features[told],
        gain[told] > 0,
        sample_weight=np.abs(gain)[told] / np.abs(gain).mean(),
    )
    np.testing.assert_allclose(
        policy.forests[1, 0].predict(new.features),
        classifier.predict_proba(new.features)[:, 1],
        atol=1e-12,
    )
