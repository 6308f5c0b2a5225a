"""What a policy chooses from: tasks with their features, and what every learner would bring.

For task t and learner a there is a utility u_ta = score_ta - lambda cost_ta, larger is better,
measured on H disjoint parts of the task's query examples.  Two bounds belong to a problem:

    SBS = mean_t u_tb,    b = argmax_a mean_t u_ta over the tasks that a policy was fitted on
    VBS = mean_t (1/H) sum_h u_{t, b(t, h), h},    b(t, h) = argmax_a u_ta on the parts but h

The virtual best is cross-fitted: with one part for both, the maximum over learners of noisy scores
would look like a gap that no policy can close.  With H = 1 nothing is noise (the measured time of a
solver is what counts), and b(t) is the maximum itself.
Single and virtual best: Bischl et al. 2016, "ASlib: A Benchmark Library for Algorithm Selection",
section 4.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from metalearn.selection.readings import Readings

Rows = np.ndarray | Sequence[int]


@dataclass(frozen=True)
class Problem:
    """T tasks, A learners, F features.

    Attributes:
        tasks: Names of the tasks `[T]`.
        sources: Where each task comes from `[T]`: no source is on both sides of a split.
        learners: Names of the learners `[A]`, the cheapest first.
        feature_names: Names of the features `[F]`.
        features: What is known of a task from its support set `[T, F]`.
        utilities: Utility of every learner on each part of the queries `[H, T, A]`; not a number
            where a learner cannot work on a task.
        costs: What a learner takes on a task `[T, A]`, in the unit of the problem.
        tries: What cross-validation on the support set says of a learner `[T, A]`; None: not known.
        readings: The examples of the tasks; None: not known.
        price: lambda, utility that a unit of cost takes away: what a try takes, too.

    Raises:
        ValueError: If shapes do not fit, a feature is not finite, or a task has no learner.

    Example:
        >>> problem = Problem(
        ...     ("one", "two"), ("s", "s"), ("cheap", "dear"), ("ways",), np.array([[2.0], [5.0]]),
        ...     np.array([[[0.5, 0.9], [0.8, 0.6]]]), np.ones((2, 2)),
        ... )
        >>> problem.virtual_best(), problem.mean.mean(0), problem.single_best
        (array([0.9, 0.8]), array([0.65, 0.75]), 1)
    """

    tasks: tuple[str, ...]
    sources: tuple[str, ...]
    learners: tuple[str, ...]
    feature_names: tuple[str, ...]
    features: np.ndarray
    utilities: np.ndarray
    costs: np.ndarray
    tries: np.ndarray | None = None
    readings: Readings | None = None
    price: float = 0.0

    def __post_init__(self) -> None:
        count, size = len(self.tasks), len(self.learners)
        if not count or not size:
            raise ValueError("a problem needs at least one task and one learner")
        wanted = {
            "sources": (len(self.sources), count),
            "features": (self.features.shape, (count, len(self.feature_names))),
            "utilities": (self.utilities.shape[1:], (count, size)),
            "costs": (self.costs.shape, (count, size)),
            "tries": (None if self.tries is None else self.tries.shape, (count, size)),
            "readings": (None if self.readings is None else self.readings.lengths.shape, (count,)),
        }
        for name, (found, expected) in wanted.items():
            if found is not None and found != expected:
                raise ValueError(f"{name} have shape {found}, expected {expected}")
        bad = np.argwhere(~np.isfinite(self.features))
        if len(bad):
            task, feature = self.tasks[bad[0][0]], self.feature_names[bad[0][1]]
            raise ValueError(f"feature {feature} of task {task} is not finite; impute it before")
        lost = np.flatnonzero(~self.able.any(1))
        if len(lost):
            raise ValueError(f"no learner has a utility on task {self.tasks[lost[0]]}")

    @property
    def able(self) -> np.ndarray:
        """Whether a learner has a utility on a task `[T, A]`."""
        return np.asarray(np.isfinite(self.utilities).all(0))

    @property
    def mean(self) -> np.ndarray:
        """Utilities over all parts of the queries `[T, A]`."""
        return self.utilities.mean(0)

    @property
    def scores(self) -> np.ndarray:
        """What tries say `[T, A]`, zero where a learner is not able and nothing is known.

        Raises:
            ValueError: If nothing is known of one that is able.
        """
        if self.tries is None:
            raise ValueError("the problem has no scores of tries; choose from features alone")
        lost = np.argwhere(self.able & ~np.isfinite(self.tries))
        if len(lost):
            task, learner = self.tasks[lost[0][0]], self.learners[lost[0][1]]
            raise ValueError(f"no score of a try of {learner} on task {task}; it has to be known")
        return np.where(np.isfinite(self.tries), self.tries, 0.0)

    @property
    def single_best(self) -> int:
        """The learner with the largest mean utility, of those that are able on every task.

        Raises:
            ValueError: If none is.
        """
        able = self.able.all(0)
        if not able.any():
            raise ValueError("no learner has a utility on every task; widen the portfolio")
        return int(np.argmax(np.where(able, self.mean.mean(0), -np.inf)))

    def virtual_best(self) -> np.ndarray:
        """Utility of the best learner of each task `[T]`, cross-fitted."""
        # The lowest finite numbers would overflow in the sum over parts.
        known = np.where(self.able, self.utilities, -1e30)
        if len(known) == 1:
            return known[0].max(1)
        rows, total = np.arange(len(self.tasks)), known.sum(0)
        return np.mean([part[rows, (total - part).argmax(1)] for part in known], 0)

    def select(self, rows: Rows) -> Problem:
        """The problem of some of the tasks, in the order of `rows`."""
        rows = np.asarray(rows, dtype=np.int64)
        return replace(
            self,
            tasks=tuple(self.tasks[row] for row in rows),
            sources=tuple(self.sources[row] for row in rows),
            features=self.features[rows],
            utilities=self.utilities[:, rows],
            costs=self.costs[rows],
            tries=None if self.tries is None else self.tries[rows],
            readings=None if self.readings is None else self.readings.select(rows),
        )

    def asked(self) -> Problem:
        """The same tasks as they are put to a policy: every outcome of an able learner is 0."""
        return replace(self, utilities=np.where(self.able, 0.0, np.nan)[None])
