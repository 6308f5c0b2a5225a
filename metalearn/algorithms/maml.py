"""Model-agnostic meta-learning (MAML), its first-order form and ANIL.

Finn, Abbeel and Levine 2017, "Model-Agnostic Meta-Learning for Fast Adaptation of Deep Networks",
algorithm 2; first order: section 5.2.  ANIL: Raghu et al. 2020, "Rapid Learning or Feature
Reuse?", section 4.1.

    phi_0(theta) = start(theta),    phi_{s+1} = phi_s - alpha * grad L_support(phi_s)
    meta-gradient = d/d theta  1/T sum_t L_query(phi_S(theta))

First order treats the inner gradients as constants, so that d phi_S / d phi_0 is the identity:
the meta-gradient is grad L_query at phi_S, carried through `start` only.  ANIL is the same
algorithm with the head as the only part that adapts, BOIL (Oh et al. 2021, "BOIL: Towards
Representation Change for Few-shot Learning", section 3.2) with everything but the head.

Truncated back-propagation (Shaban et al. 2019, "Truncated Back-propagation for Bilevel
Optimization", section 3) goes through the last steps in full and treats the ones before them as in
first order: `InnerLoop.exact_steps`.  Annealing (Antoniou et al. 2019, "How to train your MAML",
section 4) begins in first order and ends in second: `first_order_until`.

At a glance:
    maml: learns the start of adapter and head; order 2; trains in 4 S + 2; adapts in 2 S;
        holds the graph of S steps; use it when a few steps must reach far and exactness pays.
    fomaml: learns the start of adapter and head; order 1; trains in 2 S + 2; adapts in 2 S;
        holds the graph of one step; use it when second order is too slow or attention is fused.
    anil: learns the adapter and the start of the head, which alone adapts; order 2; trains in 4;
        adapts in 1; holds the graph of one pass; use it when adaptation must be cheap.
    boil: learns the start of the adapter, which alone adapts; order 2; trains in 4 S + 2;
        adapts in 2 S; holds the graph of S steps; use it when tasks need other features, not
        other class boundaries.

Deviations from the paper:

1. Only the adapter and the head are meta-learned; the backbone is frozen.
2. The head starts from the support set (prototypes) or from label names, and `start` is part of
   what is differentiated; the paper learns the rows, which the "slots" head does.  With prototypes
   this is ProtoMAML (Triantafillou et al. 2020, "Meta-Dataset", section 3).
3. Truncation keeps the identity path of the early steps, which the paper on truncation drops: with
   it the gradient in the initial values would be zero.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from meta_models.features import FeatureStore
from meta_models.model import Model
from meta_models.params import Params, gradients, leaves, pick, stack
from metalearn.compiled import Compiler
from metalearn.inner.loop import FEATURES, InnerLoop, in_parts, inner_loop
from metalearn.learner import Learner, Metrics, add, in_passes
from tasks.episode import Batch, Episode, tensors


class MAML(Learner):
    """MAML over the adapter and head of a functional model.

    Args:
        model: The functional model.
        loop: Inner steps and rates; the parts named in its rates adapt.
        order: 2 for the exact meta-gradient, 1 for the first-order one.
        first_order_until: Fraction of the meta-training that is done in first order, at order 2.
        query_weights: Weights `[S + 1]` of the query losses after 0, ..., S steps, by the progress
            of the meta-training; None: the loss after the last step alone.
        clamp: Largest entry of the meta-gradient of a single task; 0: no limit.
        tasks_per_pass: Tasks whose inner graph is held at once; 1 runs them without vmap.

    Attributes:
        compiler: Compiles the meta-gradient; None: it is run as it stands.

    Example:
        >>> from meta_models.mlp import MLP
        >>> learner = MAML(MLP(), InnerLoop(steps=1, rates={"body": 0.01, "head": 0.01}))
        >>> sum(value.numel() for value in learner.init(torch.Generator()).values())
        1761
    """

    def __init__(
        self,
        model: Model,
        loop: InnerLoop,
        *,
        order: Literal[1, 2] = 2,
        first_order_until: float = 0.0,
        query_weights: Callable[[float], Sequence[float]] | None = None,
        clamp: float = 0.0,
        tasks_per_pass: int = 4,
    ) -> None:
        self.model = model
        self.loop = loop
        self.order = order
        self.first_order_until = first_order_until
        self.query_weights = query_weights
        self.clamp = clamp
        self.tasks_per_pass = tasks_per_pass if model.batched else 1
        # Where only the head adapts, the features of a record are the same in every task and step.
        self._store = None if loop.encodes(model) else FeatureStore(model)
        self.compiler: Compiler | None = None

    def init(self, generator: torch.Generator) -> Params:
        state = self.model.init(generator)
        return state | self.loop.init(self.model, state)

    def adapt(self, state: Params, support: Batch, start: Params | None = None) -> list[Params]:
        store = self._store if start is None else None
        return adapt_by_gradient(self.model, self.loop, state, support, start, store)

    def predict(self, adapted: Params, query: Batch) -> Tensor:
        with torch.no_grad():
            return self.model.logits(adapted, query, _kept(self.model, self._store, adapted, query))

    def meta_gradient(
        self, state: Params, episode: Episode, progress: float = 1.0
    ) -> tuple[Params, Metrics]:
        exact = self.order == 2 and progress >= self.first_order_until
        weights = self.query_weights(progress) if self.query_weights else _last(self.loop.steps)
        total: Params = {}
        losses = []
        for part in in_passes(episode, self.tasks_per_pass):
            gradient, loss_T = self._pass(state, part, weights, exact, episode.tasks)
            total = add(total, gradient)
            losses.append(loss_T)
        # The one wait for the device, after all passes.
        figures = torch.cat(losses).tolist()
        return total, {"loss": sum(figures) / episode.tasks, "losses": figures}

    def _pass(
        self, state: Params, part: Episode, weights: Sequence[float], exact: bool, tasks: int
    ) -> tuple[Params, Tensor]:
        """`_gradient`, compiled where there is a compiler."""
        used = tuple(step for step, weight in enumerate(weights) if weight)
        like = next(iter(state.values()))
        weight = like.new_tensor([weights[step] for step in used])
        if self.compiler is None:
            return self._gradient(state, part, used, weight, exact, tasks)
        names, batches = list(state), tensors(part)

        def flat(*inputs: Tensor) -> tuple[Tensor, ...]:
            theta = dict(zip(names, inputs, strict=False))
            rest = iter(inputs[len(names) + 1 :])
            episode = part.map(lambda _: next(rest))
            gradient, loss_T = self._gradient(
                theta, episode, used, inputs[len(names)], exact, tasks
            )
            return (*(gradient[name] for name in names), loss_T)

        key = (*names, *batches, part.support.kind, used, exact, tasks)
        inputs = [*state.values(), weight, *batches.values()]
        *gradient, loss_T = self.compiler(key, flat, inputs)
        return dict(zip(names, gradient, strict=True)), loss_T

    def _gradient(
        self,
        state: Params,
        part: Episode,
        used: Sequence[int],
        weight: Tensor,
        exact: bool,
        tasks: int,
    ) -> tuple[Params, Tensor]:
        """Gradient of some tasks' share of the mean loss over `tasks` tasks, and their losses.

        Args:
            state: Meta-parameters.
            part: Support and query of some of the tasks.
            used: Steps whose query losses have a weight.
            weight: Their weights.
            exact: Second order.
            tasks: T, tasks of the whole meta-step.
        """
        theta = leaves(state)
        meta = stack(theta, part.tasks)
        # Features that nothing is learned about are the same in every meta-step.
        store = None if pick(theta, self.model.encoder) else self._store
        support, query = (_kept(self.model, store, meta, b) for b in (part.support, part.query))
        phi = self.model.start(meta, part.support, support)
        graph = "second" if exact else "first"
        path = inner_loop(
            self.model, phi, part.support, self.loop, graph=graph, meta=meta, features=support
        )
        # 1/T sum_t sum_s w_s L_query(phi_s(theta)), where w is 1 at s = S and else 0 in MAML
        loss_T, reached, slopes = weight.new_zeros(part.tasks), [], []
        for s, w in zip(used, weight, strict=True):
            losses, slope = self._judged(path[s], part.query, query)
            loss_T = loss_T + w * losses
            for name, value in path[s].items():
                if value.requires_grad:
                    reached.append(value)
                    slopes.append(w / tasks * slope[name])
        # one task by itself, where its gradient is clamped
        target = meta if self.clamp else theta
        found = torch.autograd.grad(reached, list(target.values()), slopes, materialize_grads=True)
        gradient = dict(zip(target, found, strict=True))
        if self.clamp:
            limit = self.clamp / tasks
            gradient = {n: g.clamp(-limit, limit).sum(0) for n, g in gradient.items()}
        return gradient, loss_T

    def _judged(
        self, values: Params, query: Batch, features: Tensor | None
    ) -> tuple[Tensor, Params]:
        """Query losses `[T]`, and the gradient of their sum: all that the query's graph is for."""
        at = {name: value.detach().requires_grad_() for name, value in values.items()}
        known = {} if features is None else {FEATURES: features}
        total: Params = {}
        losses = []
        for part in in_parts(query, self.loop.chunks):
            with torch.enable_grad():
                losses.append(part.loss(self.model, at | known))
                total = add(total, gradients(losses[-1].sum(), at))
        return torch.stack(losses).sum(0).detach(), total

    def passes(self) -> float:
        return self.loop.passes(self.model)


def adapt_by_gradient(
    model: Model,
    loop: InnerLoop,
    state: Params,
    support: Batch,
    start: Params | None = None,
    store: FeatureStore | None = None,
) -> list[Params]:
    """Gradient descent on the support sets from `state`, without a graph.

    Args:
        model: The functional model.
        loop: Inner steps and rates.
        state: Meta-parameters of the model.
        support: Support sets of T tasks.
        start: Adapter values `[T, ...]` to start from instead of the state's.
        store: Kept features, for a loop that leaves the encoder as it is.
    """
    meta = stack(state, support.tasks) | (start or {})
    features = _kept(model, store, meta, support)
    with torch.no_grad():
        phi = model.start(meta, support, features)
    return inner_loop(model, phi, support, loop, graph="none", meta=meta, features=features)


def _last(steps: int) -> list[float]:
    return [0.0] * steps + [1.0]


def _kept(model: Model, store: FeatureStore | None, values: Params, batch: Batch) -> Tensor | None:
    """Features from the store, where there is one and all tasks share the encoder's values."""
    encoder = pick(values, model.encoder)
    if store is None or batch.kind != "class" or any(v.stride(0) for v in encoder.values()):
        return None
    return store.features({name: value[0] for name, value in encoder.items()}, batch)
