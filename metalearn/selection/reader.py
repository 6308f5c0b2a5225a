"""A recurrent policy that reads a task: its examples one after the other, then a choice.

    h_i = GRU([e_i, onehot(y_i)], h_{i-1}),    pi = softmax(W h_I)          who is not able has zero
    maximize mean_t sum_a pi_{t, a} u_{t, a}                                  the expected utility

e_i is the embedding of example i of the support set `[D]` and y_i its class; every utility of a
training task is known, so that the gradient is exact, without a draw.  Class numbers carry no
meaning, and the order of examples none: both are shuffled anew at every update, and a choice is
made on the mean of pi over a few orders.  The recurrent reading of a labelled support set is that
of Santoro et al. 2016, "Meta-Learning with Memory-Augmented Neural Networks", section 3; here it
answers with a learner and not with labels.

1. Where a task has more classes than any of training, some of them share a number.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from metalearn.selection.control import Watch
from metalearn.selection.policy import Answers, Examiner
from metalearn.selection.problem import Problem
from metalearn.selection.readings import Readings
from metalearn.selection.scale import LIMIT


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
        shown = torch.cat([torch.from_numpy(read.embeddings), named], 2)
        lengths = torch.from_numpy(read.lengths)
        # Packed, so that nothing is computed beyond the length of a task.
        packed = pack_padded_sequence(shown, lengths, batch_first=True, enforce_sorted=False)
        _, last = self.memory(packed)
        return torch.softmax(self.policy(last[0]).masked_fill(~able, -torch.inf), 1)


class Reader(Examiner):
    """Chooses the likeliest learner of a task from its examples.

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

    def fit(self, problem: Problem, seed: int) -> None:
        """Start afresh and learn from tasks of which every utility is known.

        Raises:
            ValueError: If the problem has no readings.
        """
        readings, utilities = _readings(problem), np.where(problem.able, problem.mean, np.nan)
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
        self.network.requires_grad_(False)

    def answer(self, problem: Problem) -> Answers:
        """The likeliest learner of each task, from the examples; nothing is tried.

        Raises:
            ValueError: If the problem has no readings.
        """
        choices = self.chances(_readings(problem), problem.able).argmax(1)
        return Answers(choices, np.zeros(problem.able.shape, np.int64))

    def chances(self, readings: Readings, able: np.ndarray) -> np.ndarray:
        """Probabilities of choices `[T, A]`, the mean over orders of the examples.

        Args:
            readings: Of T tasks.
            able: `[T, A]`.
        """
        random, scaled = np.random.default_rng(self._seed), self._scaled(readings)
        able_TA = torch.from_numpy(np.asarray(able, bool))
        with torch.no_grad():
            found = [
                self.network(scaled.shuffled(self.network.classes, random), able_TA)
                for _ in range(self._orders)
            ]
        return torch.stack(found).mean(0).numpy()

    def trained(self) -> dict[str, np.ndarray]:
        network = {name: value.numpy() for name, value in self.network.state_dict().items()}
        return network | {"mean": self._mean, "deviation": self._deviation}

    def restore(self, problem: Problem, seed: int, trained: dict[str, np.ndarray]) -> None:
        values = {name: torch.from_numpy(value) for name, value in trained.items()}
        self._mean, self._deviation = (values.pop(name).numpy() for name in ("mean", "deviation"))
        size = len(self._mean)
        classes = values["memory.weight_ih_l0"].shape[1] - size
        self.network = Network(size, classes, len(problem.learners), self._width)
        self.network.load_state_dict(values)
        self.network.requires_grad_(False)
        self._seed = seed

    def _scaled(self, readings: Readings) -> Readings:
        scaled = np.clip((readings.embeddings - self._mean) / self._deviation, -LIMIT, LIMIT)
        return Readings(scaled.astype(np.float32), readings.labels, readings.lengths)


def _readings(problem: Problem) -> Readings:
    if problem.readings is None:
        raise ValueError("the problem has no readings of its tasks; choose from their features")
    return problem.readings
