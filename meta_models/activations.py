"""The activations of a frozen backbone with their second derivative in closed form.

    y = f(x),    g -> f'(x) g,    its derivative along v:  f'(x) v in g,  f''(x) g v in x
    GELU (Hendrycks and Gimpel 2016):  f(x) = x Phi(x),  f''(x) = (2 - x^2) phi(x)

A meta-gradient differentiates the backward of every layer.  PyTorch puts this one together from ten
operations, each with a result of its own as large as the widest activations; here they are fewer,
and most write in place.  Values and first derivatives are PyTorch's own, bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from math import pi, sqrt
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu

_slope = torch.ops.aten.gelu_backward  # (g, x) -> f'(x) g


def _bend(x: Tensor, g: Tensor, v: Tensor) -> Tensor:
    """f''(x) g v."""
    if torch.is_grad_enabled():  # to be differentiated again
        return (2 - x * x) * (x * x * -0.5).exp() * (1 / sqrt(2 * pi)) * g * v
    square = x * x
    density = (square * -0.5).exp_().mul_(1 / sqrt(2 * pi))
    return square.neg_().add_(2).mul_(density).mul_(g).mul_(v)


class _Value(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        ctx.save_for_forward(x)
        return gelu(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return _Slope.apply(gradients[0], *ctx.saved_tensors)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        return _slope(tangents[0], *ctx.saved_tensors)


class _Slope(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, g: Tensor, x: Tensor) -> Tensor:
        ctx.save_for_backward(g, x)
        ctx.save_for_forward(g, x)
        return _slope(g, x)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        (v,), (g, x) = gradients, ctx.saved_tensors
        in_g = _slope(v, x) if ctx.needs_input_grad[0] else None
        return in_g, _bend(x, g, v) if ctx.needs_input_grad[1] else None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        g, x = ctx.saved_tensors
        along_g, along_x = (torch.zeros_like(x) if t is None else t for t in tangents)
        return _slope(along_g, x) + _bend(x, g, along_x)


class _GELU(nn.Module):
    """A GELU, with the closed derivative while `closed` is."""

    closed = False

    def forward(self, x: Tensor) -> Tensor:
        return _Value.apply(x) if self.closed else gelu(x)  # pyright: ignore[reportReturnType]


class Closed:
    """The GELUs of a model, with closed derivatives where they are asked for.

    Within `torch.vmap` they cannot be had.

    Args:
        model: Its exact GELUs are replaced by modules of the same value.

    Example:
        >>> closed = Closed(layer := nn.Sequential(nn.GELU()))
        >>> x = torch.tensor(0.0, requires_grad=True)
        >>> with closed.active():
        ...     slope = torch.autograd.grad(layer(x), x, create_graph=True)[0]
        >>> round(torch.autograd.grad(slope, x)[0].item() * sqrt(2 * pi), 4)
        2.0
    """

    def __init__(self, model: nn.Module) -> None:
        for module in list(model.modules()):
            for name, child in list(module.named_children()):
                if _is_exact(child):
                    setattr(module, name, _GELU())
        self._modules = [module for module in model.modules() if isinstance(module, _GELU)]

    @contextmanager
    def active(self) -> Iterator[None]:
        """Within, derivatives are the closed ones."""
        for module in self._modules:
            module.closed = True
        try:
            yield
        finally:
            for module in self._modules:
                module.closed = False


def _is_exact(module: nn.Module) -> bool:
    from transformers.activations import GELUActivation

    if isinstance(module, GELUActivation):
        return module.act is gelu
    return isinstance(module, nn.GELU) and module.approximate == "none"
