"""iMAML: the meta-gradient from the optimum of the inner problem, whatever the path to it.

Rajeswaran, Finn, Kakade and Levine 2019, "Meta-Learning with Implicit Gradients", equations 3 and
6, algorithms 1 and 2.

    phi* = argmin_phi  L_support(phi) + lambda/2 |phi - phi_0(theta)|^2
    (H + lambda I) u = grad L_query(phi*),    H the Hessian of L_support at phi*
    meta-gradient = d phi_0 / d theta^T  lambda u

The system is solved by conjugate gradients with Hessian-vector products, so the memory is that of
one step.  Meta-parameters psi that are used but not adapted (the scale of a head, the adapter
where only the head adapts) get, by the same theorem,

    d L_query / d psi - d/d psi ( u . grad_phi L_support )

At a glance:
    imaml: learns the start of adapter and head; order 2, implicit; trains in 2 S + 2 C + 8 with C
        solver steps; adapts in 2 S; holds the graph of one step; use it when the inner loop is long
        enough to converge.

Deviations from the paper:

1. phi* is where S steps of gradient descent arrive: the gradient is exact as far as they converge.
2. The start may depend on the support set (prototypes), and is differentiated.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from meta_models.model import Model
from meta_models.params import Params, each, gradients, leaves, part, pick, stack
from metalearn.inner.loop import InnerLoop, inner_loop
from metalearn.learner import Learner, Metrics, add, in_passes, mean_metrics
from tasks.episode import Batch, Episode


class IMAML(Learner):
    """Implicit MAML.

    Args:
        model: The functional model.
        loop: Inner steps and rates; its own meta-gradient settings have no use here.
        strength: lambda, weight of the proximal term.
        solver_steps: Steps of conjugate gradients.
        tasks_per_pass: Tasks at once; 1 runs them without vmap.

    Raises:
        ValueError: If lambda is not positive, or the loop has learned rates or a preconditioner:
            the optimum does not depend on them.

    Example:
        >>> from meta_models.mlp import MLP
        >>> learner = IMAML(MLP(), InnerLoop(16, {"body": 0.01, "head": 0.01}), strength=2.0)
        >>> learner.passes()
        32.0
    """

    def __init__(
        self,
        model: Model,
        loop: InnerLoop,
        *,
        strength: float = 1.0,
        solver_steps: int = 5,
        tasks_per_pass: int = 4,
    ) -> None:
        if strength <= 0:
            raise ValueError(f"the proximal strength {strength} must be positive")
        if loop.learned is not None or loop.preconditioner is not None:
            raise ValueError("implicit gradients do not reach learned rates or preconditioners")
        self.model = model
        self.loop = loop
        self.strength = strength
        self.solver_steps = solver_steps
        self.tasks_per_pass = tasks_per_pass if model.batched else 1

    def init(self, generator: torch.Generator) -> Params:
        return self.model.init(generator)

    def adapt(self, state: Params, support: Batch, start: Params | None = None) -> list[Params]:
        with torch.no_grad():
            phi = self.model.start(stack(state, support.tasks) | (start or {}), support)
        return self._descend(phi, support)

    def predict(self, adapted: Params, query: Batch) -> Tensor:
        with torch.no_grad():
            return self.model.logits(adapted, query)

    def meta_gradient(
        self, state: Params, episode: Episode, progress: float = 1.0
    ) -> tuple[Params, Metrics]:
        total: Params = {}
        metrics = []
        for few in in_passes(episode, self.tasks_per_pass):
            theta = leaves(state)
            start = self.model.start(stack(theta, few.tasks), few.support)
            fixed = {n: v.detach() for n, v in start.items()}
            phi = leaves(pick(self._descend(fixed, few.support)[-1], self.loop.parts))

            losses = self.model.loss(start | phi, few.query)
            slope = gradients(self.model.loss(fixed | phi, few.query).sum(), phi)
            inner = gradients(
                self.model.loss(start | phi, few.support).sum(), phi, create_graph=True
            )
            # (H + lambda I) u = grad L_query(phi*)
            u = conjugate_gradients(
                self._curvature(fixed, phi, few.support), slope, self.solver_steps
            )
            # lambda u . phi_0(theta) + L_query(., psi) - u . grad_phi L_support(., psi)
            phi_0 = pick(start, self.loop.parts)
            surrogate = losses.sum() + sum(
                (u[n] * (self.strength * phi_0[n] - inner[n])).sum() for n in u
            )
            total = add(total, gradients(surrogate / episode.tasks, theta))
            figures = {"loss": losses.mean().item(), "losses": losses.tolist()}
            metrics.append((few.tasks, figures))
        return total, mean_metrics(metrics)

    def passes(self) -> float:
        return self.loop.passes(self.model)

    def _descend(self, phi_0: Params, support: Batch) -> list[Params]:
        """Gradient descent on the proximal objective."""
        anchors = {f"anchor.{n}": v for n, v in pick(phi_0, self.loop.parts).items()}
        proximal = _Proximal(self.model, self.strength)
        path = inner_loop(proximal, phi_0 | anchors, support, self.loop, graph="none")
        return [{n: v for n, v in values.items() if part(n) != "anchor"} for values in path]

    def _curvature(self, fixed: Params, phi: Params, support: Batch) -> Callable[[Params], Params]:
        """v -> (H + lambda I) v at phi."""
        gradient = gradients(self.model.loss(fixed | phi, support).sum(), phi, create_graph=True)

        def product(v: Params) -> Params:
            found = torch.autograd.grad(
                list(gradient.values()),
                list(phi.values()),
                list(v.values()),
                retain_graph=True,
                materialize_grads=True,
            )
            return {n: h + self.strength * v[n] for n, h in zip(phi, found, strict=True)}

        return product


class _Proximal(Model):
    """A model whose loss pulls its values towards their anchors: + lambda/2 |phi - anchor|^2."""

    def __init__(self, model: Model, strength: float) -> None:
        self.model = model
        self.strength = strength
        self.encoder = model.encoder
        self.batched = model.batched

    def init(self, generator: torch.Generator) -> Params:
        return self.model.init(generator)

    def start(self, meta: Params, support: Batch, features: Tensor | None = None) -> Params:
        return self.model.start(meta, support, features)

    def features(self, values: Params, batch: Batch) -> Tensor:
        return self.model.features(values, batch)

    def logits(self, values: Params, batch: Batch, features: Tensor | None = None) -> Tensor:
        return self.model.logits(values, batch, features)

    def loss(self, values: Params, batch: Batch, features: Tensor | None = None) -> Tensor:
        distance = [
            (values[n.split(".", 1)[1]] - anchor).square().flatten(1).sum(1)
            for n, anchor in values.items()
            if part(n) == "anchor"
        ]
        return self.model.loss(values, batch, features) + self.strength / 2 * sum(distance)


def conjugate_gradients(product: Callable[[Params], Params], target: Params, steps: int) -> Params:
    """x with A x = b for every task by itself, by `steps` steps from zero.

    Hestenes and Stiefel 1952, section 3.

    Args:
        product: v -> A v, with A symmetric and positive definite.
        target: b, every tensor `[T, ...]`.
        steps: Steps; as many as unknowns are exact.
    """
    x = each(torch.zeros_like, target)
    residual = direction = target
    square = _dot(residual, residual)
    for _ in range(steps):
        image = product(direction)
        alpha = _ratio(square, _dot(direction, image))
        x = _along(x, alpha, direction)
        residual = _along(residual, -alpha, image)
        last, square = square, _dot(residual, residual)
        direction = _along(residual, _ratio(square, last), direction)
    return x


def _dot(a: Params, b: Params) -> Tensor:
    """`[T]` inner products."""
    return torch.stack([(a[n] * b[n]).flatten(1).sum(1) for n in a]).sum(0)


def _ratio(above: Tensor, below: Tensor) -> Tensor:
    """above / below, zero where a task is solved."""
    solved = (above == 0) | (below == 0)
    return torch.where(solved, 0.0, above / torch.where(solved, 1.0, below))


def _along(a: Params, weight: Tensor, b: Params) -> Params:
    """a + weight b, with a weight for each task."""
    return {n: a[n] + weight.view(-1, *[1] * (a[n].dim() - 1)) * b[n] for n in a}
