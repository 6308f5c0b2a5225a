"""`Params`: parameters as a dictionary of tensors, and the arithmetic on it.

Names are `part.rest`: `adapter.*` and `body.*` make features, `head.weight` and `head.bias` make
logits, everything else (`scale`, `slots`) is used but never adapted.  In the inner loop every
tensor carries a leading task axis `T`; in a learner's state none does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

Params = dict[str, Tensor]


def part(name: str) -> str:
    """First component of a parameter's name.

    Example:
        >>> part("adapter.layer.0.lora_A")
        'adapter'
    """
    return name.split(".", 1)[0]


def pick(params: Mapping[str, Tensor], parts: Sequence[str]) -> Params:
    """The parameters that belong to one of `parts`."""
    return {name: value for name, value in params.items() if part(name) in parts}


def each(function: Callable[..., Tensor], *params: Mapping[str, Tensor]) -> Params:
    """Apply a function name by name.

    Example:
        >>> each(torch.add, {"a": torch.ones(1)}, {"a": torch.ones(1)})
        {'a': tensor([2.])}
    """
    return {name: function(*(p[name] for p in params)) for name in params[0]}


def stack(params: Mapping[str, Tensor], tasks: int) -> Params:
    """One copy of `params` a task, as `[T, ...]` views: the gradient of a view sums over tasks."""
    return {name: value.expand(tasks, *value.shape) for name, value in params.items()}


def leaves(params: Mapping[str, Tensor]) -> Params:
    """Detached copies of `params` that collect gradients."""
    return {name: value.detach().clone().requires_grad_() for name, value in params.items()}


def gradients(loss: Tensor, params: Mapping[str, Tensor], *, create_graph: bool = False) -> Params:
    """d loss / d params; zero where the loss does not depend on a parameter."""
    found = torch.autograd.grad(
        loss, list(params.values()), create_graph=create_graph, materialize_grads=True
    )
    return dict(zip(params, found, strict=True))


def norm(params: Mapping[str, Tensor]) -> Tensor:
    """Euclidean norm over all tensors.

    Example:
        >>> norm({"a": torch.tensor([3.0]), "b": torch.tensor([4.0])}).item()
        5.0
    """
    return torch.linalg.vector_norm(
        torch.stack([torch.linalg.vector_norm(value) for value in params.values()])
    )
