"""A policy whose training is long is the same after its arrays were kept and read."""

from __future__ import annotations

import numpy as np
import pytest

from metalearn.selection.cross_validated import CrossValidated
from metalearn.selection.explanation import deciding, expected, residuals
from metalearn.selection.linucb import LinUCB
from metalearn.selection.nearest_tasks import NearestTasks
from metalearn.selection.policy import Policy
from metalearn.selection.problem import Problem
from metalearn.selection.recurrent import Recurrent, Settings
from metalearn.selection.static import Random
from metalearn.selection.with_tries import WithTries


def problem(tasks: int = 60, seed: int = 0) -> Problem:
    """Two learners of which the first feature tells the better one; the second says nothing."""
    random = np.random.default_rng(seed)
    features = random.uniform(-1, 1, (tasks, 2))
    utilities = np.stack([0.5 + features[:, 0] / 2, 0.5 - features[:, 0] / 2], 1)
    names = tuple(f"task {row}" for row in range(tasks))
    sources = tuple(f"source {row % 6}" for row in range(tasks))
    shape = np.ones((tasks, 2))
    return Problem(
        names, sources, ("up", "down"), ("x", "y"), features, utilities[None], shape, shape / 2
    )


def searcher(kind: str) -> Policy:
    pytest.importorskip("gymnasium", reason="the extra selection is not installed")
    from metalearn.selection.reinforce import Reinforce
    from metalearn.selection.searcher import Searcher
    from metalearn.selection.temporal import TemporalDifference

    if kind == "ppo":
        pytest.importorskip("sb3_contrib", reason="the extra selection is not installed")
        from metalearn.selection.ppo import PPO

        return Searcher(PPO(steps=64, rollout=32, batch=16))
    if kind == "reinforce":
        return Searcher(Reinforce(updates=3, episodes=4, width=4))
    if kind == "reinforce-search":
        return Searcher(Reinforce(updates=3, episodes=4, width=4), most=2)
    return Searcher(TemporalDifference(episodes=50))


MAKE = {
    "recurrent": lambda: Recurrent(5, Settings(width=4, updates=3, streams=4)),
    "reinforce": lambda: searcher("reinforce"),
    "reinforce-search": lambda: searcher("reinforce-search"),
    "ppo": lambda: searcher("ppo"),
    "q-learning": lambda: searcher("q-learning"),
    "linucb": LinUCB,
    "nearest-tasks": NearestTasks,
    "cross-validation": CrossValidated,
    "tried-tasks": lambda: WithTries(NearestTasks()),
}


@pytest.mark.parametrize("name", MAKE)
def test_it_chooses_the_same(name):
    known, new = problem(), problem(seed=1)
    policy, again = MAKE[name](), MAKE[name]()
    policy.fit(known, seed=3)
    kept = {key: value.copy() for key, value in policy.trained().items()}
    assert bool(kept) == (name in ("recurrent", "reinforce", "reinforce-search", "ppo"))
    assert all(isinstance(value, np.ndarray) for value in kept.values())
    again.restore(known, 3, kept)
    found, same = policy.answer(new.asked()), again.answer(new.asked())
    np.testing.assert_array_equal(same.choices, found.choices)
    np.testing.assert_array_equal(same.tried, found.tried)


def test_arrays_of_another_policy_are_refused():
    with pytest.raises(ValueError, match="NearestTasks keeps no arrays, but was given 1"):
        NearestTasks().restore(problem(), 0, {"weight": np.ones(2)})


def test_the_feature_that_decides_is_found():
    known = problem()
    policy = NearestTasks(k=5)
    policy.fit(known, seed=0)
    share = deciding(policy, known, np.array([0.8, 0.0]), np.array([True, True]))
    assert share is not None and share[0] > 0.3 and share[1] < 0.1
    assert deciding(policy, known, np.array([0.8, 0.0]), np.array([True, False])).max() == 0


def test_nothing_is_said_of_a_policy_that_chooses_by_chance():
    policy = Random()
    policy.fit(problem(), seed=0)
    assert deciding(policy, problem(), np.zeros(2), np.array([True, True])) is None


def test_the_interval_holds_most_outcomes_of_other_sources():
    """Of a noisy outcome: the interval is one for a new task, wider than one for the mean."""
    random = np.random.default_rng(0)
    known, new = problem(240), problem(200, seed=5)
    noise = random.normal(0, 0.1, (2, 240, 2))
    noisy = Problem(
        known.tasks,
        known.sources,
        known.learners,
        known.feature_names,
        known.features,
        known.utilities + noise,
        known.costs,
    )
    low, high = residuals(noisy, seed=0).T
    inside = []
    for row in range(0, 200, 10):
        mean = expected(noisy, new.features[row], seed=0)
        outcome = new.mean[row] + random.normal(0, 0.1 / 2**0.5, 2)
        inside += list((mean + low <= outcome) & (outcome <= mean + high))
    assert 0.8 <= np.mean(inside) <= 1.0
    assert np.all(high - low > 0.15) and np.all(high - low < 0.6)


def test_one_source_says_nothing_of_others():
    known = problem(6)
    alone = known.select([0])
    with pytest.raises(ValueError, match="all tasks are of one source"):
        residuals(alone, seed=0)
