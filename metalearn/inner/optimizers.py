"""Inner optimizers: how the gradients of the steps so far become a direction, differentiably.

An optimizer's slots (averages of gradients) are part of what a step maps, so that the gradient of
an inner loop goes through them as it goes through the values.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from meta_models.params import Params, each


class Optimizer(ABC):
    """From gradients to the direction d_s of a step phi_{s+1} = phi_s - alpha * d_s."""

    def start(self, values: Params) -> Params:
        """Slots before the first step, for adapted `values` `[T, ...]`."""
        return {}

    @abstractmethod
    def direction(self, gradient: Params, slots: Params, step: int) -> tuple[Params, Params]:
        """Direction of step `step` = 0, 1, ..., and the slots after it.

        Args:
            gradient: Gradient of the support loss in each adapted value.
            slots: Slots before the step.
            step: Steps done before.
        """


@dataclass(frozen=True)
class SGD(Optimizer):
    """Gradient descent: d_s = g_s.

    Example:
        >>> SGD().direction({"a": torch.tensor([2.0])}, {}, 0)
        ({'a': tensor([2.])}, {})
    """

    def direction(self, gradient: Params, slots: Params, step: int) -> tuple[Params, Params]:
        return gradient, slots


@dataclass(frozen=True)
class Momentum(Optimizer):
    """Heavy ball, as in torch.optim.SGD: d_s = mu d_{s-1} + g_s.

    Polyak 1964, "Some methods of speeding up the convergence of iteration methods", section 2.

    Attributes:
        decay: mu.
    """

    decay: float = 0.9

    def start(self, values: Params) -> Params:
        return {f"d.{name}": torch.zeros_like(value) for name, value in values.items()}

    def direction(self, gradient: Params, slots: Params, step: int) -> tuple[Params, Params]:
        d = {name: self.decay * slots[f"d.{name}"] + g for name, g in gradient.items()}
        return d, {f"d.{name}": value for name, value in d.items()}


@dataclass(frozen=True)
class Adam(Optimizer):
    """Adam with bias correction, as in torch.optim.Adam.

        m_s = b1 m_{s-1} + (1 - b1) g_s,    v_s = b2 v_{s-1} + (1 - b2) g_s^2
        d_s = m_s / (1 - b1^{s+1}) / (sqrt(v_s / (1 - b2^{s+1})) + eps)

    Kingma and Ba 2015, "Adam: A Method for Stochastic Optimization", algorithm 1.  Where every
    gradient so far was exactly zero (LoRA's A while B is zero) the square root has no derivative
    and d_s turns by 1/eps: there the direction is zero and so is its derivative.

    Attributes:
        beta1: b1, decay of the mean.
        beta2: b2, decay of the mean square.
        epsilon: eps, added to the root.
    """

    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8

    def start(self, values: Params) -> Params:
        return {
            f"{slot}.{name}": torch.zeros_like(value)
            for slot in ("m", "v")
            for name, value in values.items()
        }

    def direction(self, gradient: Params, slots: Params, step: int) -> tuple[Params, Params]:
        names = gradient.keys()
        old_m = {name: slots[f"m.{name}"] for name in names}
        old_v = {name: slots[f"v.{name}"] for name in names}
        m = each(lambda m, g: self.beta1 * m + (1 - self.beta1) * g, old_m, gradient)
        v = each(lambda v, g: self.beta2 * v + (1 - self.beta2) * g.square(), old_v, gradient)

        def towards(m: Tensor, v: Tensor) -> Tensor:
            moved = v > 0
            root = (v.where(moved, 1.0) / (1 - self.beta2 ** (step + 1))).sqrt()
            d = m / (1 - self.beta1 ** (step + 1)) / (root + self.epsilon)
            return d.where(moved, 0.0)

        kept = {f"m.{name}": m[name] for name in names} | {f"v.{name}": v[name] for name in names}
        return each(towards, m, v), kept
