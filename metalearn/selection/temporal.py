"""Q-learning and Sarsa: values of actions from temporal differences, tabular or linear.

Watkins 1989, "Learning from Delayed Rewards"; Rummery and Niranjan 1994, "On-line Q-learning using
Connectionist Systems"; Sutton and Barto 2018, "Reinforcement Learning", sections 6.4, 6.5 and 10.1.

    q(s, a) = w_a . phi(s),      w_a <- w_a + alpha (r + g target(s') - q(s, a)) phi(s)
    target(s') = q(s', a')             Sarsa: the action a' that is taken next
    target(s') = max_b q(s', b)        Q-learning: the best one

Actions are epsilon-greedy.  phi is onehot in the state, or in the nearest of `cells` centres of
observations (both tabular), or [1, observation] / |[1, observation]| (linear).  Where an episode
ends by its nature there is no target; where it is cut off, there is.  Deviation: the next action of
Q-learning is picked before the update, as Sarsa's must be; it matters where a step leads nowhere.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from metalearn.selection.control import (
    Actor,
    Mask,
    Trainer,
    Watch,
    actions_of,
    chance,
    mask_of,
    vector_of,
)

Method = Literal["q-learning", "sarsa"]
Phi = Callable[[Any], np.ndarray]
EXPLORED = 200
"""Episodes at random from which the centres of cells are made."""


class Greedy(Actor):
    """Takes the possible action of the largest value.

    Attributes:
        weights: `[A, D]`.
        phi: Observation to `[D]`.
    """

    def __init__(self, weights: np.ndarray, phi: Phi) -> None:
        self.weights, self.phi = weights, phi

    def act(self, observation: Any, mask: Mask) -> int:
        return int(np.argmax(np.where(mask, self.weights @ self.phi(observation), -np.inf)))


@dataclass(frozen=True)
class TemporalDifference(Trainer):
    """Learns values of actions while acting.

    Attributes:
        method: Which target.
        episodes: Of training.
        rate: alpha; where it falls, its value at first.
        explore: epsilon.
        discount: g.
        cells: Centres for observations that are numbers; 0: linear.
        falling: Whether the rate of an action in a state is alpha / visits ^ 0.8, so that values
            converge (tabular only), and not a constant.

    Raises:
        ValueError: If the method is another, or a falling rate is asked of linear values.
    """

    method: Method = "q-learning"
    episodes: int = 2000
    rate: float = 0.1
    explore: float = 0.1
    discount: float = 1.0
    cells: int = 32
    falling: bool = False

    def __post_init__(self) -> None:
        if self.method not in ("q-learning", "sarsa"):
            raise ValueError(f"method {self.method!r} is neither q-learning nor sarsa")

    def train(self, environment: Any, seed: int, watch: Watch | None = None) -> Greedy:
        random, actions = chance(seed), actions_of(environment)
        environment.reset(seed=seed)
        phi = self._phi(environment, random)
        observation, info = environment.reset(seed=seed)
        tabular = hasattr(environment.observation_space, "n") or self.cells > 0
        if self.falling and not tabular:
            raise ValueError("a falling rate is for tables; give cells, or falling=False")
        weights = np.zeros((actions, len(phi(observation))))
        visits = np.zeros_like(weights)

        def pick(values: np.ndarray, mask: Mask) -> int:
            if random.random() < self.explore:
                return int(random.choice(np.flatnonzero(mask)))
            best = np.where(mask, values, -np.inf)
            ties = np.flatnonzero(best == best.max())
            return int(ties[0] if len(ties) == 1 else random.choice(ties))

        for episode in range(self.episodes):
            if episode:
                observation, info = environment.reset()
            state, mask = phi(observation), mask_of(info, actions)
            action = pick(weights @ state, mask)
            total, ended = 0.0, False
            while not ended:
                observation, reward, terminated, truncated, info = environment.step(action)
                following, mask = phi(observation), mask_of(info, actions)
                values = weights @ following
                chosen = pick(values, mask)
                # max_b q(s', b) or q(s', a')
                ahead = values[mask].max() if self.method == "q-learning" else values[chosen]
                target = reward + (0.0 if terminated else self.discount * ahead)
                visits[action] += state
                fall = (visits[action] @ state) ** -0.8 if self.falling else 1.0
                # w_a <- w_a + alpha (r + g target(s') - q(s, a)) phi(s)
                weights[action] += self.rate * fall * (target - weights[action] @ state) * state
                state, action = following, chosen
                total, ended = total + float(reward), terminated or truncated
            if watch is not None:
                watch({"update": episode + 1, "outcome": total})
        return Greedy(weights, phi)

    def _phi(self, environment: Any, random: np.random.Generator) -> Phi:
        vector = vector_of(environment)
        if hasattr(environment.observation_space, "n"):
            return vector
        if not self.cells:

            def linear(observation: Any) -> np.ndarray:
                one = np.append(1.0, vector(observation))
                return one / np.linalg.norm(one)

            return linear
        centres = _centres(environment, vector, self.cells, random)
        onehot = np.eye(len(centres))
        return lambda observation: onehot[np.square(centres - vector(observation)).sum(1).argmin()]


def _centres(environment: Any, vector: Phi, count: int, random: np.random.Generator) -> np.ndarray:
    """Centres of what random actions meet `[cells, D]`."""
    from sklearn.cluster import KMeans

    met, actions = [], actions_of(environment)
    for _ in range(EXPLORED):
        observation, info = environment.reset()
        ended = False
        while not ended:
            met.append(vector(observation))
            action = random.choice(np.flatnonzero(mask_of(info, actions)))
            observation, _, terminated, truncated, info = environment.step(int(action))
            ended = terminated or truncated
    points = np.unique(np.stack(met), axis=0)
    if len(points) <= count:
        return points
    seed = int(random.integers(2**31))
    return KMeans(count, n_init="auto", random_state=seed).fit(points).cluster_centers_
