"""The inner loop run by higher: its patched modules and differentiable optimizers.

Grefenstette et al. 2019, "Generalized Inner Loop Meta-Learning", section 4; the library is
https://github.com/facebookresearch/higher.

    phi_{s+1} = opt_s(phi_s, m_s, callback(grad L_support(phi_s)); alpha_s)

`higher.monkeypatch` makes the support loss a function of fast weights, which begin at phi_0 with
its graph; the differentiable twin of a torch optimizer moves them.  Every value is a parameter
group, so that it has a rate of its own, a number or a tensor that is learned.  Truncation, first
order and preconditioners are callbacks on the gradients.

Where it differs from the native loop:

1. Tasks go one after the other, and the graph is unrolled.
2. Its Adam adds eps to sqrt(v) before the bias is corrected, as torch once did, and where v is zero
   its direction turns by 1/eps.  It is given eps sqrt(1 - b2^{s+1}), and an infinite one where v is
   zero: the directions are those of torch today, the derivatives those of the native loop.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from metalearn.inner.engines import Engine, SupportLoss, Task, refuse
from metalearn.inner.optimizers import SGD, Adam, Momentum

if TYPE_CHECKING:
    from meta_models.params import Params
    from metalearn.inner.loop import InnerLoop


@dataclass(frozen=True)
class Higher(Engine):
    """higher's differentiable SGD, momentum and Adam.

    Example:
        >>> from metalearn.inner.loop import InnerLoop
        >>> InnerLoop(steps=3, engine=Higher()).engine
        Higher()
        >>> InnerLoop(steps=3, gradient="adjoint", engine=Higher())
        Traceback (most recent call last):
            ...
        meta_models.errors.ModelError: inner.engine higher has no adjoint; set ...
    """

    def check(self, loop: InnerLoop) -> None:
        who, optimizer = "inner.engine higher", type(loop.optimizer)
        if loop.gradient == "adjoint":
            refuse(who, "has no adjoint", "inner.gradient to unrolled", "native")
        if optimizer not in (SGD, Momentum, Adam):
            remedy = "inner.optimizer to sgd, momentum or adam"
            refuse(who, f"has no optimizer {optimizer.__name__}", remedy, "native")

    def descend(self, task: Task, loop: InnerLoop) -> list[Params]:
        import higher  # by those alone who run it

        module = SupportLoss(task.loss, task.start)
        tracked = task.graph != "none"
        fast: Any = higher.monkeypatch(module, track_higher_grads=tracked)
        fast.update_params(list(task.start.values()))
        stepper = higher.get_diff_optim(
            _optimizer(loop, module), module.parameters(), fmodel=fast, track_higher_grads=tracked
        )
        path = []
        for step in range(loop.steps):
            change: Any = partial(_change, task, loop, step, stepper)
            stepper.step(fast(), override={"lr": task.rates(loop, step)}, grad_callback=change)
            path.append(fast.values())
        return path


def _optimizer(loop: InnerLoop, module: SupportLoss) -> torch.optim.Optimizer:
    """The torch optimizer whose twin takes the steps; rates are given at each of them."""
    groups = [{"params": [parameter]} for parameter in module.parameters()]
    if isinstance(loop.optimizer, Adam):
        return torch.optim.Adam(groups, betas=(loop.optimizer.beta1, loop.optimizer.beta2))
    momentum = loop.optimizer.decay if isinstance(loop.optimizer, Momentum) else 0.0
    return torch.optim.SGD(groups, lr=1.0, momentum=momentum)


def _change(
    task: Task, loop: InnerLoop, step: int, stepper: Any, found: tuple[Tensor, ...]
) -> list[Tensor]:
    """What is done to the gradients of a step before higher's optimizer has them."""
    gradient = dict(zip(task.start, found, strict=True))
    if not task.exact(loop, step):
        gradient = {name: g.detach() for name, g in gradient.items()}
    if loop.preconditioner is not None:
        batched = {name: g.unsqueeze(0) for name, g in gradient.items()}
        mapped = loop.preconditioner(task.rules, batched)
        gradient = {name: g.squeeze(0) for name, g in mapped.items()}
    if isinstance(loop.optimizer, Adam):
        groups = zip(gradient.values(), stepper.param_groups, stepper.state, strict=True)
        for g, group, state in groups:
            group["eps"] = _epsilon(loop.optimizer, step, g, state[0])
    return list(gradient.values())


def _epsilon(adam: Adam, step: int, gradient: Tensor, state: dict[str, Any]) -> Tensor:
    """eps of each element, infinite where this gradient and all before it are zero."""
    mean_square = (1 - adam.beta2) * gradient.detach().square()
    if state:
        mean_square = mean_square + adam.beta2 * state["exp_avg_sq"].detach()
    epsilon = adam.epsilon * (1 - adam.beta2 ** (step + 1)) ** 0.5
    return torch.full_like(mean_square, epsilon).where(mean_square > 0, torch.inf)
