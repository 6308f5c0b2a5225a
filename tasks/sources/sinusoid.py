"""Sinusoid regression: the smallest family on which adaptation can be told from memory."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from tasks.episode import EpisodeShape, Example, LabelKind, SplitName, Task, TaskError, TaskFamily

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
        if shots < 0 or queries < 0 or shots + queries == 0:
            raise TaskError(f"{self.name!r}: {shots} shots and {queries} queries make no task")
        amplitude = random.uniform(*self.amplitude)
        phase = random.uniform(*self.phase)
        frequency = random.uniform(*self.frequency)
        x = random.uniform(*self.inputs, size=shots + queries)
        # y = A sin(w x - b)
        y = amplitude * np.sin(frequency * x - phase)
        points = tuple(
            Example(i, inputs=(float(a),), values=(float(b),))
            for i, (a, b) in enumerate(zip(x, y, strict=True))
        )
        return Task(self.name, self.kind, points[:shots], points[shots:])
