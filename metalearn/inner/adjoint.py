"""The adjoint gradient: the inner gradient as a node that keeps its inputs instead of its graph.

    g_s = grad_phi L(phi_s, psi)                         psi: what the step does not adapt
    backward of v = dL/dg_s:   grad_{phi, psi} <g_s, v>  a Hessian-vector product, recomputed

A path of steps then holds the states and what the updates between them keep, all as small as the
adapter; the activations of a step live only while its own product is computed, so that the memory
of a backward does not grow with the number of steps.  The result is that of the unrolled graph.
The idea is the reversal of Kemaev et al. 2025, "Scalable Meta-Learning via Mixed-Mode
Differentiation", section 3.  There are two ways to the product:

    reverse   d<grad_phi L(phi, psi), v> / d(phi, psi)             a backward through the backward
    forward   d/de grad_{phi, psi} L(phi + e v, psi) at e = 0      tangents through the backward
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial, reduce
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd import forward_ad

from meta_models.params import Params

Mode = Literal["auto", "reverse", "forward"]
"""Way to the product; auto: the faster one on the device."""

Loss = Callable[[Params], Tensor]
Flat = Callable[..., Tensor]
"""The same as a function of tensors."""
Slopes = Sequence[Tensor | None]

# By device. On a CPU tangents took a third longer, by `python -m experiments.benchmarks adjoint`;
# another device is timed at its first product.
_faster: dict[str, Literal["reverse", "forward"]] = {"cpu": "reverse"}
_log = logging.getLogger(__name__)


def kept_gradient(
    losses: Sequence[Loss],
    phi: Mapping[str, Tensor],
    psi: Mapping[str, Tensor],
    mode: Mode = "auto",
) -> Params:
    """grad_phi of a sum of losses, differentiable in `phi` and `psi` without a graph kept for it.

    Args:
        losses: Scalars, functions of the values they are given alone; taken one after the other,
            so that what is held at once is what one of them takes.
        phi: Values that the gradient is taken in.
        psi: Other values that the loss depends on.
        mode: Way to the Hessian-vector product.

    Example:
        >>> x = torch.tensor(3.0, requires_grad=True)
        >>> slope = kept_gradient([lambda values: values["x"] ** 3], {"x": x}, {})["x"]
        >>> slope.item(), torch.autograd.grad(slope, x)[0].item()
        (27.0, 18.0)
    """
    names = [*phi, *psi]
    given = (*phi.values(), *psi.values())

    def of(loss: Loss, *inputs: Tensor) -> Tensor:
        return loss(dict(zip(names, inputs, strict=True)))

    flat = [partial(of, loss) for loss in losses]
    return dict(zip(phi, _Gradient.apply(flat, len(phi), mode, *given), strict=True))


class _Gradient(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, losses: Sequence[Flat], count: int, mode: Mode, *inputs: Tensor
    ) -> tuple[Tensor | None, ...]:
        ctx.losses, ctx.mode = losses, mode
        ctx.save_for_backward(*inputs)
        at = [x.detach().requires_grad_(i < count) for i, x in enumerate(inputs)]

        def gradient(loss: Flat) -> Slopes:
            with torch.enable_grad():
                return torch.autograd.grad(loss(*at), at[:count], materialize_grads=True)

        return tuple(_sum(map(gradient, losses)))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *v: Tensor) -> tuple[Tensor | None, ...]:
        product = _product(ctx.mode, v[0].device)
        wanted = [i for i, needed in enumerate(ctx.needs_input_grad[3:]) if needed]
        found = iter(_sum(product(loss, ctx.saved_tensors, v, wanted) for loss in ctx.losses))
        slopes = [next(found) if i in wanted else None for i in range(len(ctx.saved_tensors))]
        return None, None, None, *slopes


def _sum(terms: Iterable[Slopes]) -> Slopes:
    """Entry by entry; None is zero."""

    def both(a: Slopes, b: Slopes) -> Slopes:
        return [_plus(x, y) for x, y in zip(a, b, strict=True)]

    return reduce(both, terms)


def _plus(x: Tensor | None, y: Tensor | None) -> Tensor | None:
    return x if y is None else y if x is None else x + y


Tensors = Sequence[Tensor]
Product = Callable[[Flat, Tensors, Tensors, Sequence[int]], Slopes]
"""`product(loss, inputs, v, wanted)`: gradients of <grad_phi loss, v> in the wanted inputs; phi are
the first inputs, as many as there are v."""


def _reverse(
    loss: Flat,
    inputs: Sequence[Tensor],
    v: Sequence[Tensor],
    wanted: Sequence[int],
) -> Slopes:
    with torch.enable_grad():
        at = [x.detach().requires_grad_(i < len(v) or i in wanted) for i, x in enumerate(inputs)]
        g = torch.autograd.grad(loss(*at), at[: len(v)], create_graph=True, allow_unused=True)
        reached = [(a, b) for a, b in zip(g, v, strict=True) if a is not None and a.requires_grad]
    if not reached:  # a loss that is linear in phi
        return [None] * len(wanted)
    outputs, cotangents = zip(*reached, strict=True)
    return torch.autograd.grad(outputs, [at[i] for i in wanted], cotangents, allow_unused=True)


def _forward(
    loss: Flat,
    inputs: Sequence[Tensor],
    v: Sequence[Tensor],
    wanted: Sequence[int],
) -> Slopes:
    with torch.enable_grad(), forward_ad.dual_level():
        at = [x.detach().contiguous().requires_grad_(i in wanted) for i, x in enumerate(inputs)]
        # phi + e v; contiguous, as tangents cannot be written into the views of a shared start
        moved = [forward_ad.make_dual(x, d) for x, d in zip(at, v, strict=False)] + at[len(v) :]
        g = torch.autograd.grad(loss(*moved), [at[i] for i in wanted], allow_unused=True)
        return [None if x is None else forward_ad.unpack_dual(x).tangent for x in g]


_PRODUCTS: dict[str, Product] = {"reverse": _reverse, "forward": _forward}


def _product(mode: Mode, device: torch.device) -> Product:
    if mode != "auto":
        return _PRODUCTS[mode]
    return _PRODUCTS[_faster[device.type]] if device.type in _faster else _timed


def _timed(
    loss: Flat,
    inputs: Sequence[Tensor],
    v: Sequence[Tensor],
    wanted: Sequence[int],
) -> Slopes:
    """The product, and from now on the faster way to it on this device."""
    device, seconds, found = v[0].device, {}, {}
    for name in ("reverse", "forward", "forward", "reverse"):  # the first of each warms up
        _wait(device)
        began = time.perf_counter()
        found[name] = _PRODUCTS[name](loss, inputs, v, wanted)
        _wait(device)
        seconds[name] = time.perf_counter() - began
    _faster[device.type] = "reverse" if seconds["reverse"] <= seconds["forward"] else "forward"
    _log.info(
        "adjoint on %s: reverse %.1f ms, forward %.1f ms; %s from now on",
        *(device.type, 1e3 * seconds["reverse"], 1e3 * seconds["forward"], _faster[device.type]),
    )
    return found["reverse"]


def _wait(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
