"""What is read of tasks: their labelled examples, as sequences of embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Readings:
    """What is read of T tasks: padded sequences of labelled embeddings.

    Attributes:
        embeddings: `[T, I, D]`; what lies beyond the length is never read.
        labels: Class of each example `[T, I]`, from 0.
        lengths: Examples of each task `[T]`, at least 1.

    Raises:
        ValueError: If shapes do not fit, a length is out of range, or a number read is not finite.

    Example:
        >>> found = Readings.of([np.ones((2, 3)), np.ones((4, 3))], [[0, 1], [0, 0, 1, 1]])
        >>> found.embeddings.shape, found.lengths, found.classes
        ((2, 4, 3), array([2, 4]), 2)
    """

    embeddings: np.ndarray
    labels: np.ndarray
    lengths: np.ndarray

    def __post_init__(self) -> None:
        count, most = self.embeddings.shape[:2]
        if self.labels.shape != (count, most) or self.lengths.shape != (count,):
            raise ValueError(
                f"embeddings {self.embeddings.shape}, labels {self.labels.shape} and lengths "
                f"{self.lengths.shape} do not fit"
            )
        if (self.lengths < 1).any() or (self.lengths > most).any():
            raise ValueError(f"lengths must be between 1 and {most}")
        read = np.arange(most) < self.lengths[:, None]
        if not np.isfinite(self.embeddings[read]).all():
            raise ValueError("an embedding is not finite")
        if (self.labels[read] < 0).any():
            raise ValueError("a class is negative; number classes from 0")

    @classmethod
    def of(cls, embeddings: Sequence[np.ndarray], labels: Sequence[Sequence[int]]) -> Readings:
        """Pad the sequences of tasks `[I_t, D]` and `[I_t]`."""
        lengths = np.array([len(task) for task in embeddings])
        shape = (len(lengths), int(lengths.max()))
        padded = np.zeros((*shape, embeddings[0].shape[1]), np.float32)
        classes = np.zeros(shape, np.int64)
        for t, (task, named) in enumerate(zip(embeddings, labels, strict=True)):
            padded[t, : len(task)], classes[t, : len(named)] = task, named
        return cls(padded, classes, lengths)

    @property
    def classes(self) -> int:
        """Most classes of a task."""
        read = np.arange(self.labels.shape[1]) < self.lengths[:, None]
        return int(self.labels[read].max()) + 1

    def select(self, rows: np.ndarray | Sequence[int]) -> Readings:
        """Those of some of the tasks."""
        rows = np.asarray(rows, dtype=np.int64)
        return Readings(self.embeddings[rows], self.labels[rows], self.lengths[rows])

    def shuffled(self, classes: int, random: np.random.Generator) -> Readings:
        """The same tasks in another order of examples and with other numbers of their classes.

        Args:
            classes: Numbers there are; those of a task with more classes are shared.
            random: Of orders and numbers.
        """
        count, most = self.labels.shape
        keys = random.random((count, most))
        keys[np.arange(most) >= self.lengths[:, None]] = 2.0  # padding stays behind
        order = keys.argsort(1)
        names = random.random((count, classes)).argsort(1)
        rows = np.arange(count)[:, None]
        # Padding may have any class: it is never read.
        labels = names[rows, self.labels[rows, order] % classes]
        return Readings(self.embeddings[rows, order], labels, self.lengths)
