"""Cross-validation by source and what is measured of its choices."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest

from metalearn.selection.crossvalidation import (
    folds_by_source,
    judge,
    judged,
    single_best,
    stream,
    virtual_best,
)
from metalearn.selection.metrics import (
    closed_gap,
    cumulated_regret,
    frequencies,
    mean_cost,
    mean_utility,
    regret,
    share_best,
)
from metalearn.selection.policy import Answers, Examiner, Policy
from metalearn.selection.problem import Problem
from metalearn.selection.static import SingleBest


def problem(tasks: int = 24, sources: int = 6, parts: int = 1) -> Problem:
    random = np.random.default_rng(5)
    names = tuple(f"task{row}" for row in range(tasks))
    return Problem(
        names,
        tuple(f"source{row % sources}" for row in range(tasks)),
        ("a", "b", "c"),
        ("number",),
        np.arange(float(tasks))[:, None],
        random.uniform(size=(parts, tasks, 3)),
        random.uniform(1, 2, (tasks, 3)),
    )


class Spy(Policy):
    """Keeps what it is shown; always chooses the first learner."""

    online = True
    made: ClassVar[list[Spy]] = []

    def fit(self, problem: Problem, seed: int) -> None:
        self.problem, self.seed, self.seen = problem, seed, []
        Spy.made.append(self)

    def choose(self, features: np.ndarray, able: np.ndarray) -> int:
        self.seen.append(("choose", features[0]))
        return 0

    def learn(self, features: np.ndarray, choice: int, utility: float) -> None:
        self.seen.append(("learn", features[0], choice, utility))


def test_no_source_is_on_both_sides_and_every_task_is_judged_once():
    made, Spy.made = problem(), []
    folds = folds_by_source(made, 3, seed=1)
    judge(Spy, made, folds)
    assert len(Spy.made) == 3
    seen = []
    for spy in Spy.made:
        judged_on = [int(entry[1]) for entry in spy.seen]
        sources = {made.sources[row] for row in judged_on}
        assert not sources & set(spy.problem.sources)
        assert {int(row) for row in spy.problem.features[:, 0]} | set(judged_on) == set(range(24))
        seen += judged_on
    assert sorted(seen) == list(range(24))
    assert len({spy.seed for spy in Spy.made}) == 3


def test_folds_are_even_and_follow_the_seed():
    made = problem(sources=12)
    folds = folds_by_source(made, 4, seed=1)
    assert np.bincount(folds).tolist() == [6, 6, 6, 6]
    assert (folds == folds_by_source(made, 4, seed=1)).all()
    assert (folds != folds_by_source(made, 4, seed=2)).any()


def test_a_policy_learns_on_test_tasks_only_where_it_is_asked_to():
    made, Spy.made = problem(), []
    folds = folds_by_source(made, 2, seed=0)
    judge(Spy, made, folds, learning=True)
    for spy in Spy.made:
        kinds = [entry[0] for entry in spy.seen]
        assert kinds == ["choose", "learn"] * (len(kinds) // 2)
        for chosen, learned in zip(spy.seen[::2], spy.seen[1::2], strict=True):
            assert learned[1] == chosen[1] and learned[2] == 0
            assert learned[3] == made.mean[int(chosen[1]), 0]
    Spy.made = []
    judge(Spy, made, folds)
    assert {entry[0] for spy in Spy.made for entry in spy.seen} == {"choose"}


def test_what_is_not_online_is_never_told_an_outcome():
    policy = SingleBest()
    policy.fit(problem(), seed=0)
    told, silent = (stream(policy, problem(), learning) for learning in (True, False))
    assert (told.choices == silent.choices).all() and not told.tried.any()


def test_repetitions_are_rows():
    made = problem(sources=24)
    folds = np.stack([folds_by_source(made, 3, seed) for seed in range(2)])
    found = judge(SingleBest, made, folds)
    assert found.choices.shape == found.utilities.shape == found.order.shape == (2, 24)
    assert all(sorted(order) == list(range(24)) for order in found.order)
    np.testing.assert_array_equal(
        found.utilities, np.take_along_axis(made.mean, found.choices.T, 1).T
    )


@pytest.mark.parametrize(
    ("folds", "message"),
    [
        (np.zeros(24, int), "one fold"),
        (np.arange(24) % 5, "source source0 is in two folds; see folds_by_source"),
        (np.zeros(5, int), "folds of 5 tasks, but there are 24"),
    ],
)
def test_folds_that_cannot_be_are_refused(folds: np.ndarray, message: str):
    with pytest.raises(ValueError, match=message):
        judge(SingleBest, problem(), folds)


def test_more_folds_than_sources_are_refused():
    with pytest.raises(ValueError, match="7 folds of 6 sources; give 2 to 6"):
        folds_by_source(problem(), 7, seed=0)


def test_a_choice_that_is_not_able_is_refused():
    made = problem(4, 4)
    made.utilities[0, 2, 1] = np.nan
    with pytest.raises(ValueError, match="b was chosen for task2, but is not able"):
        judged(made, np.array([[0, 1, 1, 0]]))


def test_the_gap_is_none_of_it_for_the_single_best_and_all_for_the_virtual_one():
    for made in (problem(), problem(parts=4)):
        single, virtual = single_best(made), virtual_best(made)
        assert closed_gap(single, single).as_dict() == {"mean": 0, "low": 0, "high": 0}
        assert closed_gap(virtual, single).mean == pytest.approx(1)
        assert regret(virtual) == pytest.approx(0)


def test_the_gap_by_hand_and_its_interval_around_it():
    made = problem(200, 20)
    choices = np.tile([0, 1], (1, 100))
    found, single = judged(made, choices), single_best(made)
    means = [side.utilities.mean() for side in (found, single, virtual_best(made))]
    interval = closed_gap(found, single)
    assert interval.mean == pytest.approx((means[0] - means[1]) / (means[2] - means[1]))
    assert interval.low < interval.mean < interval.high


def test_sources_of_many_tasks_count_by_their_tasks():
    made = problem(8, 8)
    uneven = Problem(
        made.tasks, ("big",) * 7 + ("small",), made.learners, made.feature_names, made.features,
        made.utilities, made.costs,
    )  # fmt: skip
    found = judged(uneven, np.ones((1, 8), int))
    assert mean_utility(found).mean == pytest.approx(made.mean[:, 1].mean())
    assert mean_cost(found).mean == pytest.approx(made.costs[:, 1].mean())


def test_tasks_of_few_sources_tell_less_than_as_many_sources():
    """Outcomes that are those of the source: with two sources the interval is the wider one."""
    value = np.repeat([0.0, 1.0], 20)
    widths = []
    for sources in (np.repeat(["x", "y"], 20), np.arange(40).astype(str)):
        names = tuple(map(str, range(40)))
        made = Problem(
            names, tuple(sources), ("a",), (), np.zeros((40, 0)), value[None, :, None],
            np.ones((40, 1)),
        )  # fmt: skip
        interval = mean_utility(judged(made, np.zeros((1, 40), int)))
        widths.append(interval.high - interval.low)
    assert widths[0] > 2 * widths[1]


def test_regret_is_summed_in_the_order_in_which_tasks_were_met():
    made = problem(6, 6)
    order = np.array([[3, 0, 5, 1, 2, 4]])
    found = judged(made, np.zeros((1, 6), int), order)
    lost = made.mean.max(1) - made.mean[:, 0]
    np.testing.assert_allclose(regret(found), lost[None])
    np.testing.assert_allclose(cumulated_regret(found), np.cumsum(lost[order[0]])[None])


def test_shares_and_frequencies():
    made = problem(6, 6)
    best = made.mean.argmax(1)
    choices = np.stack([best, (best + 1) % 3])
    found = judged(made, choices)
    assert share_best(found) == 0.5
    np.testing.assert_allclose(frequencies(found), np.bincount(choices.ravel(), minlength=3) / 12)
    assert frequencies(found).sum() == pytest.approx(1)


def test_no_gap_is_said_to_be_none():
    made = problem(6, 6)
    made.utilities[:] = [3.0, 2.0, 1.0]
    with pytest.raises(ValueError, match="nothing to choose between"):
        closed_gap(single_best(made), single_best(made))


class Tries(Examiner):
    """Tries the first two learners, then answers with the better score."""

    shown: ClassVar[Problem]

    def fit(self, problem: Problem, seed: int) -> None: ...

    def answer(self, problem: Problem) -> Answers:
        Tries.shown = problem
        tried = np.tile([1, 2, 0], (len(problem.tasks), 1))
        return Answers(problem.scores[:, :2].argmax(1), tried)


def test_tries_are_paid_for_and_outcomes_are_not_shown():
    made = replace(problem(), price=0.1)
    made = replace(made, tries=made.mean)
    found = judge(Tries, made, folds_by_source(made, 3, seed=0))
    assert not Tries.shown.utilities.any()
    spent = made.costs[:, :2].sum(1)
    np.testing.assert_allclose(found.spent[0], spent)
    best = made.mean[:, :2].max(1)
    np.testing.assert_allclose(found.utilities[0], best - 0.1 * spent)
    chosen = made.costs[np.arange(24), found.choices[0]]
    assert mean_cost(found).mean == pytest.approx((spent + chosen).mean())
    # The same choices without a try are charged nothing.
    free = judged(made, found.choices)
    assert not free.spent.any()
    np.testing.assert_allclose(free.utilities[0], best)


def test_what_was_asked_hides_outcomes_and_keeps_who_is_able():
    made = problem(4, 4)
    made.utilities[0, 2, 1] = np.nan
    asked = made.asked()
    np.testing.assert_array_equal(asked.able, made.able)
    assert np.nansum(np.abs(asked.utilities)) == 0


def test_scores_of_tries_that_are_not_known_are_named():
    made = problem(4, 4)
    with pytest.raises(ValueError, match="no scores of tries"):
        _ = made.scores
    tries = made.mean.copy()
    tries[1, 2] = np.nan
    with pytest.raises(ValueError, match="no score of a try of c on task task1"):
        _ = replace(made, tries=tries).scores
    made.utilities[0, 1, 2] = np.nan  # who is not able has none
    assert replace(made, tries=tries).scores[1, 2] == 0
