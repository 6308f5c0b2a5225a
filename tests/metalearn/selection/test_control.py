"""Reinforcement learning against what dynamic programming and enumeration say exactly."""

from __future__ import annotations

import itertools
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

from metalearn.selection.control import returns
from metalearn.selection.planning import (
    Model,
    finite_horizon,
    optimal_return,
    value_iteration,
)
from metalearn.selection.reinforce import Reinforce, Softmax, aim, collect, network
from metalearn.selection.temporal import TemporalDifference


class Chain(gymnasium.Env):
    """Three states and two actions of a model `P`, and an end; rewards and moves are by chance."""

    P = {  # noqa: RUF012
        0: {0: [(0.7, 1, 0.0, False), (0.3, 2, 1.0, False)], 1: [(1.0, 2, 0.5, False)]},
        1: {0: [(1.0, 0, 2.0, True)], 1: [(0.5, 0, 0.0, False), (0.5, 2, 1.0, True)]},
        2: {0: [(0.6, 1, 0.0, False), (0.4, 2, 0.0, True)], 1: [(1.0, 2, 0.3, True)]},
    }
    initial_state_distrib = np.array([1.0, 0.0, 0.0])
    observation_space = gymnasium.spaces.Discrete(3)
    action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[int, dict]:
        super().reset(seed=seed)
        self.state, self.steps = 0, 0
        return self.state, {}

    def step(self, action: int) -> tuple[int, float, bool, bool, dict]:
        outcomes = self.P[self.state][int(action)]
        drawn = self.np_random.choice(len(outcomes), p=[outcome[0] for outcome in outcomes])
        _, self.state, reward, ended = outcomes[drawn]
        self.steps += 1
        return self.state, reward, ended, False, {}


class TwoSteps(Chain):
    """The chain, over after two steps."""

    def step(self, action: int) -> tuple[int, float, bool, bool, dict]:
        state, reward, ended, _, info = super().step(action)
        return state, reward, ended or self.steps == 2, False, info


@pytest.mark.parametrize(
    ("name", "limited", "endless"),
    [("FrozenLake-v1", 0.7442, 0.8235), ("FrozenLake8x8-v1", 0.9132, 1.0)],
)
def test_planning_knows_the_lakes(name: str, limited: float, endless: float) -> None:
    model = Model.of(gymnasium.make(name))
    assert optimal_return(model) == pytest.approx(limited, abs=1e-3)
    assert value_iteration(model).max(1)[0] == pytest.approx(endless, abs=1e-3)


def test_values_of_long_horizons_are_those_without_one() -> None:
    model = Model.of(Chain())
    assert model.limit is None
    np.testing.assert_allclose(finite_horizon(model, 60)[-1], value_iteration(model), atol=1e-6)
    # By hand, one step: expected rewards; two steps from state 2: 0.6 * 2 and 0.3.
    first, second = finite_horizon(model, 2)
    np.testing.assert_allclose(first, [[0.3, 0.5], [2.0, 0.5], [0.0, 0.3]])
    np.testing.assert_allclose(second[2], [0.6 * 2, 0.3])
    with pytest.raises(ValueError, match="nothing to do"):
        finite_horizon(model, 0)
    with pytest.raises(ValueError, match="still move"):
        value_iteration(Model(np.ones((1, 1, 1)), np.ones((1, 1)), np.ones(1)), most=50)
    with pytest.raises(ValueError, match="does not tell its model"):
        Model.of(gymnasium.make("CartPole-v1"))


def test_q_learning_converges_to_the_values_of_dynamic_programming() -> None:
    trainer = TemporalDifference(episodes=8000, rate=1.0, explore=0.5, falling=True)
    found = trainer.train(Chain(), seed=0)
    np.testing.assert_allclose(found.weights.T, value_iteration(Model.of(Chain())), atol=0.06)


