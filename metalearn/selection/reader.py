"""A recurrent policy that reads a task: its examples one after the other, then a choice.

    h_i = GRU([e_i, onehot(y_i)], h_{i-1}),    pi = softmax(W h_I)          who is not able has zero
    maximize mean_t sum_a pi_{t, a} u_{t, a}                                  the expected utility

e_i is the embedding of example i of the support set `[D]` and y_i its class; every utility of a
training task is known, so that the gradient is exact, without a draw.  Class numbers carry no
meaning, and the order of examples none: both are shuffled anew at every update, and a choice is
made on the mean of pi over a few orders.  The recurrent reading of a labelled support set is that
of Santoro et al. 2016, "Meta-Learning with Memory-Augmented Neural Networks", section 3; here it
answers with a learner and not with labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from metalearn.selection.control import Watch
from metalearn.selection.scale import LIMIT


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
        """The same tasks in another order of examples and with other numbers of their classes."""
        count, most = self.labels.shape
        keys = random.random((count, most))
        keys[np.arange(most) >= self.lengths[:, None]] = 2.0  # padding stays behind
        order = keys.argsort(1)
        names = random.random((count, classes)).argsort(1)
        rows = np.arange(count)[:, None]
        # Padding may have any class: it is never read.
        labels = names[rows, np.clip(self.labels[rows, order], 0, classes - 1)]
        return Readings(self.embeddings[rows, order], labels, self.lengths)


class Network(nn.Module):
    """Reads and chooses.

    Args:
        size: D.
        classes: Most classes of a task.
        choices: A.
        width: Numbers in the memory.
    """

    def __init__(self, size: int, classes: int, choices: int, width: int) -> None:
        super().__init__()
        self.classes = classes
        self.memory = nn.GRU(size + classes, width, batch_first=True)
        self.policy = nn.Linear(width, choices)
        nn.init.zeros_(self.policy.weight)
        nn.init.zeros_(self.policy.bias)

    def forward(self, read: Readings, able: Tensor) -> Tensor:
        """Probabilities of choices `[T, A]`."""
        named = nn.functional.one_hot(torch.from_numpy(read.labels), self.classes).float()
        states, _ = self.memory(torch.cat([torch.from_numpy(read.embeddings), named], 2))
        last = states[torch.arange(len(states)), torch.from_numpy(read.lengths) - 1]
        return torch.softmax(self.policy(last).masked_fill(~able, -torch.inf), 1)


class Reader:
    """Chooses the learner of a task from its examples.

    Args:
        updates: Gradient steps.
        tasks: Tasks a step.
        width: Numbers in the memory.
        rate: Of Adam, falling to zero in a line.
        decay: Weight decay.
        orders: Orders of the examples that a choice is made on.
        watch: Is handed {update, outcome} of every update; the outcome is the expected utility as
            a share of the way from the mean to the best utility of each task.
    """

    def __init__(
        self,
        updates: int = 500,
        tasks: int = 64,
        width: int = 32,
        rate: float = 3e-3,
        decay: float = 1e-2,
        orders: int = 8,
        watch: Watch | None = None,
    ) -> None:
        self._updates, self._tasks, self._width = updates, tasks, width
        self._rate, self._decay, self._orders, self._watch = rate, decay, orders, watch

    def fit(self, readings: Readings, utilities: np.ndarray, seed: int) -> None:
        """Learn from tasks of which every utility is known.

        Args:
            readings: Of T tasks.
            utilities: `[T, A]`; not a number where a learner is not able.
            seed: Of weights, batches and orders.

        Raises:
            ValueError: If there are not as many tasks on both sides.
        """
        if len(readings.lengths) != len(utilities):
            raise ValueError(f"{len(readings.lengths)} readings, {len(utilities)} utilities")
        self._seed, random = seed, np.random.default_rng(seed)
        read = np.arange(readings.labels.shape[1]) < readings.lengths[:, None]
        met = readings.embeddings[read]
        self._mean, self._deviation = met.mean(0), met.std(0) + 1e-6
        scaled = self._scaled(readings)
        # A task on which all learners are alike has nothing to say about choosing.
        able = np.isfinite(utilities)
        gains = utilities - np.nanmean(utilities, 1, keepdims=True)
        unit = np.nanmean(np.nanmax(gains, 1)) or 1.0
        gain = torch.from_numpy(np.where(able, gains / unit, 0.0).astype(np.float32))
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(seed)
            self.network = Network(
                scaled.embeddings.shape[2], scaled.classes, utilities.shape[1], self._width
            )
        optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=self._rate, weight_decay=self._decay
        )
        for update in range(self._updates):
            for group in optimizer.param_groups:
                group["lr"] = self._rate * (1 - update / self._updates)
            rows = random.permutation(len(able))[: self._tasks]
            drawn = scaled.select(rows).shuffled(self.network.classes, random)
            chances = self.network(drawn, torch.from_numpy(able[rows]))
            # mean_t sum_a pi_{t, a} u_{t, a}
            expected = (chances * gain[rows]).sum(1).mean()
            optimizer.zero_grad()
            (-expected).backward()
            nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
            optimizer.step()
            if self._watch is not None:
                self._watch({"update": update + 1, "outcome": expected.item()})

    def chances(self, readings: Readings, able: np.ndarray) -> np.ndarray:
        """Probabilities of choices `[T, A]`, the mean over orders of the examples.

        Args:
            readings: Of T tasks.
            able: `[T, A]`.

        Raises:
            ValueError: If a task has more classes than those of training.
        """
        if readings.classes > self.network.classes:
            raise ValueError(
                f"a task has {readings.classes} classes, more than the {self.network.classes} of "
                "training; train on tasks with as many"
            )
        random, scaled = np.random.default_rng(self._seed), self._scaled(readings)
        able_TA = torch.from_numpy(np.asarray(able, bool))
        with torch.no_grad():
            found = [
                self.network(scaled.shuffled(self.network.classes, random), able_TA)
                for _ in range(self._orders)
            ]
        return torch.stack(found).mean(0).numpy()

    def choose(self, readings: Readings, able: np.ndarray) -> np.ndarray:
        """The likeliest learner of each task `[T]`."""
        return self.chances(readings, able).argmax(1)

    def _scaled(self, readings: Readings) -> Readings:
        scaled = np.clip((readings.embeddings - self._mean) / self._deviation, -LIMIT, LIMIT)
        return Readings(scaled.astype(np.float32), readings.labels, readings.lengths)
