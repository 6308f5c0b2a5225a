"""The search environment: what it shows, charges and pays; the actors that are trained in it."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env as check_by_gymnasium
from stable_baselines3.common.env_checker import check_env as check_by_stable_baselines

from metalearn.selection.control import Actor, Trainer
from metalearn.selection.crossvalidation import judged
from metalearn.selection.environment import Search
from metalearn.selection.policy import Answers
from metalearn.selection.ppo import PPO
from metalearn.selection.problem import Problem
from metalearn.selection.reinforce import Reinforce
from metalearn.selection.searcher import Searcher
from metalearn.selection.temporal import TemporalDifference


def problem_of(tasks: int = 64, seed: int = 0) -> Problem:
    """The sign of the feature says which of two is best; a third is best by its try alone."""
    random = np.random.default_rng(seed)
    lean = random.choice([-1.0, 1.0], tasks)
    utilities = np.stack([0.5 + 0.3 * lean, 0.5 - 0.3 * lean, np.full(tasks, 0.3)], 1)[None]
    names = tuple(f"t{i}" for i in range(tasks))
    costs = np.tile([1.0, 2.0, 4.0], (tasks, 1))
    return Problem(
        names, names, ("a", "b", "c"), ("lean",), lean[:, None], utilities, costs, utilities[0]
    )


def worth(answers: Answers, problem: Problem) -> np.ndarray:
    """What answers bring, less what their tries cost `[T]`."""
    return judged(problem, answers.choices[None], tried=answers.tried[None]).utilities[0]


@pytest.mark.parametrize(("most", "budget"), [(1, np.inf), (None, 4.0), (2, np.inf)])
def test_it_passes_the_checkers_of_both_libraries(most: int | None, budget: float) -> None:
    search = Search(problem_of(), budget, most)
    with warnings.catch_warnings():
        # No spec: it is not made by name, and there is nothing to render.
        warnings.filterwarnings("ignore", message=".*spec.*|.*render.*|.*not within.*normalized.*")
        check_by_gymnasium(search, skip_render_check=True)
        check_by_stable_baselines(search)


def test_tries_become_visible_cost_and_end_with_the_best_score() -> None:
    problem = problem_of()
    tries = np.tile([0.6, 0.9, 0.2], (64, 1))
    search = Search(replace(problem, tries=tries, price=0.01), budget=4.0)
    first, info = search.reset(options={"task": 3})
    np.testing.assert_array_equal(info["action_mask"], [1, 1, 1, 1])
    lean, scores, tried, possible, left = np.split(first, [1, 4, 7, 10])
    scaled = (problem.features[3] - problem.features.mean()) / problem.features.std()
    np.testing.assert_allclose(lean, scaled, rtol=1e-6)
    assert not scores.any() and not tried.any() and possible.all() and left == 1
    second, reward, ended, cut, info = search.step(0)
    np.testing.assert_allclose(second[1:], [0.6, 0, 0, 1, 0, 0, 0, 1, 0, 0.75], rtol=1e-6)
    assert (reward, ended, cut, info["spent"]) == (0.0, False, False, 1.0)
    third, reward, ended, _, info = search.step(1)
    assert ended and info["answer"] == 1  # nothing more is affordable
    np.testing.assert_allclose(third[1:4], [0.6, 0.9, 0], rtol=1e-6)
    assert reward == pytest.approx(problem.mean[3, 1] - 0.01 * 3)


def test_what_was_not_tried_is_not_shown() -> None:
    problem = problem_of()
    other = replace(
        problem,
        tries=np.where([True, False, False], problem.tries, 0.123),
        utilities=np.where([True, False, False], problem.utilities, 0.001),
    )
    shown = []
    for one in (problem, other):
        search = Search(one, reference=problem)
        shown.append([search.reset(options={"task": 5})[0], search.step(0)[0]])
    np.testing.assert_array_equal(shown[0], shown[1])


@pytest.mark.parametrize("action", [3, 1])
def test_to_stop_or_to_ask_for_the_impossible_ends_with_the_single_best(action: int) -> None:
    problem = problem_of()
    search = Search(problem, budget=1.5)  # only the first is affordable
    search.reset(options={"task": 0})
    _, reward, ended, _, info = search.step(action)
    assert ended and info["answer"] == problem.single_best and info["spent"] == 0
    assert reward == problem.mean[0, problem.single_best]


def test_one_try_is_the_choice_of_a_learner() -> None:
    problem = replace(problem_of(), tries=None)
    search = Search(problem, most=1)
    for learner in range(3):
        search.reset(options={"task": 2})
        _, reward, ended, _, info = search.step(learner)
        assert ended and info["answer"] == learner and reward == problem.mean[2, learner]


def test_who_is_not_able_is_no_possible_action_nor_answer() -> None:
    problem = problem_of()
    utilities = problem.utilities.copy()
    utilities[0, 7] = [np.nan, 0.4, np.nan]
    search = Search(replace(problem, utilities=utilities), reference=problem)
    _, info = search.reset(options={"task": 7})
    np.testing.assert_array_equal(info["action_mask"], [0, 1, 0, 1])
    assert search.step(3)[1] == pytest.approx(0.4)


def test_mistakes_are_named() -> None:
    problem = problem_of()
    with pytest.raises(ValueError, match="no scores of tries"):
        Search(replace(problem, tries=None))
    assert problem.tries is not None
    hole = np.where(np.arange(192).reshape(64, 3) == 4, np.nan, problem.tries)
    with pytest.raises(ValueError, match="no score of a try of b on task t1"):
        Search(replace(problem, tries=hole))
    with pytest.raises(ValueError, match="at least 1"):
        Search(problem, most=0)
    with pytest.raises(ValueError, match="above 0"):
        Search(problem, budget=0.0)
    with pytest.raises(ValueError, match="other learners"):
        Search(problem, reference=replace(problem, learners=("x", "y", "z")))
    searcher = Searcher(TemporalDifference(episodes=5), most=2)
    searcher.fit(problem, seed=0)
    with pytest.raises(ValueError, match="has to `answer`"):
        searcher.choose(problem.features[0], np.ones(3, bool))


TRAINERS: dict[str, Trainer] = {
    "q-learning, cells": TemporalDifference(episodes=600, cells=8, explore=0.2),
    "q-learning, linear": TemporalDifference(episodes=800, cells=0, explore=0.2),
    "sarsa, cells": TemporalDifference("sarsa", episodes=600, cells=8, explore=0.2),
    "reinforce": Reinforce(updates=60, episodes=16, rate=0.05, width=8),
    "ppo": PPO(steps=2048, rollout=128, batch=64, rate=3e-3),
}


@pytest.mark.parametrize("name", TRAINERS)
def test_actors_learn_to_choose_in_one_step(name: str) -> None:
    told: list = []
    searcher = Searcher(TRAINERS[name], watch=told.append)
    searcher.fit(problem_of(), seed=0)
    fresh = problem_of(40, seed=1)
    answers = searcher.answer(fresh.asked())
    np.testing.assert_allclose(worth(answers, fresh), 0.8)  # 0.5 for the single best
    assert not answers.tried.any()
    chosen = [searcher.choose(row, np.ones(3, bool)) for row in fresh.features]
    np.testing.assert_array_equal(chosen, answers.choices)
    assert "outcome" in told[-1] or name == "ppo"


def test_the_unit_of_utilities_does_not_matter() -> None:
    """Seconds of a solver, say, are of the order of thousands and below zero."""
    problem = problem_of()
    seconds = replace(problem, utilities=1e4 * (problem.utilities - 1))
    found = []
    for one, price in ((problem, 0.01), (seconds, 100.0)):
        searcher = Searcher(Reinforce(updates=5, episodes=8), most=2)
        searcher.fit(replace(one, price=price), seed=0)
        found.append(searcher.answer(one).choices)
    np.testing.assert_array_equal(*found)


def blind_problem(tasks: int, seed: int) -> Problem:
    """The feature says nothing: only a try tells, and to try costs."""
    problem = problem_of(tasks, seed)
    return replace(problem, features=np.random.default_rng(seed).standard_normal((tasks, 1)))


@pytest.mark.parametrize("recurrent", [False, True])
def test_ppo_learns_to_try_before_it_answers(recurrent: bool) -> None:
    steps = 256 if recurrent else 3072
    trainer = PPO(steps=steps, rollout=256, batch=128, rate=3e-3, recurrent=recurrent)
    searcher = Searcher(trainer, most=2)
    searcher.fit(blind_problem(64, 0), seed=0)
    fresh = blind_problem(50, 1)
    answers = searcher.answer(fresh.asked())
    assert answers.tried.max() <= 2
    if not recurrent:
        assert worth(answers, fresh).mean() > 0.75  # the single best has 0.5


def test_copies_that_cannot_share_a_rollout_are_refused() -> None:
    with pytest.raises(ValueError, match="30 is no multiple of copies 8"):
        Searcher(PPO(steps=64, rollout=30)).fit(problem_of(), seed=0)


def test_reinforce_learns_what_a_try_is_worth() -> None:
    """With two tries of a and b the best is known; with a price above their worth none is made."""
    trainer = Reinforce(updates=80, episodes=24, rate=0.05, width=0)
    found = {}
    for price in (0.01, 1.0):
        searcher = Searcher(trainer, most=2)
        searcher.fit(replace(blind_problem(64, 0), price=price), seed=0)
        fresh = replace(blind_problem(50, 1), price=price)
        found[price] = searcher.answer(fresh.asked()), fresh
    assert worth(*found[0.01]).mean() > 0.7
    assert found[1.0][0].tried.sum() == 0


def test_tries_are_told_in_their_order() -> None:
    """Two scripted tries: what was tried first has place 1, and the task was charged for both."""

    class Script(Actor):
        def start(self) -> None:
            self.left = [2, 0, 3]

        def act(self, observation: object, mask: object) -> int:
            return self.left.pop(0)

    class Scripted(Trainer):
        def train(self, environment: object, seed: int, watch: object = None) -> Actor:
            return Script()

    problem = replace(problem_of(), price=0.01)
    searcher = Searcher(Scripted(), most=3)
    searcher.fit(problem, seed=0)
    answers = searcher.answer(problem.asked())
    np.testing.assert_array_equal(answers.tried, np.tile([2, 0, 1], (64, 1)))
    better = np.where(problem.mean[:, 0] > problem.mean[:, 2], 0, 2)
    np.testing.assert_array_equal(answers.choices, better)
    brought = problem.mean[np.arange(64), better] - 0.01 * 5
    np.testing.assert_allclose(worth(answers, problem), brought)
