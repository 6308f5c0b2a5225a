"""Engines: the same inner loop, run by another library, one task at a time.

    phi_{s+1} = F_s(phi_s, theta),    s = 0, ..., S - 1

F_s is the step map of `inner.loop`; the library computes it.  It sees a `torch.nn.Module` whose
parameters are the adapted values of one task and whose forward is the task's support loss.  The
frozen weights stay in the functional model behind that loss, so that nothing clones them, and what
is not adapted (the scale of a head, the adapter where only the head adapts) enters as it is: the
meta-gradient reaches it, the start and the learned rates as in the native loop.

An engine is a second implementation to check the native loop against, and a familiar one for who
comes from the library.  It runs no tasks together and knows no gradient in constant memory.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

import torch
from torch import Tensor, nn

from meta_models.errors import ModelError
from meta_models.model import Model
from meta_models.params import Params, each, part, pick
from metalearn.inner.rules import Shapes
from tasks.episode import Batch

if TYPE_CHECKING:
    from metalearn.inner.loop import Graph, InnerLoop


class SupportLoss(nn.Module):
    """The support loss of one task, as a module whose parameters are the adapted values.

    Args:
        loss: The support loss, a function of the adapted values without a task axis.
        values: The adapted values.

    Example:
        >>> module = SupportLoss(lambda phi: phi["head.bias"].sum(), {"head.bias": torch.ones(2)})
        >>> [name for name, _ in module.named_parameters()]
        ['head/bias']
        >>> module().item()
        2.0
    """

    def __init__(self, loss: Callable[[Params], Tensor], values: Params) -> None:
        super().__init__()
        self.loss = loss
        self.names = tuple(values)
        for name, value in values.items():
            # A module takes no dots in the name of a parameter.
            self.register_parameter(name.replace(".", "/"), nn.Parameter(value.detach()))

    def values(self) -> Params:
        """The parameters by the names of their values."""
        return dict(zip(self.names, self.parameters(), strict=True))

    def forward(self) -> Tensor:
        values = self.values()
        # A value that the loss does not use (LoRA on a pooler) has a zero gradient, which not
        # every library fills in: nothing of each value, added up, makes it one that is used.
        nothing = torch.cat([value.reshape(-1)[:0] for value in values.values()]).sum()
        return self.loss(values) + nothing


@dataclass(frozen=True)
class Task:
    """What an engine needs to know of one task.

    Attributes:
        loss: Support loss of the adapted values.
        start: phi_0 of the adapted values, without a task axis; each takes a gradient.
        shapes: Their shapes without class axes.
        rules: Learned rates and transforms, each `[1, ...]`.
        graph: What the path of values keeps for a later backward.
    """

    loss: Callable[[Params], Tensor]
    start: Params
    shapes: Shapes
    rules: Params
    graph: Graph

    def exact(self, loop: InnerLoop, step: int) -> bool:
        """Whether the gradient goes through the gradient of this step."""
        return self.graph == "second" and loop.exact(step)

    def rates(self, loop: InnerLoop, step: int) -> list[float | Tensor]:
        """The rate of each adapted value at a step."""
        if loop.learned is None:
            return [loop.rates[part(name)] for name in self.start]
        return [loop.learned.at(self.rules, name, step)[0] for name in self.start]


class Engine(ABC):
    """Another implementation of the inner loop."""

    @abstractmethod
    def check(self, loop: InnerLoop) -> None:
        """Refuse what the engine cannot do.

        Args:
            loop: The settings of the loop.

        Raises:
            ModelError: If it cannot run this loop; the message names the setting and the remedy.
        """

    def init(self, shapes: Shapes) -> Params:
        """Meta-parameters that the engine adds, named `metric.*`, before training."""
        return {}

    @abstractmethod
    def descend(self, task: Task, loop: InnerLoop) -> list[Params]:
        """The adapted values of one task after 1, ..., S steps, without a task axis."""

    def run(
        self,
        model: Model,
        values: Params,
        support: Batch,
        loop: InnerLoop,
        *,
        graph: Graph,
        rules: Params,
        features: Tensor | None,
    ) -> list[Params]:
        """Values after 0, 1, ..., S steps, as `inner_loop` returns them.

        Args:
            model: The functional model.
            values: phi_0, every tensor `[T, ...]`.
            support: Support sets of T tasks.
            loop: Steps, rates and the parts that adapt.
            graph: What is kept for the gradient in `values` and `rules`.
            rules: Learned rates and transforms with a task axis.
            features: Features of the support where the encoder does not adapt.
        """
        paths = []
        for index in range(support.tasks):
            one = {name: value[index : index + 1] for name, value in values.items()}
            own = {name: value[index : index + 1] for name, value in rules.items()}
            known = None if features is None else features[index : index + 1]
            if graph == "none":
                one, own = _constant(one), _constant(own)
            with torch.enable_grad():
                task = _task(model, one, support.select(index, index + 1), loop, graph, own, known)
                path = self.descend(task, loop)
            paths.append([_constant(phi) for phi in path] if graph == "none" else path)
        moved = [each(lambda *phi: torch.stack(phi), *phis) for phis in zip(*paths, strict=True)]
        return [values, *(values | phi for phi in moved)]


def _task(
    model: Model,
    values: Params,
    support: Batch,
    loop: InnerLoop,
    graph: Graph,
    rules: Params,
    features: Tensor | None,
) -> Task:
    # In first order the inner gradients are constants, in what is not adapted too.
    fixed = values if graph == "second" else _constant(values)
    known = features if features is None or graph == "second" else features.detach()

    def loss(phi: Params) -> Tensor:
        adapted = {name: value.unsqueeze(0) for name, value in phi.items()}
        return model.loss(fixed | adapted, support, known).sum()

    # Taken out of the batch, every value is a node of its own: head.weight may be a function of
    # the adapter's values, and the inner gradient is the partial one.
    start = {name: _trained(value[0]) for name, value in pick(values, loop.parts).items()}
    shapes = model.shapes({name: value[0] for name, value in values.items()})
    return Task(loss, start, {name: shapes[name] for name in start}, rules, graph)


def _trained(value: Tensor) -> Tensor:
    """`value`; a constant (the zero bias of a head) takes a gradient too."""
    return value if value.requires_grad else value.detach().requires_grad_()


def _constant(params: Params) -> Params:
    return {name: value.detach() for name, value in params.items()}


def refuse(who: str, reason: str, remedy: str, others: str = "") -> NoReturn:
    """Say what an engine cannot do.

    Args:
        who: The engine, as the user asked for it.
        reason: What it is or does.
        remedy: The setting to change.
        others: Engines that can, if they are a way out.

    Raises:
        ModelError: Always.
    """
    way_out = f", or inner.engine to {others}" if others else ""
    raise ModelError(f"{who} {reason}; set {remedy}{way_out}")
