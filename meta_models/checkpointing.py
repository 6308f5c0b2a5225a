"""Activation checkpointing that holds at second order: what is not kept is computed again.

    y = F(x)             keeps x alone
    g = J_F(x)^T v       keeps x and v alone, and computes F again
    J_g(x, v)^T u        computes both again

The idea is that of Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost", section 3, at
both levels: PyTorch's own checkpointing drops the activations of the forward, but the graph of a
backward that is differentiated itself holds what was computed again: the peak stays where it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._pytree import tree_flatten, tree_unflatten

from meta_models.errors import ModelError

Function = Callable[..., Sequence[Tensor]]


def recomputed(function: Callable[..., Any], *arguments: Any) -> Any:
    """`function(*arguments)`, once or twice differentiable, keeping no more than its arguments.

    Args:
        function: Returns tensors, nested or not, that depend on nothing that needs a gradient but
            the arguments.
        arguments: Tensors, nested or not, and anything else.

    Example:
        >>> x = torch.tensor(2.0, requires_grad=True)
        >>> slope = torch.autograd.grad(recomputed(torch.exp, x), x, create_graph=True)[0]
        >>> torch.equal(torch.autograd.grad(slope, x)[0], x.exp())
        True
    """
    leaves, shape = tree_flatten(arguments)
    places = [i for i, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]
    if not torch.is_grad_enabled() or not any(leaves[i].requires_grad for i in places):
        return function(*arguments)
    fixed = [None if isinstance(leaf, Tensor) else leaf for leaf in leaves]
    shapes: list[Any] = []

    def of(*tensors: Tensor) -> Sequence[Tensor]:
        filled = list(fixed)
        for place, tensor in zip(places, tensors, strict=True):
            filled[place] = tensor
        outputs, found = tree_flatten(function(*tree_unflatten(filled, shape)))
        shapes[:] = [found]
        return tuple(outputs)

    outputs = _Value.apply(of, *(leaves[i] for i in places))
    return tree_unflatten(list(outputs), shapes[0])


class _Value(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, function: Function, *inputs: Tensor) -> tuple[Tensor, ...]:
        ctx.function = function
        ctx.save_for_backward(*inputs)
        return tuple(function(*inputs))

    @staticmethod
    def backward(ctx: Any, *v: Tensor) -> tuple[Tensor | None, ...]:
        inputs = ctx.saved_tensors
        wanted = [i for i, needed in enumerate(ctx.needs_input_grad[1:]) if needed]
        found = iter(_Slope.apply(ctx.function, wanted, len(inputs), *inputs, *v))
        return None, *(next(found) if i in wanted else None for i in range(len(inputs)))


class _Slope(torch.autograd.Function):
    """J_F(x)^T v in the wanted inputs."""

    @staticmethod
    def forward(
        ctx: Any, function: Function, wanted: Sequence[int], count: int, *tensors: Tensor
    ) -> tuple[Tensor, ...]:
        ctx.function, ctx.wanted, ctx.count = function, wanted, count
        ctx.save_for_backward(*tensors)
        with torch.enable_grad():
            at = [x.detach().requires_grad_(i in wanted) for i, x in enumerate(tensors[:count])]
            return torch.autograd.grad(
                function(*at), [at[i] for i in wanted], tensors[count:], materialize_grads=True
            )

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *u: Tensor) -> tuple[Tensor | None, ...]:
        tensors, wanted, count = ctx.saved_tensors, ctx.wanted, ctx.count
        asked = [i for i, needed in enumerate(ctx.needs_input_grad[3:]) if needed]
        with torch.enable_grad():
            at = [
                x.detach().requires_grad_(i in wanted or i in asked) for i, x in enumerate(tensors)
            ]
            slopes = torch.autograd.grad(
                ctx.function(*at[:count]),
                [at[i] for i in wanted],
                at[count:],
                create_graph=True,
                allow_unused=True,
            )
        pairs = [
            (g, w) for g, w in zip(slopes, u, strict=True) if g is not None and g.requires_grad
        ]
        found: Iterator[Tensor | None] = iter([None] * len(asked))
        if pairs:
            outputs, cotangents = zip(*pairs, strict=True)
            leaves = [at[i] for i in asked]
            found = iter(torch.autograd.grad(outputs, leaves, cotangents, allow_unused=True))
        products = [next(found) if i in asked else None for i in range(len(tensors))]
        return None, None, None, *products


class Checkpoints:
    """Transformer layers that keep their inputs alone, where they are asked to.

    Within `torch.vmap` a layer cannot: there the whole call is to be `recomputed`.

    Args:
        layers: The layers, with their adapter installed; their `forward` is replaced.
    """

    def __init__(self, layers: Sequence[nn.Module]) -> None:
        self._active = False
        for layer in layers:
            layer.forward = partial(self._forward, _Shell(layer), dict(layer.named_parameters()))

    @contextmanager
    def active(self) -> Iterator[None]:
        """Within, a layer keeps its inputs alone."""
        self._active = True
        try:
            yield
        finally:
            self._active = False

    def _forward(
        self, shell: _Shell, installed: dict[str, Tensor], *args: Any, **kwargs: Any
    ) -> Any:
        if not self._active:
            return shell(*args, **kwargs)
        if any(hasattr(given, "get_seq_length") for given in (*args, *kwargs.values())):
            raise ModelError(
                "backbone.checkpoint: layers that share a cache cannot be computed again; "
                "leave it off with prefix and prompt tuning"
            )
        # The adapter's values stand in the layer only during the forward.
        own = {
            f"layer.{name}": value
            for name, value in shell.layer.named_parameters()
            if value is not installed[name]
        }
        return recomputed(lambda *given: functional_call(shell, *given), own, args, kwargs)


class _Shell(nn.Module):
    """A layer as it was."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer
        self._inner = layer.forward

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self._inner(*args, **kwargs)
