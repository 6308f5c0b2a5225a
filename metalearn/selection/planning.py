"""Dynamic programming: exact values of a finite environment whose model is known.

Bellman 1957, "Dynamic Programming"; Sutton and Barto 2018, "Reinforcement Learning", section 4.4.

    V_0(s) = 0,     V_h(s) = max_a sum_{p, s', r, end} p (r + g (1 - end) V_{h-1}(s'))

With a limit of h steps the value is V_h and the best action depends on what is left; without one,
V_h is iterated until it no longer moves (value iteration).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Model:
    """A finite Markov decision process.

    Attributes:
        chance: Probability of each next state where the episode goes on `[S, A, S]`.
        reward: Expected reward `[S, A]`.
        start: Probability of each first state `[S]`.
        limit: Steps after which an episode is cut off; None: never.
    """

    chance: np.ndarray
    reward: np.ndarray
    start: np.ndarray
    limit: int | None = None

    @classmethod
    def of(cls, environment: Any) -> Model:
        """That of one of gymnasium's toy texts, with its time limit.

        Raises:
            ValueError: If the environment does not tell its model.
        """
        told = getattr(environment.unwrapped, "P", None)
        if told is None:
            raise ValueError(f"{environment} does not tell its model (attribute P)")
        states, actions = environment.observation_space.n, environment.action_space.n
        chance, reward = np.zeros((states, actions, states)), np.zeros((states, actions))
        for state in range(states):
            for action in range(actions):
                for p, following, r, end in told[state][action]:
                    reward[state, action] += p * r
                    chance[state, action, following] += 0.0 if end else p
        spec = environment.spec
        start = np.asarray(environment.unwrapped.initial_state_distrib, dtype=np.float64)
        return cls(chance, reward, start, None if spec is None else spec.max_episode_steps)

    def backup(self, value: np.ndarray, discount: float) -> np.ndarray:
        """Values of actions `[S, A]` before values of states `[S]`."""
        # sum p (r + g (1 - end) V_{h-1}(s'))
        return self.reward + discount * self.chance @ value


def finite_horizon(model: Model, horizon: int, discount: float = 1.0) -> np.ndarray:
    """Values of actions with 1, ..., h steps left `[h, S, A]`.

    Raises:
        ValueError: If there is no step.
    """
    if horizon < 1:
        raise ValueError(f"a horizon of {horizon} steps leaves nothing to do")
    found = [model.reward]
    while len(found) < horizon:
        found.append(model.backup(found[-1].max(1), discount))
    return np.stack(found)


def value_iteration(
    model: Model, discount: float = 1.0, tolerance: float = 1e-10, most: int = 100_000
) -> np.ndarray:
    """Values of actions without a limit of steps `[S, A]`.

    Args:
        model: Of the environment.
        discount: g.
        tolerance: Largest change of a value at the end.
        most: Sweeps at most.

    Raises:
        ValueError: If values still move after the last sweep.

    Example:
        >>> loop = Model(np.ones((1, 1, 1)), np.ones((1, 1)), np.ones(1))
        >>> value_iteration(loop, discount=0.5).round(6)
        array([[2.]])
    """
    value = np.zeros(len(model.start))
    for _ in range(most):
        actions = model.backup(value, discount)
        moved, value = np.abs(actions.max(1) - value).max(), actions.max(1)
        if moved < tolerance:
            return actions
    raise ValueError(f"values still move after {most} sweeps; is there a reward without an end?")


def optimal_return(model: Model, discount: float = 1.0) -> float:
    """What the best policy brings in expectation, within the limit of steps if there is one."""
    if model.limit is None:
        actions = value_iteration(model, discount)
    else:
        actions = finite_horizon(model, model.limit, discount)[-1]
    return float(model.start @ actions.max(1))
