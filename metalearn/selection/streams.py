"""Streams of rounds for what learns over many of them: B streams side by side, n rounds each.

In a round a stream shows features and who is able, is given a choice and answers with its outcome:

    Pulls   the outcome of arm a is 1 with probability p_a ~ U(0, 1), drawn once a stream
    Rounds  a round is a task of a problem, drawn anew; its outcome is the utility of the choice

Nothing but the outcome of what was chosen is ever shown.
Pulls: Duan et al. 2016, "RL^2: Fast Reinforcement Learning via Slow Reinforcement Learning", 3.1.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np

from metalearn.selection.problem import Problem


class Stream(ABC):
    """B streams of n rounds with A choices and F features a round.

    Attributes:
        choices: A.
        features: F; 0 where a round shows nothing.
        rounds: n.
    """

    choices: int
    features: int
    rounds: int

    @abstractmethod
    def begin(self, count: int, random: np.random.Generator) -> None:
        """Start B = `count` new streams, all of whose randomness comes from `random`."""

    @abstractmethod
    def observe(self) -> tuple[np.ndarray, np.ndarray]:
        """Features `[B, F]` of this round, and who is able `[B, A]`."""

    @abstractmethod
    def outcome(self, choice: np.ndarray) -> np.ndarray:
        """What the choices `[B]` bring `[B]`; the next round begins."""


class Pulls(Stream):
    """Bernoulli arms without features, whose probabilities are uniform.

    Args:
        arms: k.
        rounds: n.

    Raises:
        ValueError: If there is no arm or no round.

    Example:
        >>> pulls = Pulls(arms=5, rounds=10)
        >>> pulls.begin(1000, np.random.default_rng(0))
        >>> total = sum(pulls.outcome(np.zeros(1000, dtype=int)) for _ in range(10))
        >>> total.shape, bool(4.5 < total.mean() < 5.5)
        ((1000,), True)
    """

    features = 0

    def __init__(self, arms: int, rounds: int) -> None:
        if arms < 1 or rounds < 1:
            raise ValueError(f"{arms} arms and {rounds} rounds: both must be at least 1")
        self.choices, self.rounds = arms, rounds

    def begin(self, count: int, random: np.random.Generator) -> None:
        self._random = random
        self._chances = random.random((count, self.choices), dtype=np.float32)
        self._shown = (np.zeros((count, 0), np.float32), np.ones((count, self.choices), bool))

    def observe(self) -> tuple[np.ndarray, np.ndarray]:
        return self._shown

    def outcome(self, choice: np.ndarray) -> np.ndarray:
        chance = self._chances[np.arange(len(choice)), choice]
        return (self._random.random(len(choice), dtype=np.float32) < chance).astype(np.float32)


class Rounds(Stream):
    """The tasks of a problem one after the other, drawn with replacement.

    Args:
        problem: Its tasks; outcomes are the mean utilities over the parts of the queries.
        rounds: n.

    Raises:
        ValueError: If there is no round.
    """

    def __init__(self, problem: Problem, rounds: int) -> None:
        if rounds < 1:
            raise ValueError(f"{rounds} rounds: at least 1 is needed")
        self.rounds = rounds
        self._features = problem.features.astype(np.float32)
        self._able, self._utilities = problem.able, problem.mean.astype(np.float32)
        self.choices, self.features = len(problem.learners), len(problem.feature_names)

    def begin(self, count: int, random: np.random.Generator) -> None:
        self._rows = random.integers(len(self._features), size=(self.rounds, count))
        self._round = 0

    def observe(self) -> tuple[np.ndarray, np.ndarray]:
        rows = self._rows[self._round]
        return self._features[rows], self._able[rows]

    def outcome(self, choice: np.ndarray) -> np.ndarray:
        rows = self._rows[self._round]
        self._round += 1
        return self._utilities[rows, choice]
