"""Frozen layers divided among processes by FSDP2, gathered one after the other when they are used.

Adapter values are no part of it: they enter by `functional_call`, whole and the same on every rank.
A layer is gathered for its forward, given back, and gathered once more for its backward.  That is
first order: the second backward of a meta-gradient would find weights that were given back.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from meta_models.adapters import Adapter
from meta_models.targets import layers_of


def shard(adapter: Adapter) -> None:
    """Divide the layers of an adapter's backbone among all processes, in place.

    Every process has to pass through the layers as often as the others: they gather them together.

    Args:
        adapter: The adapter, installed.
    """
    kind = "cuda" if torch.cuda.is_available() else "cpu"
    mesh = init_device_mesh(kind, (dist.get_world_size(),))
    model, layers = adapter.backbone.model, layers_of(adapter.backbone)
    whole = _values(adapter)
    for layer in layers:
        fully_shard(layer, mesh=mesh, reshard_after_forward=True, ignored_params=whole)
    # The model around them has nothing to divide; it lets the next layer come before it is used.
    inside = {p for layer in layers for p in layer.parameters()}
    around = {p for p in model.parameters() if p not in inside}
    fully_shard(model, mesh=mesh, ignored_params=whole | around)
    # Nothing here changes hidden states in place, which is what it warns of.
    warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view tensor")
    adapter.gathered = partial(_gathered, layers)


@contextmanager
def _gathered(layers: list[Any]) -> Iterator[None]:
    for layer in layers:
        layer.unshard()
    try:
        yield
    finally:
        for layer in layers:
            layer.reshard()


def _values(adapter: Adapter) -> set[nn.Parameter]:
    """All parameters that are not the backbone's own, or that values take the place of."""
    found = {p for name, p in adapter.model.named_parameters() if name in adapter.names}
    for module in adapter.model.modules():
        if hasattr(module, "base_layer"):  # a wrapped module; beside it lie the adapter's parts
            own = module.named_parameters()
            found |= {p for name, p in own if not name.startswith("base_layer.")}
    return found
