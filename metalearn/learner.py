"""The interface of everything that learns from a support set: four verbs.

A learner's *state* is its meta-parameters, a flat `Params`: training updates it, a checkpoint
holds it, and nothing else does.  What `adapt` returns is the learner's own type (adapted
parameters, prototypes, a fitted classifier); only the learner's own `predict` reads it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from meta_models.params import Params
from tasks.episode import Batch, Episode

Adapted = Any
Metrics = dict[str, Any]
"""Figures by name: numbers; and "losses", the list of the losses of the single tasks."""


class Learner(ABC):
    """Learns from support sets, and perhaps learns how to.

    Attributes:
        trains: Whether there is something to meta-train.
        random: Whether its state depends on the seed.
        coupled: Why the meta-gradient of several tasks is not the mean of those of each one, so
            that tasks cannot be shared out among processes; empty: it is.
        tasks_per_pass: Tasks that `adapt` and `meta_gradient` work on at once.
    """

    trains: bool = True
    random: bool = True
    coupled: str = ""
    tasks_per_pass: int = 4

    @abstractmethod
    def init(self, generator: torch.Generator) -> Params:
        """Fresh meta-parameters; all randomness comes from `generator`."""

    @abstractmethod
    def adapt(self, state: Params, support: Batch, start: Params | None = None) -> list[Adapted]:
        """What is learned from the support sets after 0, 1, ..., S steps.

        Args:
            state: Meta-parameters.
            support: Support sets of T tasks.
            start: Adapter values `[T, ...]` to continue from, in place of the state's.

        Returns:
            S + 1 entries; a single one for learners that take no steps.
        """

    @abstractmethod
    def predict(self, adapted: Adapted, query: Batch) -> Tensor:
        """`[T, I, N]` logits (or `[T, B, O]` values) of the query sets, without a gradient."""

    def meta_gradient(
        self, state: Params, episode: Episode, progress: float = 1.0
    ) -> tuple[Params, Metrics]:
        """Gradient of the mean query loss of T tasks in every meta-parameter.

        Args:
            state: Meta-parameters.
            episode: Support and query of T tasks.
            progress: Fraction of the meta-training that is done, for what is annealed.

        Returns:
            A gradient for every name of the state, and figures worth logging: "loss", and the same
            task by task, "losses", without which no curriculum can choose tasks for the learner.

        Raises:
            TypeError: If the learner has nothing to train.
        """
        raise TypeError(f"{type(self).__name__} has nothing to meta-train")

    def passes(self) -> float:
        """Forward and backward passes over the support set that one adaptation costs."""
        return 1.0


def in_passes(episode: Episode, size: int) -> Iterator[Episode]:
    """The tasks of an episode, `size` at a time."""
    if size >= episode.tasks:
        yield episode
        return
    for first in range(0, episode.tasks, size):
        yield episode.select(first, min(first + size, episode.tasks))


def add(total: Params, gradient: Params) -> Params:
    """Sum of two gradients; an empty total counts as zero."""
    return {name: total[name] + g for name, g in gradient.items()} if total else dict(gradient)


def mean_metrics(metrics: Sequence[tuple[int, Metrics]]) -> Metrics:
    """Figures of all passes: numbers averaged by the tasks of each, lists joined.

    Example:
        >>> two, one = {"loss": 2.0, "losses": [1.0, 3.0]}, {"loss": 5.0, "losses": [5.0]}
        >>> mean_metrics([(2, two), (1, one)])
        {'loss': 3.0, 'losses': [1.0, 3.0, 5.0]}
    """
    total = sum(tasks for tasks, _ in metrics)
    return {
        name: [loss for _, figures in metrics for loss in figures[name]]
        if isinstance(value, list)
        else sum(tasks * figures[name] for tasks, figures in metrics) / total
        for name, value in metrics[0][1].items()
    }
