"""Reinforcement learning as a way to choose: an actor of `Search`, judged like any policy.

With `most` = 1 it chooses from the features alone.  With more it tries learners before it answers:
it sees their cross-validated scores, and pays for them what the problem says that costs.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from metalearn.selection.control import Actor, Trainer, Watch
from metalearn.selection.environment import Search
from metalearn.selection.policy import Answers, Policy
from metalearn.selection.problem import Problem
from metalearn.selection.scale import Unit


class Searcher(Policy):
    """Chooses as a trained actor does.

    Args:
        trainer: How it is trained: `Reinforce`, `TemporalDifference` or `PPO`.
        budget: See `Search`.
        most: See `Search`.
        watch: Is handed the figures of the training.
    """

    def __init__(
        self,
        trainer: Trainer,
        budget: float = np.inf,
        most: int | None = 1,
        watch: Watch | None = None,
    ) -> None:
        self._trainer, self._watch = trainer, watch
        self._budget, self._most = budget, most

    def fit(self, problem: Problem, seed: int) -> None:
        self._reference, unit = problem, Unit.of(problem)
        # Trainers are at home with rewards between 0 and 1.
        scaled = unit.problem(problem, problem.features)
        environment = Search(scaled, self._budget, self._most)
        self._actor: Actor = self._trainer.train(environment, seed, self._watch)

    def trained(self) -> dict[str, np.ndarray]:
        return self._actor.values()

    def restore(self, problem: Problem, seed: int, trained: dict[str, np.ndarray]) -> None:
        if not trained:
            self.fit(problem, seed)
            return
        self._reference = problem
        environment = Search(problem, self._budget, self._most)
        self._actor = self._trainer.restore(environment, trained)

    def choose(self, features: np.ndarray, able: np.ndarray) -> int:
        """A learner for a task from its features alone; whatever is able is affordable.

        Raises:
            ValueError: If it tries more than one learner: it has to see their scores.
        """
        if self._most != 1:
            raise ValueError("a searcher of several tries has to `answer`; or give most=1")
        task = replace(
            self._reference.select([0]),
            features=features[None],
            utilities=np.where(able, 0.0, np.nan)[None, None],
            costs=np.zeros((1, len(able))),
        )
        return int(self.answer(task).choices[0])

    def answer(self, problem: Problem) -> Answers:
        environment = Search(problem, self._budget, self._most, self._reference)
        count, size = len(problem.tasks), len(problem.learners)
        choices, tried = np.zeros(count, np.int64), np.zeros((count, size), np.int64)
        for task in range(count):
            observation, info = environment.reset(options={"task": task})
            self._actor.start()
            ended = False
            while not ended:
                action = self._actor.act(observation, info["action_mask"].astype(bool))
                # With one try there is no score to see: it is a choice, and costs nothing.
                if self._most != 1 and action < size and info["action_mask"][action]:
                    tried[task, action] = tried[task].max() + 1
                observation, _, ended, _, info = environment.step(action)
            choices[task] = info["answer"]
        return Answers(choices, tried)
