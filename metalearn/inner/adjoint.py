"""The adjoint gradient of a composition of step maps: keep the states, not the graph.

    (phi_{s+1}, m_{s+1}) = F_s(phi_s, m_s, theta)
    (lambda_s, mu_s) = (dF_s / d(phi_s, m_s))^T (lambda_{s+1}, mu_{s+1})
    d theta += (dF_s / d theta)^T (lambda_{s+1}, mu_{s+1})

Each step is computed without a graph, its inputs are kept, and on the way back the step is
computed again, with the graph that its vector-Jacobian product needs.  The memory of a backward
does not grow with the number of steps beyond the kept states, which are as small as the adapter;
the result is that of the unrolled graph.  The idea is the reversal of Kemaev et al. 2025,
"Scalable Meta-Learning via Mixed-Mode Differentiation", section 3, here in reverse over reverse.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

StepMap = Callable[..., tuple[Tensor, ...]]
"""`step(exact, *inputs) -> outputs`: `exact` asks for a graph from the inputs to the outputs."""


def recomputed(step: StepMap, *inputs: Tensor) -> tuple[Tensor, ...]:
    """`step(True, *inputs)`, with only `inputs` kept for its backward.

    Args:
        step: A step map; it must be a function of its inputs alone.
        inputs: Everything that a gradient is wanted for.

    Example:
        >>> x = torch.tensor(3.0, requires_grad=True)
        >>> (square,) = recomputed(lambda exact, x: (x * x,), x)
        >>> torch.autograd.grad(square, x)
        (tensor(6.),)
    """
    return _Recomputed.apply(step, *inputs)  # type: ignore[no-any-return]


class _Recomputed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, step: StepMap, *inputs: Tensor) -> tuple[Tensor, ...]:
        ctx.step = step
        ctx.save_for_backward(*inputs)
        return tuple(x.detach() for x in step(False, *(x.detach() for x in inputs)))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, ...]:
        inputs = [
            x.detach().requires_grad_(needed)
            for x, needed in zip(ctx.saved_tensors, ctx.needs_input_grad[1:], strict=True)
        ]
        with torch.enable_grad():
            outputs = ctx.step(True, *inputs)
        reached = [(y, c) for y, c in zip(outputs, cotangents, strict=True) if y.requires_grad]
        wanted = [x for x in inputs if x.requires_grad]
        found = torch.autograd.grad(
            [y for y, _ in reached], wanted, [c for _, c in reached], allow_unused=True
        )
        slopes = iter(found)
        return None, *(next(slopes) if x.requires_grad else None for x in inputs)
