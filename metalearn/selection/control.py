"""What reinforcement learning has in common here, for any gymnasium environment of finite actions.

A trainer turns an environment into an actor, and an actor answers an observation with an action.
An environment may say with every observation which actions are possible: `info["action_mask"]`,
zeros and ones `[A]`, as gymnasium's own Taxi does.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Watch = Callable[[Mapping[str, float]], None]
"""Is handed the figures of an update of a training."""
Mask = NDArray[np.bool_]


class Actor(ABC):
    """Acts in an environment it was trained for."""

    def start(self) -> None:
        """A new episode begins; what remembers nothing has nothing to do."""
        return

    @abstractmethod
    def act(self, observation: Any, mask: Mask) -> int:
        """An action that is possible.

        Args:
            observation: What the environment shows.
            mask: Which actions are possible `[A]`.
        """

    def values(self) -> dict[str, np.ndarray]:
        """What it was trained to, by name; empty where training again takes seconds."""
        return {}


class Trainer(ABC):
    """Learns to act; all randomness comes from the seed."""

    @abstractmethod
    def train(self, environment: Any, seed: int, watch: Watch | None = None) -> Actor:
        """Learn from episodes of a gymnasium environment, or from its model.

        Args:
            environment: With `Discrete` actions.
            seed: Of its own chance and of the environment's.
            watch: Is handed figures as training goes on.
        """

    def restore(self, environment: Any, values: dict[str, np.ndarray]) -> Actor:
        """The actor that had these values, in an environment like the one it was trained in.

        Raises:
            TypeError: If its actors keep none.
        """
        raise TypeError(f"{type(self).__name__} keeps no values; train it again")


def actions_of(environment: Any) -> int:
    """Number of actions.

    Raises:
        ValueError: If they are not finitely many.
    """
    count = getattr(environment.action_space, "n", None)
    if count is None:
        raise ValueError(f"actions {environment.action_space} are not Discrete")
    return int(count)


def chance(seed: int) -> np.random.Generator:
    """The chance of a trainer: not the numbers that an environment of this seed draws."""
    return np.random.default_rng((seed, 1))


def mask_of(info: Mapping[str, Any], actions: int) -> Mask:
    """Which actions are possible: all of them, where the environment does not say."""
    return np.asarray(info.get("action_mask", np.ones(actions)), dtype=bool)


def vector_of(environment: Any) -> Callable[[Any], np.ndarray]:
    """How observations become vectors: one of n becomes onehot, numbers stay.

    Raises:
        ValueError: If observations are neither `Discrete` nor a `Box` of one axis.
    """
    space = environment.observation_space
    if hasattr(space, "n"):
        return np.eye(int(space.n), dtype=np.float32).__getitem__
    if space.shape is None or len(space.shape) != 1:
        raise ValueError(f"observations {space} are neither Discrete nor a Box of one axis")
    return lambda observation: np.asarray(observation, dtype=np.float32)


def size_of(environment: Any) -> int:
    """Length of those vectors."""
    space = environment.observation_space
    return int(space.n) if hasattr(space, "n") else int(space.shape[0])


def returns(actor: Actor, environment: Any, episodes: int, seed: int) -> np.ndarray:
    """Undiscounted return of an actor in each of some episodes `[episodes]`."""
    found, actions = np.zeros(episodes), actions_of(environment)
    for episode in range(episodes):
        observation, info = environment.reset(seed=seed if not episode else None)
        actor.start()
        ended = False
        while not ended:
            action = actor.act(observation, mask_of(info, actions))
            observation, reward, terminated, truncated, info = environment.step(action)
            found[episode] += reward
            ended = terminated or truncated
    return found