def test_sarsa_converges_to_the_values_of_its_own_policy() -> None:
    """The fixed point of values under epsilon-greedy, found by sweeps over the model."""
    explore = 0.5
    trainer = TemporalDifference("sarsa", 12_000, 1.0, explore, falling=True)
    found = trainer.train(Chain(), seed=0).weights.T
    model, values = Model.of(Chain()), np.zeros((3, 2))
    for _ in range(200):
        mixed = (1 - explore) * values.max(1) + explore * values.mean(1)
        values = model.backup(mixed, 1.0)
    np.testing.assert_allclose(found, values, atol=0.08)
    assert np.abs(values - value_iteration(model)).max() > 0.15  # not the values of Q-learning


def test_the_estimate_of_reinforce_is_the_exact_gradient() -> None:
    torch.manual_seed(0)
    policy, value = network(3, 2, 0), network(3, 1, 0)
    with torch.no_grad():
        policy.weight.copy_(torch.tensor([[0.5, -0.3, 0.2], [-0.4, 0.6, 0.1]]))
        value.weight.copy_(torch.tensor([[1.0, 0.7, 0.2]]))  # any baseline will do
    # The expected return by enumeration: the first action, where it leads, the second action.
    chances = torch.softmax(policy(torch.eye(3)), 1)
    exact = torch.zeros(())
    for first, second in itertools.product(range(2), repeat=2):
        for p, state, reward, ended in Chain.P[0][first]:
            later = sum(q * r for q, _, r, _ in Chain.P[state][second])
            assert not ended
            exact = exact + chances[0, first] * p * chances[state, second] * (reward + later)
    wanted = torch.autograd.grad(exact, [policy.weight, policy.bias])

    environment = TwoSteps()
    environment.reset(seed=0)
    actor = Softmax(policy, np.eye(3, dtype=np.float32).__getitem__, np.random.default_rng(1))
    found = []
    for _ in range(40):
        met = collect(actor, environment, 100, discount=1.0)
        found.append(
            torch.cat(
                [
                    part.flatten()
                    for part in torch.autograd.grad(
                        aim(policy, value, met), [policy.weight, policy.bias]
                    )
                ]
            )
        )
    estimates = torch.stack(found)
    exact_gradient = torch.cat([part.flatten() for part in wanted])
    error = estimates.std(0) / len(estimates) ** 0.5
    assert ((estimates.mean(0) - exact_gradient).abs() < 4 * error + 1e-6).all()
    assert error.max() < 0.2 * exact_gradient.abs().max()


def test_reinforce_finds_the_best_policy_of_the_chain() -> None:
    actor = Reinforce(updates=40, episodes=16, rate=0.2, width=0).train(Chain(), seed=0)
    best = optimal_return(Model.of(Chain()))
    found = returns(actor, Chain(), 400, seed=5)
    assert found.mean() > best - 4 * found.std() / len(found) ** 0.5
    assert best > 1.2


def test_sarsa_takes_the_safe_way_and_q_learning_the_edge() -> None:
    last = {}
    for method in ("q-learning", "sarsa"):
        told: list = []
        trainer = TemporalDifference(method, episodes=300, rate=0.5, explore=0.1)  # type: ignore[arg-type]
        trainer.train(gymnasium.make("CliffWalking-v1"), 0, told.append)
        last[method] = np.mean([made["outcome"] for made in told[-100:]])
    assert last["sarsa"] > last["q-learning"] + 10


def test_a_trainer_is_a_function_of_its_seed() -> None:
    def weights(seed: int) -> np.ndarray:
        return TemporalDifference(episodes=30).train(Chain(), seed).weights

    np.testing.assert_array_equal(weights(1), weights(1))
    assert not np.array_equal(weights(1), weights(2))


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match="neither q-learning nor sarsa"):
        TemporalDifference("td")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="not Discrete"):
        TemporalDifference().train(gymnasium.make("Pendulum-v1"), 0)
    with pytest.raises(ValueError, match="falling rate is for tables"):
        TemporalDifference(cells=0, falling=True).train(gymnasium.make("CartPole-v1"), 0)
