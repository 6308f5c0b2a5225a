"""Curricula: which tasks meta-training sees next, chosen among candidates by the losses so far.

At meta-step k the M T tasks k M T .. (k + 1) M T of the training stream are drawn, as text only,
and T of them are chosen.  A candidate is a pure function of (seed, i); the choice is one of
(seed, k) and of the losses that were observed before, which are the state.

Every class c keeps two running means of the query losses of the tasks it was in.  A loss counts
relative to that of a guess among the N classes of its task, so that N may vary:

    l_t = loss_t / log N_t
    fast_c <- fast_c + a (l_t - fast_c),    slow_c <- slow_c + b (l_t - slow_c),    a > b

The score of a task is log N_t times the mean score of its classes, which a `Rule` makes of their
two means.  A class that was in no task yet counts like the mean of those that were.  The loss of
a task counts for all its classes alike: the more ways, the less do classes and tasks differ.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tasks.episode import TaskError, TaskStream

CHOICE = 3
"""Second part of the key of the choices' generators; a stream's is its split: 0, 1 or 2."""


class Rule(ABC):
    """What a class is worth, and which candidates are chosen."""

    @abstractmethod
    def score(self, fast: float, slow: float) -> float:
        """Score of a class with these running means of its loss."""

    @abstractmethod
    def choose(
        self, scores: np.ndarray, count: int, progress: float, random: np.random.Generator
    ) -> list[int]:
        """Positions of the chosen candidates.

        Args:
            scores: `[M T]`, one a candidate.
            count: T.
            progress: Fraction of the meta-training that is done, 0 at its first step and 1 at its
                last.
            random: The only source of randomness.
        """


@dataclass(frozen=True)
class Difficulty(Rule):
    """From easy tasks to hard ones: the T candidates around a quantile of the difficulty.

        d_t = log N_t mean_c fast_c,    q = first + (last - first) progress
        chosen: the candidates of rank s .. s + T by d,    s = round(q (M T - T))

    Deviations from the paper, whose distributions are Q(z) ~ W(z) P(z) with weights that grow
    until Q is P:

    1. The difficulty of a task is learned from the losses in this training, not given before it.
    2. The weights are a window over the ranks of the candidates, which leaves easy tasks behind;
       the last distribution is the hardest 1/M of P, not P.

    Attributes:
        first: Quantile at the first meta-step.
        last: Quantile at the last one; below `first` it is an anti-curriculum, a control.

    Example:
        >>> rule, scores = Difficulty(), np.array([3.0, 1.0, 2.0, 0.0])
        >>> [rule.choose(scores, 2, p, np.random.default_rng(0)) for p in (0.0, 0.5, 1.0)]
        [[3, 1], [1, 2], [2, 0]]

    Source: Bengio et al. 2009, "Curriculum Learning", section 3.
    """

    first: float = 0.0
    last: float = 1.0

    def __post_init__(self) -> None:
        if not (0 <= self.first <= 1 and 0 <= self.last <= 1):
            raise ValueError(f"quantiles {self.first} and {self.last} must be in 0..1")

    def score(self, fast: float, slow: float) -> float:
        return fast

    def choose(
        self, scores: np.ndarray, count: int, progress: float, random: np.random.Generator
    ) -> list[int]:
        quantile = self.first + (self.last - self.first) * progress
        start = round(quantile * (len(scores) - count))
        return np.argsort(scores, kind="stable")[start : start + count].tolist()


@dataclass(frozen=True)
class Progress(Rule):
    """Tasks on which the loss changes, for better or worse: absolute learning progress.

        w_t = log N_t mean_c |fast_c - slow_c|
        p_t = (1 - floor) w_t / sum w + floor / (M T)

    T candidates are drawn one after the other, each with probability p among those that are left.
    Losses that rise count like losses that fall: what is forgotten is practised again.

    Deviations from the papers:

    1. The change of the loss is the distance of a fast and a slow running mean (Kanitscheider et
       al. 2021, "Multi-task curriculum learning in a complex, visual, hard-exploration domain:
       Minecraft"), in place of differences of two scores.
    2. It is kept a class and averaged over the classes of a task, since the same task hardly
       returns; and it is a weight in itself, without a bandit's update over it.

    Attributes:
        floor: Share of the probability that is spread over all candidates.

    Example:
        >>> Progress(floor=0.2).probabilities(np.array([0.0, 0.3, 0.1, 0.0])).round(3).tolist()
        [0.05, 0.65, 0.25, 0.05]

    Source: Matiisen et al. 2017, "Teacher-Student Curriculum Learning", section 3; Graves et al.
    2017, "Automated Curriculum Learning for Neural Networks", sections 2 and 3.
    """

    floor: float = 0.1

    def __post_init__(self) -> None:
        if not 0 < self.floor <= 1:
            raise ValueError(f"floor {self.floor} must be above 0 and at most 1")

    def score(self, fast: float, slow: float) -> float:
        return abs(fast - slow)

    def probabilities(self, scores: np.ndarray) -> np.ndarray:
        """`[M T]` probability of each candidate to be drawn first; uniform without progress.

        Args:
            scores: `[M T]` progress of the candidates.
        """
        even = np.full(len(scores), 1 / len(scores))
        total = scores.sum()
        share = scores / total if total > 0 else even
        # p = (1 - floor) w / sum w + floor / (M T)
        return (1 - self.floor) * share + self.floor * even

    def choose(
        self, scores: np.ndarray, count: int, progress: float, random: np.random.Generator
    ) -> list[int]:
        chances = self.probabilities(scores)
        return random.choice(len(scores), size=count, replace=False, p=chances).tolist()


class Curriculum:
    """Chooses the tasks of every meta-step from a training stream, and learns from their losses.

    Args:
        stream: The training tasks; what is done to them after the choice does not matter here.
        rule: How candidates are scored and chosen.
        tasks: T, tasks a meta-step.
        pool: M, candidates a task.
        steps: Meta-steps in all.
        fast: Rate a of the fast mean.
        slow: Rate b of the slow mean.

    Raises:
        TaskError: If the tasks have no classes, or all of them the same.
        ValueError: If there is nothing to choose, or the rates are no rates.

    Example:
        >>> from tasks.episode import EpisodeShape
        >>> from tasks.sources.builtin import builtin
        >>> stream = TaskStream(builtin(), "train", EpisodeShape(), seed=0)
        >>> curriculum = Curriculum(stream, Difficulty(), tasks=2, pool=4, steps=10)
        >>> curriculum.indices(0)  # of the tasks 0..7; nothing is known yet
        [0, 1]
        >>> score = curriculum.observe([0, 1], [0.9, 1.4])
        >>> curriculum.indices(1)  # of the tasks 8..15, easy ones
        [12, 8]
    """

    def __init__(
        self,
        stream: TaskStream,
        rule: Rule,
        *,
        tasks: int,
        pool: int,
        steps: int,
        fast: float = 0.3,
        slow: float = 0.05,
    ) -> None:
        if pool < 2:
            raise ValueError(f"a pool of {pool} candidates a task leaves no choice; give 2 or more")
        if not 0 < slow < fast <= 1:
            raise ValueError(f"rates fast {fast} and slow {slow} must be 0 < slow < fast <= 1")
        _check_choice(stream)
        self.stream = stream
        self.rule = rule
        self.tasks = tasks
        self.pool = pool
        self.steps = steps
        self._rates = {"fast": fast, "slow": slow}
        self._means: dict[str, float] = {}

    def indices(self, step: int) -> list[int]:
        """Numbers in the stream of the tasks of meta-step `step`."""
        size = self.pool * self.tasks
        candidates = range(step * size, (step + 1) * size)
        scores = self._scores([self._classes(i) for i in candidates])
        progress = min(1.0, step / max(1, self.steps - 1))
        random = np.random.default_rng((self.stream.seed, CHOICE, step))
        chosen = self.rule.choose(scores, self.tasks, progress, random)
        return [candidates[position] for position in chosen]

    def observe(self, indices: Sequence[int], losses: Sequence[float]) -> float:
        """Learn from the query losses of a meta-step.

        Args:
            indices: Numbers of its tasks in the stream.
            losses: Query loss of each task, in nats.

        Returns:
            The mean score that the tasks had before.
        """
        tasks = [self._classes(i) for i in indices]
        scores = self._scores(tasks)
        for classes, loss in zip(tasks, losses, strict=True):
            # l = loss / log N
            relative = loss / _chance(len(classes))
            for c in classes:
                for name, rate in self._rates.items():
                    # mean_c <- mean_c + rate (l - mean_c)
                    mean = self._means.get(f"{name}/{c}", relative)
                    self._means[f"{name}/{c}"] = mean + rate * (relative - mean)
        return float(scores.mean())

    def state(self) -> dict[str, float]:
        """Everything that was learned: the running means, "fast/7" for the class of index 7."""
        return dict(self._means)

    def restore(self, state: dict[str, float]) -> None:
        """Go back to a `state`."""
        self._means = dict(state)

    def _classes(self, index: int) -> tuple[int, ...]:
        return self.stream.task(index).class_ids

    def _scores(self, tasks: Sequence[tuple[int, ...]]) -> np.ndarray:
        """`[tasks]` log N times the mean score of the classes."""
        seen = {
            name.partition("/")[2]: self.rule.score(mean, self._means[f"slow/{name[5:]}"])
            for name, mean in self._means.items()
            if name.startswith("fast/")
        }
        unseen = float(np.mean(list(seen.values()))) if seen else 0.0
        return np.array(
            [
                _chance(len(classes)) * np.mean([seen.get(str(c), unseen) for c in classes])
                for classes in tasks
            ]
        )


def _chance(ways: int) -> float:
    """Loss of a guess among N classes; a task of one class has none to compare with."""
    return math.log(max(ways, 2))


def _check_choice(stream: TaskStream) -> None:
    """Refuse tasks that no score of classes can tell apart."""
    family, ways = stream.family, stream.shape.ways
    if family.kind != "class":
        raise TaskError(
            f"a curriculum scores tasks by their classes, but the tasks of {family.name!r} have "
            "no classes of their own; leave it out"
        )
    least = ways if isinstance(ways, int) else ways[0]
    classes = len(family.classes(stream.split))
    if least == 0 or least >= classes:
        raise TaskError(
            f"a curriculum scores tasks by their classes, but every task has all {classes} classes "
            f"of the split {stream.split!r}; ask for fewer ways"
        )
