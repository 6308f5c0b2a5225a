"""The inner loop: a composition of step maps, each a function of the state before it.

    phi_0 = start(theta),    g_s = P(grad_phi L_support(phi_s))
    d_s, m_{s+1} = optimizer(g_s, m_s),    phi_{s+1} = phi_s - alpha_s o d_s

Every task of the batch takes its own steps: the tasks are independent, so the gradient of the
summed loss in stacked values is each task's own gradient, and one backward serves all of them.
Rates alpha and preconditioner P may be meta-parameters; m are the optimizer's slots.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial, reduce
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

from meta_models.errors import ModelError
from meta_models.model import Model, real_items
from meta_models.params import Params, each, gradients, leaves, part, pick
from metalearn.inner.adjoint import Mode, kept_gradient
from metalearn.inner.engines import Engine
from metalearn.inner.optimizers import SGD, Optimizer
from metalearn.inner.rules import LearnedRates, Preconditioner, align
from tasks.episode import Batch

FEATURES = "features"  # by this name the features of the support stand among the values

Graph = Literal["none", "first", "second"]
"""What the path of values keeps for a later backward: nothing; the identity path to the start
(the inner gradients are constants); everything."""


@dataclass(frozen=True)
class InnerLoop:
    """Settings of an inner loop of gradient descent.

    Attributes:
        steps: S.
        rates: Inner rate alpha of each part; the parts named here are the ones that adapt.
        optimizer: From gradients to directions.
        learned: The rates are meta-parameters that start at `rates`; None: they stay.
        preconditioner: A learned map of the gradients; None: the identity.
        exact_steps: Steps, counted from the last, that an exact gradient goes through in full;
            the ones before are treated as in first order (truncated back-propagation). None: all.
        gradient: How the exact gradient is had: from the unrolled graph, or step by step from the
            kept states ("adjoint": the same to rounding, in memory that does not grow with S).
        adjoint: The adjoint's way to its Hessian-vector products.
        chunks: Parts of support and query set whose gradients are taken one after the other and
            summed: what is held at once is that of one part. The graph of unrolled steps holds all.
        engine: Another library that takes the steps, one task at a time; None: this file.

    Raises:
        ModelError: If the engine cannot run such a loop.

    Example:
        >>> InnerLoop(steps=5, rates={"head": 0.1}).parts  # ANIL
        ('head',)
    """

    steps: int
    rates: Mapping[str, float] = field(default_factory=lambda: {"adapter": 0.1, "head": 0.1})
    optimizer: Optimizer = field(default_factory=SGD)
    learned: LearnedRates | None = None
    preconditioner: Preconditioner | None = None
    exact_steps: int | None = None
    gradient: Literal["unrolled", "adjoint"] = "unrolled"
    adjoint: Mode = "auto"
    chunks: int = 1
    engine: Engine | None = None

    def __post_init__(self) -> None:
        if self.engine is not None:
            self.engine.check(self)
            if self.chunks > 1:
                raise ModelError("another engine takes the support whole; set inner.chunks to 1")

    @property
    def parts(self) -> tuple[str, ...]:
        """The parts that adapt."""
        return tuple(self.rates)

    def init(self, model: Model, state: Params) -> Params:
        """Meta-parameters of the steps themselves (rates, preconditioner, transforms), untrained.

        Args:
            model: The functional model.
            state: Its fresh meta-parameters.
        """
        shapes = {n: s for n, s in model.shapes(state).items() if part(n) in self.rates}
        own = self.learned.init(shapes, self.rates) if self.learned else {}
        if self.preconditioner is not None:
            own |= self.preconditioner.init(shapes)
        if self.engine is not None:
            own |= self.engine.init(shapes)
        like = next(iter(state.values()))
        return {name: value.to(like) for name, value in own.items()}

    def exact(self, step: int) -> bool:
        """Whether an exact gradient goes through step 0, 1, ... in full."""
        return self.exact_steps is None or step >= self.steps - self.exact_steps

    def encodes(self, model: Model) -> bool:
        """Whether the steps change what features depend on."""
        return any(part in self.rates for part in model.encoder)

    def passes(self, model: Model, order: int = 1) -> float:
        """Passes of the support set through the encoder that one adaptation costs.

        A forward and a backward a step, and two more at second order; one forward in all where
        only the head adapts.
        """
        if not self.encodes(model):
            return 1.0
        return self.steps * (2.0 if order == 1 else 4.0)


def inner_loop(
    model: Model,
    values: Params,
    support: Batch,
    loop: InnerLoop,
    *,
    graph: Graph,
    meta: Params | None = None,
    features: Tensor | None = None,
) -> list[Params]:
    """Values after 0, 1, ..., S gradient steps on the support sets.

    Args:
        model: The functional model.
        values: phi_0, every tensor `[T, ...]`.
        support: Support sets of T tasks.
        loop: Steps, rates and the parts that adapt.
        graph: What is kept for the gradient in `values` and `meta` ("second" is exact).
        meta: Meta-parameters with a task axis, where the loop has learned ones.
        features: Features of the support, if they are known and the encoder does not adapt.

    Returns:
        S + 1 dictionaries like `values`.
    """
    # Where the encoder stays fixed, its features do: they are computed once for all steps.
    if features is None and not loop.encodes(model):
        features = model.features(values, support)
    rules = pick(meta or {}, ("rate", "metric"))
    if loop.engine is not None:
        return loop.engine.run(
            model, values, support, loop, graph=graph, rules=rules, features=features
        )
    slots = loop.optimizer.start(pick(values, loop.parts))
    known = {} if features is None else {FEATURES: features}
    parts = in_parts(support, loop.chunks)
    path = [values]
    for step in range(loop.steps):
        exact = graph == "second" and loop.exact(step)
        gradient = _gradient(model, loop, parts, values, known, exact)
        with torch.set_grad_enabled(graph != "none"):
            moved, slots = _move(loop, step, values, slots, rules, gradient)
        values = values | moved
        path.append(values)
    return path


@dataclass(frozen=True)
class Part:
    """Some examples of T sets: from `first` on, a `share` `[T]` of all real items.

    Attributes:
        batch: The examples.
        first: Index of the first one.
        share: Of the real items that are among them; None: all.
    """

    batch: Batch
    first: int
    share: Tensor | None

    def loss(self, model: Model, given: Params) -> Tensor:
        """`[T]` share_t L_t(part); features of all examples may be among the `given` values."""
        given = dict(given)
        features = given.pop(FEATURES, None)
        if self.share is None:
            return model.loss(given, self.batch, features)
        if features is not None:
            features = features[:, self.first : self.first + self.batch.ids.shape[1]]
        return self.share * model.loss(given, self.batch, features)


def in_parts(batch: Batch, chunks: int) -> list[Part]:
    """The examples of a batch in parts of like size, whose losses add up to that of the batch."""
    if chunks == 1:
        return [Part(batch, 0, None)]
    edges = [round(i * batch.ids.shape[1] / chunks) for i in range(chunks + 1)]
    batches = [batch.examples(a, b) for a, b in pairwise(edges) if b > a]
    total = real_items(batch).sum(1).clamp(min=1)
    shares = [real_items(some).sum(1) / total for some in batches]
    firsts = [a for a, b in pairwise(edges) if b > a]
    return [Part(*part) for part in zip(batches, firsts, shares, strict=True)]


def _gradient(
    model: Model,
    loop: InnerLoop,
    parts: Sequence[Part],
    values: Params,
    known: Params,
    exact: bool,
) -> Params:
    """grad_phi of the parts' losses, of each task: with a graph if `exact`, else as constants."""
    losses = [partial(_summed, part, model) for part in parts]
    phi = pick(values, loop.parts)
    psi = {name: value for name, value in values.items() if name not in phi} | known
    if exact and loop.gradient == "adjoint":
        return kept_gradient(losses, phi, psi, loop.adjoint)
    with torch.enable_grad():
        if exact:
            # A fresh node for every value: head.weight may be a function of the adapter's values,
            # and the inner gradient is the partial one, that does not look behind them.
            phi = {name: _fresh(value) for name, value in phi.items()}
        else:
            phi = leaves(phi)
            psi = {name: value.detach() for name, value in psi.items()}
        # one part after the other, so that without a graph one part's activations are held
        terms = (gradients(loss(psi | phi), phi, create_graph=exact) for loss in losses)
        return reduce(partial(each, torch.add), terms)


def _summed(part: Part, model: Model, given: Params) -> Tensor:
    return part.loss(model, given).sum()


def _move(
    loop: InnerLoop, step: int, values: Params, slots: Params, rules: Params, gradient: Params
) -> tuple[Params, Params]:
    """The adapted values and the slots after a step."""
    if loop.preconditioner is not None:
        gradient = loop.preconditioner(rules, gradient)
    direction, slots = loop.optimizer.direction(gradient, slots, step)
    # phi <- phi - alpha o direction
    moved = {}
    for name, d in direction.items():
        if loop.learned is None:
            moved[name] = values[name].sub(d, alpha=loop.rates[part(name)])
        else:
            rate = align(loop.learned.at(rules, name, step), d)
            moved[name] = values[name] - rate * d
    return moved, slots


def _fresh(value: Tensor) -> Tensor:
    """`value` as a node of its own; a constant (the zero bias of a head) takes a gradient too."""
    return value.view_as(value) if value.requires_grad else value.detach().requires_grad_()
