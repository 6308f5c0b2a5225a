"""The inner loop as a composition of step maps, and its unrolled gradient.

    phi_0 = start(theta),    phi_{s+1} = phi_s - alpha * grad_phi L_support(phi_s)

Every task of the batch takes its own steps: the tasks are independent, so the gradient of the
summed loss in stacked values is each task's own gradient, and one backward serves all of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from meta_models.model import Model
from meta_models.params import Params, gradients, leaves, part, pick
from tasks.episode import Batch

Graph = Literal["none", "first", "second"]
"""What the path of values keeps for a later backward: nothing; the identity path to the start
(the inner gradients are constants); everything."""


@dataclass(frozen=True)
class InnerLoop:
    """Settings of an inner loop of gradient descent.

    Attributes:
        steps: S.
        rates: Inner rate alpha of each part; the parts named here are the ones that adapt.

    Example:
        >>> InnerLoop(steps=5, rates={"head": 0.1}).parts  # ANIL
        ('head',)
    """

    steps: int
    rates: Mapping[str, float] = field(default_factory=lambda: {"adapter": 0.1, "head": 0.1})

    @property
    def parts(self) -> tuple[str, ...]:
        """The parts that adapt."""
        return tuple(self.rates)

    def passes(self, model: Model, order: int = 1) -> float:
        """Passes of the support set through the encoder that one adaptation costs.

        A forward and a backward a step, and two more at second order; one forward in all where
        only the head adapts.
        """
        if model.encoder not in self.rates:
            return 1.0
        return self.steps * (2.0 if order == 1 else 4.0)


def inner_loop(
    model: Model,
    values: Params,
    support: Batch,
    loop: InnerLoop,
    *,
    graph: Graph,
    features: Tensor | None = None,
) -> list[Params]:
    """Values after 0, 1, ..., S gradient steps on the support sets.

    Args:
        model: The functional model.
        values: phi_0, every tensor `[T, ...]`.
        support: Support sets of T tasks.
        loop: Steps, rates and the parts that adapt.
        graph: What is kept for the gradient in `values` ("second" is exact).
        features: Features of the support, if they are known and the encoder does not adapt.

    Returns:
        S + 1 dictionaries like `values`.
    """
    # Where the encoder stays fixed, its features do: they are computed once for all steps.
    if features is None and model.encoder not in loop.rates:
        features = model.features(values, support)
    path = [values]
    for _ in range(loop.steps):
        values = sgd_step(model, values, support, features, loop, graph)
        path.append(values)
    return path


def sgd_step(
    model: Model,
    values: Params,
    support: Batch,
    features: Tensor | None,
    loop: InnerLoop,
    graph: Graph,
) -> Params:
    """One step map: phi -> phi - alpha * grad_phi L_support(phi)."""
    with torch.enable_grad():
        if graph == "second":
            # A fresh node for every value: head.weight may be a function of the adapter's values,
            # and the inner gradient is the partial one, that does not look behind them.
            phi = {n: _fresh(v) for n, v in pick(values, loop.parts).items()}
            loss = model.loss(values | phi, support, features).sum()
        else:
            phi = leaves(pick(values, loop.parts))
            fixed = {name: value.detach() for name, value in values.items()}
            features = None if features is None else features.detach()
            loss = model.loss(fixed | phi, support, features).sum()
        gradient = gradients(loss, phi, create_graph=graph == "second")
        # phi <- phi - alpha * gradient
        stepped = {n: values[n] - loop.rates[part(n)] * g for n, g in gradient.items()}
    if graph == "none":
        stepped = {name: value.detach() for name, value in stepped.items()}
    return values | stepped


def _fresh(value: Tensor) -> Tensor:
    """`value` as a node of its own; a constant (the zero bias of a head) takes a gradient too."""
    return value.view_as(value) if value.requires_grad else value.detach().requires_grad_()
