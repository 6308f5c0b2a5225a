"""Reinforcement learning as a way to choose: an actor of `Search`, judged like any policy.

With `most` = 1 it is a policy: a choice from the features alone.  With more it tries learners
before it answers, and `search` says of each task what was answered and what that brought after
costs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from metalearn.selection.control import Actor, Trainer, Watch
from metalearn.selection.environment import Search
from metalearn.selection.policy import Policy
from metalearn.selection.problem import Problem
from metalearn.selection.scale import Unit


@dataclass(frozen=True)
class Answers:
    """What searches ended with, task by task.

    Attributes:
        choices: The learner that was taken `[T]`.
        utilities: Its utility less the price of what was tried `[T]`.
        tried: How many learners were tried `[T]`.
        spent: Cost of what was tried `[T]`.
    """

    choices: np.ndarray
    utilities: np.ndarray
    tried: np.ndarray
    spent: np.ndarray


class Searcher(Policy):
    """Chooses as a trained actor does.

    Args:
        trainer: How it is trained: `Reinforce`, `TemporalDifference` or `PPO`.
        budget: See `Search`.
        most: See `Search`.
        price: See `Search`.
        watch: Is handed the figures of the training.
    """

    def __init__(
        self,
        trainer: Trainer,
        budget: float = np.inf,
        most: int | None = 1,
        price: float = 0.0,
        watch: Watch | None = None,
    ) -> None:
        self._trainer, self._watch = trainer, watch
        self._budget, self._most, self._price = budget, most, price

    def fit(self, problem: Problem, seed: int) -> None:
        self._reference, unit = problem, Unit.of(problem)
        # Trainers are at home with rewards between 0 and 1.
        scaled = unit.problem(problem, problem.features)
        price = self._price / (unit.high - unit.low)
        environment = Search(scaled, self._budget, self._most, price)
        self._actor: Actor = self._trainer.train(environment, seed, self._watch)

    def trained(self) -> dict[str, np.ndarray]:
        return self._actor.values()

    def restore(self, problem: Problem, seed: int, trained: dict[str, np.ndarray]) -> None:
        if not trained:
            self.fit(problem, seed)
            return
        self._reference = problem
        environment = Search(problem, self._budget, self._most, self._price)
        self._actor = self._trainer.restore(environment, trained)

    def choose(self, features: np.ndarray, able: np.ndarray) -> int:
        """A learner for a task from its features alone; whatever is able is affordable.

        Raises:
            ValueError: If it tries more than one learner: a task must be searched.
        """
        if self._most != 1:
            raise ValueError("a searcher of several tries chooses by `search` only; give most=1")
        size = len(able)
        task = Problem(
            ("task",),
            ("task",),
            self._reference.learners,
            self._reference.feature_names,
            features[None],
            np.where(able, 0.0, np.nan)[None, None],
            np.zeros((1, size)),
        )
        return int(self.search(task).choices[0])

    def search(self, problem: Problem) -> Answers:
        """Search for a learner for every task of a problem."""
        environment = Search(problem, self._budget, self._most, self._price, self._reference)
        found = []
        for task in range(len(problem.tasks)):
            observation, info = environment.reset(options={"task": task})
            self._actor.start()
            reward, ended, tried = 0.0, False, 0
            while not ended:
                action = self._actor.act(observation, info["action_mask"].astype(bool))
                tried += action < len(problem.learners) and bool(info["action_mask"][action])
                observation, reward, ended, _, info = environment.step(action)
            found.append((info["answer"], reward, tried, info["spent"]))
        choices, utilities, tried, spent = (np.array(part) for part in zip(*found, strict=True))
        return Answers(choices, utilities, tried, spent)
