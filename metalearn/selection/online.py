"""What policies share that learn from the outcomes of their own choices alone.

Fitting is using: training tasks go by in an order of the seed, each is chosen for, and only the
outcome of that choice is told.  `choose` and `learn` go on from there on new tasks.  Where nothing
is learned any more, exploring would be in vain: `choose_all` takes what is expected to be best.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable

import numpy as np

from metalearn.selection.policy import Policy
from metalearn.selection.problem import Problem
from metalearn.selection.scale import Scale, Unit


class Online(Policy):
    """A bandit: features `[F]` in, choice out, and one outcome in [0, 1] back.

    Attributes:
        random: Where its chance comes from.
        rounds: Outcomes told so far.
    """

    online = True
    random: np.random.Generator
    rounds: int

    def start(self, choices: int, features: int, seed: int) -> None:
        """Know nothing: features and outcomes are taken as they are.

        Args:
            choices: A.
            features: F.
            seed: Of its chance.
        """
        self.random, self.rounds = np.random.default_rng(seed), 0
        self._scale: Callable[[np.ndarray], np.ndarray] = np.asarray
        self._unit: Callable[[float], float] = float
        self._begin(choices, features)

    def fit(self, problem: Problem, seed: int) -> None:
        self.start(len(problem.learners), len(problem.feature_names), seed)
        self._scale, self._unit = Scale.of(problem.features), Unit.of(problem)
        able, utilities = problem.able, problem.mean
        for row in self.random.permutation(len(problem.tasks)):
            choice = self.choose(problem.features[row], able[row])
            self.learn(problem.features[row], choice, float(utilities[row, choice]))

    def choose(self, features: np.ndarray, able: np.ndarray) -> int:
        worth = self._worth(self._scale(features), able)
        return int(np.argmax(np.where(able, worth, -np.inf)))

    def choose_all(self, features: np.ndarray, able: np.ndarray) -> np.ndarray:
        """A learner for each of T tasks `[T]`, between which nothing is learned.

        Args:
            features: `[T, F]`.
            able: `[T, A]`.
        """
        expected = np.stack([self._expected(self._scale(row)) for row in features])
        return np.where(able, expected, -np.inf).argmax(1)

    def learn(self, features: np.ndarray, choice: int, utility: float) -> None:
        self.rounds += 1
        self._note(self._scale(features), choice, self._unit(utility))

    @abstractmethod
    def _begin(self, choices: int, features: int) -> None:
        """Know nothing of A choices and F features."""

    @abstractmethod
    def _worth(self, features: np.ndarray, able: np.ndarray) -> np.ndarray:
        """What to take the largest of `[A]` while learning, among those that are able."""

    @abstractmethod
    def _expected(self, features: np.ndarray) -> np.ndarray:
        """What to take the largest of `[A]` when nothing more is learned."""

    @abstractmethod
    def _note(self, features: np.ndarray, choice: int, outcome: float) -> None:
        """Take note of an outcome."""


class Tally:
    """Counts of a context-free bandit, for one stream or for B of them side by side.

    Attributes:
        pulls: How often each arm was chosen `[..., A]`.
        sums: Sum of its outcomes `[..., A]`.
        squares: Sum of their squares `[..., A]`.
    """

    def __init__(self, *shape: int) -> None:
        self.pulls, self.sums, self.squares = (np.zeros(shape) for _ in range(3))

    @property
    def means(self) -> np.ndarray:
        """Expected outcomes `[..., A]` after a uniform prior: one half where nothing is known."""
        return (self.sums + 1) / (self.pulls + 2)

    def note(self, choice: np.ndarray | int, outcome: np.ndarray | float) -> None:
        """Add outcomes `[...]` of the choices `[...]`."""
        at = (choice,) if self.pulls.ndim == 1 else (np.arange(len(self.pulls)), choice)
        self.pulls[at] += 1
        self.sums[at] += outcome
        self.squares[at] += np.square(outcome)
