"""The recurrent policy and the bandits it is judged on."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from metalearn.selection.bernoulli import by_gittins, gittins, optimum, play
from metalearn.selection.problem import Problem
from metalearn.selection.recurrent import Recurrent, Settings, train
from metalearn.selection.recurrent import play as play_recurrent
from metalearn.selection.streams import Pulls, Rounds


@pytest.mark.parametrize(("arms", "known"), [(5, 6.660), (10, 6.714)])
def test_the_optimum_of_ten_pulls(arms: int, known: float) -> None:
    assert optimum(arms, 10) == pytest.approx(known, abs=5e-4)


def test_the_optimum_of_one_arm_is_the_mean_and_the_index_is_greedy_at_last() -> None:
    assert optimum(1, 7) == pytest.approx(3.5)
    index = gittins(4, grid=400) / 400
    for ones, zeros in itertools.product(range(3), repeat=2):
        if ones + zeros <= 3:
            mean = (ones + 1) / (ones + zeros + 2)
            assert index[1, ones, zeros] == pytest.approx(mean, abs=1 / 400)


def test_gittins_is_near_the_optimum_and_not_above_it() -> None:
    totals = play(by_gittins(gittins(10)), Pulls(5, 10), 30_000, np.random.default_rng(0))
    error = totals.std() / len(totals) ** 0.5
    assert optimum(5, 10) - 0.1 < totals.mean() < optimum(5, 10) + 3 * error


def test_a_policy_learns_from_rewards_to_explore() -> None:
    """Two arms, five pulls: above any choice that ignores outcomes, and below the optimum."""
    stream, told = Pulls(2, 5), []
    settings = Settings(width=16, updates=150, streams=256, rate=0.02, entropy=0.01, trace=1.0)
    network = train(stream, settings, 0, told.append)
    with torch.no_grad():
        played = play_recurrent(network, stream, 20_000, np.random.default_rng(9), greedy=True)
    mean = played.outcome.sum(0).mean().item()
    assert 2.65 < mean < optimum(2, 5) + 0.03  # ignoring outcomes: 2.5
    assert len(told) == 150
    assert set(told[0]) == {"update", "outcome", "entropy", "value_error"}


def test_training_is_a_function_of_its_seed() -> None:
    weights = [
        train(Pulls(2, 3), Settings(width=4, updates=3, streams=8), seed).policy.weight
        for seed in (1, 1, 2)
    ]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def changing_problem() -> Problem:
    random = np.random.default_rng(0)
    features = random.choice([-1.0, 1.0], (200, 1))
    utilities = np.where(features > 0, [[0.9, 0.1, 0.0]], [[0.1, 0.9, 0.0]])[None]
    utilities[0, :5, 2] = np.nan
    names = tuple(str(i) for i in range(200))
    return Problem(names, names, ("a", "b", "c"), ("x",), features, utilities, np.ones((200, 3)))


def test_as_a_policy_it_uses_features_and_who_is_able() -> None:
    problem = changing_problem()
    policy = Recurrent(rounds=5, settings=Settings(width=16, updates=80, streams=64))
    policy.fit(problem, seed=0)
    able = np.ones(3, bool)
    for row in range(50):
        choice = policy.choose(problem.features[row], able)
        assert problem.mean[row, choice] == pytest.approx(0.9)
        policy.learn(problem.features[row], choice, 0.9)
    assert policy.choose(problem.features[0], np.array([False, False, True])) == 2


def test_its_memory_moves_when_it_is_told_and_not_when_it_is_asked() -> None:
    problem = changing_problem()
    policy = Recurrent(rounds=3, settings=Settings(width=8, updates=2, streams=8))
    policy.fit(problem, seed=0)
    before = policy._memory
    policy.choose(problem.features[0], np.ones(3, bool))
    assert torch.equal(policy._memory, before)
    policy.learn(problem.features[0], 0, 0.9)
    assert not torch.equal(policy._memory, before)


def test_rounds_show_the_utility_of_the_choice_alone() -> None:
    problem = changing_problem()
    stream = Rounds(problem, 3)
    stream.begin(50, np.random.default_rng(0))
    for _ in range(3):
        features, able = stream.observe()
        assert features.shape == (50, 1) and able.shape == (50, 3)
        wanted = np.where(features[:, 0] > 0, 0.9, 0.1)
        np.testing.assert_allclose(stream.outcome(np.zeros(50, int)), wanted, rtol=1e-6)
    with pytest.raises(ValueError, match="round"):
        Rounds(problem, 0)
    with pytest.raises(ValueError, match="arms"):
        Pulls(0, 3)
