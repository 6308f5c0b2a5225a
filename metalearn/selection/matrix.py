"""The performance matrix: what every learner brings on every task, and what it costs.

    utility_hta = accuracy_hta - lambda cost_ta

for part h of the queries of task t and learner a; the cost is counted in passes or in seconds.  A
learner that cannot work on a task has no utility there.  A cell that was not measured is another
matter: it is refused, or marginalized over the other cells,

    u_hta ~ mean_a' u_hta' + mean_t' (u_ht'a - mean_a' u_ht'a'),

the mean of the task and what the learner is above the mean elsewhere, both over measured cells.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from metalearn.selection.problem import Problem

Cost = Literal["passes", "seconds"]
Missing = Literal["refuse", "marginalize"]


@dataclass(frozen=True)
class Matrix:
    """T tasks, A learners, F features, H parts of the queries.

    Attributes:
        tasks: Names of the tasks `[T]`.
        sources: Where each comes from `[T]`.
        learners: Names of the learners `[A]`, the cheapest first.
        accuracy: On each part of the queries `[H, T, A]`; NaN where there is none.
        passes: What adapting and predicting takes, in passes through the backbone `[T, A]`.
        seconds: What adapting and predicting took `[T, A]`.
        tries: Cross-validated accuracy on the support `[T, A]`.
        unable: Where a learner cannot work on a task `[T, A]`.
        feature_names: `[F]`.
        features: Of the support sets `[T, F]`.
    """

    tasks: tuple[str, ...]
    sources: tuple[str, ...]
    learners: tuple[str, ...]
    accuracy: np.ndarray
    passes: np.ndarray
    seconds: np.ndarray
    tries: np.ndarray
    unable: np.ndarray
    feature_names: tuple[str, ...]
    features: np.ndarray

    def problem(self, weight: float, cost: Cost = "passes", missing: Missing = "refuse") -> Problem:
        """What policies choose from.

        Args:
            weight: lambda, utility that a unit of cost takes away.
            cost: Its unit.
            missing: What to do about a cell that was not measured.

        Raises:
            ValueError: If one is missing and refused, or its learner or task has none to go by.

        Example:
            >>> full = np.ones((1, 2))
            >>> matrix = Matrix(
            ...     ("t",), ("s",), ("one", "two"), np.array([[[0.5, 0.8]]]), full, full, full,
            ...     full == 0, ("ways",), np.ones((1, 1)),
            ... )
            >>> matrix.problem(0.1).utilities.round(2)
            array([[[0.4, 0.7]]])
        """
        costs = self.passes if cost == "passes" else self.seconds
        # utility = accuracy - lambda cost
        utilities = self.accuracy - weight * costs
        lost = (np.isnan(utilities).any(0) | np.isnan(self.tries)) & ~self.unable
        tries = self.tries
        if lost.any():
            if missing == "refuse":
                task, learner = (int(place) for place in np.argwhere(lost)[0])
                raise ValueError(
                    f"no cell of learner {self.learners[learner]} on task {self.tasks[task]}, and "
                    f"{lost.sum() - 1} more are missing; go on with the matrix, or marginalize"
                )
            utilities = np.stack([self._filled(part, lost) for part in utilities])
            tries, costs = self._filled(tries, lost), self._filled(costs, lost)
        return Problem(
            self.tasks,
            self.sources,
            self.learners,
            self.feature_names,
            self.features,
            np.where(self.unable, np.nan, utilities),
            costs,
            tries,
            price=weight,
        )

    def _filled(self, values: np.ndarray, lost: np.ndarray) -> np.ndarray:
        """`[T, A]` with the sum of both margins in the lost cells."""
        known = np.where(lost | self.unable, np.nan, values)
        for axis, names in ((1, self.tasks), (0, self.learners)):
            empty = np.flatnonzero(np.isnan(known).all(axis) & lost.any(axis))
            if len(empty):
                raise ValueError(f"no cell of {names[empty[0]]} is measured; none can be filled in")
        safe = np.where(np.isnan(known), 0.0, known)
        there = ~np.isnan(known)
        task = safe.sum(1, keepdims=True) / np.maximum(there.sum(1, keepdims=True), 1)
        above = np.where(there, safe - task, 0.0).sum(0) / np.maximum(there.sum(0), 1)
        return np.where(lost, task + above, values)
