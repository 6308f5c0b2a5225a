"""Several processes: the tasks of a meta-step shared out by index, their gradients summed once.

    g_r = mean meta-gradient of the tasks r, r + R, r + 2 R, ... of T        on rank r of R
    g   = sum_r T_r / T  g_r                                                 one all-reduce

Everything else is local: every rank draws the same tasks, holds the same state and takes the same
step, so that R processes do what one does, up to the order of a sum.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from meta_models.errors import ModelError
from meta_models.params import Params
from metalearn.learner import Learner, Metrics, mean_metrics
from tasks.episode import Episode

Value = TypeVar("Value")


class StoppedByFirst(Exception):
    """The first process has met an error, and says itself which."""


@dataclass(frozen=True)
class World:
    """The processes that work on one training; the default is a process by itself.

    With more than one, the default process group of `torch.distributed` connects them.

    Attributes:
        rank: Which of them this is.
        size: R, how many there are.

    Example:
        >>> ALONE.gather("all there is")
        ['all there is']
    """

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def share(self, episode: Episode) -> Episode | None:
        """The tasks r, r + R, ... of an episode; None where there are fewer than r + 1.

        They keep the widths of the whole episode, so that all ranks see the same padding.
        """
        if self.rank >= episode.tasks:
            return None
        return episode.select(self.rank, episode.tasks, self.size)

    def gather(self, value: Value) -> list[Value]:
        """The values of all ranks, in their order."""
        if self.size == 1:
            return [value]
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, value)
        return found

    def sum(self, tensor: Tensor) -> Tensor:
        """Sum over the ranks, in place; bit for bit the same on all of them."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def any(self, one: bool) -> bool:
        """Whether it is so on any rank."""
        return bool(self.sum(torch.tensor(float(one)))) if self.size > 1 else one

    def from_first(self, make: Callable[[], Value]) -> Value:
        """What `make` gives on the first rank; the others do not call it.

        Raises:
            StoppedByFirst: On the others, where it has raised on the first.
        """
        if self.size == 1:
            return make()
        if not self.first:
            found: list[Any] = [None]
            dist.broadcast_object_list(found)
            if not found[0]:
                raise StoppedByFirst
            return found[0][0]
        try:
            value = make()
        except Exception:
            dist.broadcast_object_list([()])
            raise
        dist.broadcast_object_list([(value,)])
        return value


ALONE = World()
"""A process by itself."""


def refuse_coupled(learner: Learner, name: str, world: World) -> None:
    """Refuse to share out the tasks of a learner whose meta-gradient is not a mean over tasks.

    Args:
        learner: The learner.
        name: What the user calls it.
        world: The processes.

    Raises:
        ModelError: If there are several processes, and its tasks depend on each other.
    """
    if world.size > 1 and learner.coupled:
        raise ModelError(
            f"{name} cannot share its tasks with other processes: {learner.coupled}; "
            "train it in one process"
        )


def meta_gradient(
    learner: Learner, state: Params, episode: Episode, progress: float, world: World
) -> tuple[Params, Metrics]:
    """`learner.meta_gradient` of all tasks of a meta-step, a share of them on each rank.

    Args:
        learner: The learner; its gradient is the mean over tasks, see `refuse_coupled`.
        state: Meta-parameters, the same on all ranks.
        episode: All T tasks, the same on all ranks.
        progress: Fraction of the meta-training that is done.
        world: The processes.

    Returns:
        The gradient and the figures of all T tasks, bit for bit the same on all ranks.
    """
    if world.size == 1:
        return learner.meta_gradient(state, episode, progress)
    mine = world.share(episode)
    gradient: Params = {}
    seen: tuple[int, Metrics] | None = None
    if mine is not None:
        gradient, metrics = learner.meta_gradient(state, mine, progress)
        seen = mine.tasks, metrics
    # First what says soonest that a process is gone: the figures go by way of the CPU.
    figures = _joined([entry for entry in world.gather(seen) if entry is not None])
    # g = sum_r T_r / T  g_r, as one flat buffer
    weight = seen[0] / episode.tasks if seen else 0.0
    kind = reduce(torch.promote_types, (v.dtype for v in state.values()), torch.float32)
    flat = torch.cat(
        [gradient.get(n, torch.zeros_like(v)).to(kind).flatten() for n, v in state.items()]
    )
    parts = world.sum(flat * weight).split([value.numel() for value in state.values()])
    summed = {
        name: part.view(value.shape).to(value.dtype)
        for (name, value), part in zip(state.items(), parts, strict=True)
    }
    return summed, figures


def _joined(metrics: list[tuple[int, Metrics]]) -> Metrics:
    """Figures of the ranks: numbers averaged by tasks, lists in the order of the tasks.

    Example:
        >>> _joined([(2, {"loss": 2.0, "losses": [1.0, 3.0]}), (1, {"loss": 5.0, "losses": [5.0]})])
        {'loss': 3.0, 'losses': [1.0, 5.0, 3.0]}
    """
    figures = mean_metrics(metrics)
    for name, value in figures.items():
        if isinstance(value, list):
            for rank, (_, own) in enumerate(metrics):
                value[rank :: len(metrics)] = own[name]
    return figures


def agree(tensors: Mapping[str, Tensor], world: World) -> None:
    """Check that all ranks hold the same bits.

    Raises:
        ModelError: If one differs from the first.
    """
    if world.size == 1:
        return
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode())
        # As bytes: NumPy has no bfloat16.
        value = tensors[name].detach().cpu().contiguous().reshape(-1)
        digest.update(value.view(torch.uint8).numpy().tobytes())
    found = world.gather(digest.hexdigest())
    other = [rank for rank, own in enumerate(found) if own != found[0]]
    if other:
        raise ModelError(
            f"rank {other[0]} holds another state than rank 0; "
            "give all processes the same machines and versions, or train in one process"
        )
