"""Sinusoid regression: the smallest family on which adaptation can be told from memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from tasks.episode import (
    Batch,
    Episode,
    EpisodeShape,
    Example,
    LabelKind,
    SplitName,
    Task,
    TaskError,
    TaskFamily,
)

Range = tuple[float, float]


@dataclass(frozen=True)
class Sinusoid(TaskFamily):
    """Tasks y = A sin(w x - b), each with its own A, w and b drawn uniformly.

    The defaults are those of MAML (w = 1).  The family is continuous, so its meta-splits share
    a distribution but no task: `TaskStream` seeds them differently.  Record ids are positions
    within the task, support first.

    Attributes:
        name: Unique name of the family.
        amplitude: Range of A.
        phase: Range of b, in radians.
        frequency: Range of w, in radians a unit of x.
        inputs: Range of x.

    Example:
        >>> task = Sinusoid().draw("train", EpisodeShape(shots=5), np.random.default_rng(0))
        >>> len(task.support), len(task.query), len(task.support[0].inputs)
        (5, 5, 1)

    Source: Finn et al. 2017, "Model-Agnostic Meta-Learning", sec. 5.1; a frequency range and
    y = A sin(w x + b): Li et al. 2017, "Meta-SGD", sec. 4.1 (phase=(-pi, 0) gives their sign).
    """

    name: str = "sinusoid"
    amplitude: Range = (0.1, 5.0)
    phase: Range = (0.0, math.pi)
    frequency: Range = (1.0, 1.0)
    inputs: Range = (-5.0, 5.0)
    kind: LabelKind = field(default="value", init=False)

    def __post_init__(self) -> None:
        for name in ("amplitude", "phase", "frequency", "inputs"):
            low, high = getattr(self, name)
            if not low <= high:
                raise TaskError(f"{self.name!r}: {name} ({low}, {high}) must be (low, high)")

    def classes(self, split: SplitName) -> tuple[str, ...]:
        """No classes."""
        return ()

    def draw(self, split: SplitName, shape: EpisodeShape, random: np.random.Generator) -> Task:
        """One sinusoid with K support and Q query points."""
        _, shots, queries = shape.draw(random)
        x, y = self._curves(shots, queries, lambda count: random.random((1, count)))
        points = tuple(
            Example(i, inputs=(a,), values=(b,))
            for i, (a, b) in enumerate(zip(x[0].tolist(), y[0].tolist(), strict=True))
        )
        return Task(self.name, self.kind, points[:shots], points[shots:])

    def draw_episode(
        self,
        split: SplitName,
        shape: EpisodeShape,
        numbers: Callable[[int], np.ndarray],
        indices: Sequence[int],
    ) -> Episode | None:
        shots = shape.shots
        # Tasks of different sizes are padded by the collator, and so are empty sets.
        if not isinstance(shots, int) or not isinstance(shape.ways, int):
            return None
        if min(shots, shape.queries, len(indices)) < 1:
            return None
        x, y = self._curves(shots, shape.queries, numbers)
        points = [torch.from_numpy(z.astype(np.float32)).unsqueeze(-1) for z in (x, y)]
        ids = torch.arange(x.shape[1]).expand(x.shape)
        support = self._batch(ids[:, :shots], *(z[:, :shots] for z in points))
        query = self._batch(ids[:, shots:], *(z[:, shots:] for z in points))
        return Episode(tuple(indices), support, query)

    def _curves(
        self, shots: int, queries: int, numbers: Callable[[int], np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray]:
        """x and y `[T, K + Q]` of a sinusoid a task."""
        points = shots + queries
        if shots < 0 or queries < 0 or not points:
            raise TaskError(f"{self.name!r}: {shots} shots and {queries} queries make no task")
        ranges = [self.amplitude, self.phase, self.frequency, *[self.inputs] * points]
        low, high = np.array(ranges).T
        drawn = low + (high - low) * numbers(3 + points)
        amplitude, phase, frequency = drawn[:, :3].T[..., None]
        x = drawn[:, 3:]
        # y = A sin(w x - b)
        return x, amplitude * np.sin(frequency * x - phase)

    def _batch(self, ids: Tensor, inputs: Tensor, values: Tensor) -> Batch:
        tasks = len(ids)
        return Batch(
            source=(self.name,) * tasks,
            kind=self.kind,
            ids=ids,
            example_mask=torch.ones(ids.shape, dtype=torch.bool),
            class_mask=torch.zeros(tasks, 0, dtype=torch.bool),
            class_ids=torch.zeros(tasks, 0, dtype=torch.int64),
            label_names=((),) * tasks,
            inputs=inputs,
            values=values,
        )
