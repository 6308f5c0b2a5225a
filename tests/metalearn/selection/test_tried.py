"""Policies that try learners: cross-validation, and scores as features."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from metalearn.selection.cross_validated import CrossValidated
from metalearn.selection.crossvalidation import folds_by_source, judge
from metalearn.selection.nearest_tasks import NearestTasks
from metalearn.selection.problem import Problem
from metalearn.selection.with_tries import WithTries


def problem(tasks: int = 80, seed: int = 0) -> Problem:
    """Two cheap learners and a dear one, as good as the second; tries say it, features nothing."""
    random = np.random.default_rng(seed)
    first, second = random.uniform(0, 1, (2, tasks))
    utilities = np.stack([first, second, second + 0.05], 1)
    names = tuple(f"task{row}" for row in range(tasks))
    return Problem(
        names,
        tuple(f"source{row % 8}" for row in range(tasks)),
        ("cheap", "other", "dear"),
        ("noise",),
        random.standard_normal((tasks, 1)),
        utilities[None],
        np.tile([1.0, 2.0, 10.0], (tasks, 1)),
        utilities,
    )


def test_the_best_score_is_taken_and_all_that_is_able_is_tried():
    made = problem()
    made.utilities[0, 3, 2] = np.nan
    policy = CrossValidated()
    policy.fit(made, seed=0)
    answers = policy.answer(made.asked())
    able = np.where(made.able, made.mean, -1)
    np.testing.assert_array_equal(answers.choices, able.argmax(1))
    np.testing.assert_array_equal(answers.tried > 0, made.able)
    assert answers.tried[0].tolist() == [1, 2, 3] and answers.tried[3].tolist() == [1, 2, 0]


def test_among_equal_scores_the_one_that_was_best_in_training_is_taken():
    made = problem()
    policy = CrossValidated()
    policy.fit(made, seed=0)
    assert made.mean.mean(0).argsort().tolist() == [0, 1, 2]
    for scores, best in (([0.5, 0.5, 0.5], 2), ([0.5, 0.5, 0.4], 1), ([0.6, 0.5, 0.5], 0)):
        tied = replace(made, tries=np.tile(scores, (80, 1)))
        assert (policy.answer(tied).choices == best).all()


def test_scores_of_the_cheap_say_what_the_dear_one_is_worth():
    """Without tries there is nothing to go by; the dear one is never tried, and still chosen."""
    made = replace(problem(), price=0.001)
    folds = folds_by_source(made, 4, seed=0)
    blind = judge(lambda: NearestTasks(k=5), made, folds)
    found = judge(lambda: WithTries(NearestTasks(k=5), most=0.004), made, folds)
    assert (found.tried[0] == [1, 2, 0]).all()
    assert (found.choices == 2).mean() > 0.3 and (found.choices == 0).mean() > 0.3
    best = made.mean.max(1).mean()
    assert found.utilities.mean() > best - 0.05
    assert blind.utilities.mean() < best - 0.1


def test_what_is_tried_is_bounded_together_and_everything_where_it_costs_nothing():
    made = problem()
    tried = {}
    for price in (0.0, 0.001, 0.002, 0.01):
        policy = WithTries(NearestTasks(), most=0.004)
        policy.fit(replace(made, price=price), seed=0)
        tried[price] = policy.answer(made.asked()).tried.max(0).tolist()
    assert tried == {0.0: [1, 2, 3], 0.001: [1, 2, 0], 0.002: [1, 0, 0], 0.01: [0, 0, 0]}


def test_the_scores_of_what_is_not_tried_do_not_matter():
    made = replace(problem(), price=0.001)
    policy = WithTries(NearestTasks(k=5), most=0.004)
    policy.fit(made, seed=0)
    new = problem(seed=1)
    changed = replace(new, tries=np.where([True, True, False], new.scores, 0.123))
    np.testing.assert_array_equal(policy.answer(new).choices, policy.answer(changed).choices)


def test_a_learner_without_a_score_counts_as_one_of_the_mean():
    made = problem()
    policy = WithTries(NearestTasks(k=5), most=1.0)
    policy.fit(made, seed=0)
    holes, mean = made.scores.copy(), made.scores.copy()
    holes[:, 1], mean[:, 1] = np.nan, (made.scores[:, 0] + made.scores[:, 2]) / 2
    unable = np.where([True, False, True], 0.0, np.nan) * np.ones((1, 80, 3))
    found = policy.answer(replace(made, utilities=unable, tries=holes))
    expected = policy.answer(replace(made, utilities=unable, tries=mean))
    np.testing.assert_array_equal(found.choices, expected.choices)
    assert not found.tried[:, 1].any() and (found.choices != 1).all()
