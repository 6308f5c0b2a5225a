"""Where an adapter sits: modules of a backbone by pattern, ending, kind and layer."""

from __future__ import annotations

import re

from torch import Tensor, nn

from meta_models.backbone import Backbone
from meta_models.errors import ModelError

_LAYER = re.compile(r"\.(?:layers?|h|blocks?|block)\.(\d+)\.")


def matching(
    backbone: Backbone, method: str, targets: str | list[str], layers: tuple[int, ...] | None
) -> list[str]:
    """Full names of the modules that `targets` and `layers` name.

    Args:
        backbone: The frozen model.
        method: The adapter method, for the messages.
        targets: A pattern, "all-linear", or full names or endings of them.
        layers: Indices of layers; None means all, and what lies outside of layers.

    Raises:
        ModelError: If a layer does not exist, or no module matches.

    Example:
        >>> from meta_models.backbone import load_backbone
        >>> matching(load_backbone("tiny-bert"), "lora", ["query"], layers=(1,))
        ['encoder.layer.1.attention.self.query']
    """
    modules = dict(backbone.model.named_modules())
    if targets == "all-linear":
        from transformers.pytorch_utils import Conv1D

        linear = nn.Linear | Conv1D
        found = [name for name, module in modules.items() if isinstance(module, linear)]
    else:
        found = [name for name in modules if named(name, targets)]
    if layers is not None:
        wrong = [layer for layer in layers if not 0 <= layer < backbone.layers]
        if wrong:
            raise ModelError(f"{backbone.name} has layers 0 to {backbone.layers - 1}, not {wrong}")
        found = [name for name in found if layer_of(name) in layers]
    if not found:
        shown = targets if isinstance(targets, str) else ", ".join(sorted(targets))
        raise ModelError(
            f"adapter {method!r}: target modules {shown} match nothing in {backbone.name}; "
            "name modules of this model: --adapter.options '{\"target_modules\": [...]}'"
        )
    return found


def named(name: str, targets: str | list[str]) -> bool:
    """Whether a pattern, or one of several endings, names a module.

    Example:
        >>> named("layer.0.output.dense", ["output.dense"]), named("layer.0.dense", "dense")
        (True, False)
    """
    if isinstance(targets, str):
        return bool(re.fullmatch(targets, name))
    return any(name == target or name.endswith(f".{target}") for target in targets)


def layer_of(name: str) -> int | None:
    """Index of the layer that a module belongs to; None outside of layers.

    Example:
        >>> layer_of("encoder.layer.3.output.dense"), layer_of("pooler.dense")
        (3, None)
    """
    found = _LAYER.search(f".{name}.")
    return int(found[1]) if found else None


def layers_of(backbone: Backbone) -> list[nn.Module]:
    """The transformer layers, in order.

    Example:
        >>> from meta_models.backbone import load_backbone
        >>> [type(layer).__name__ for layer in layers_of(load_backbone("tiny-gpt2"))]
        ['GPT2Block', 'GPT2Block']
    """
    found: dict[int, nn.Module] = {}
    for name, module in backbone.model.named_modules():
        index = layer_of(name)
        if index is not None:
            found.setdefault(index, module)  # a layer comes before its parts
    return [found[index] for index in sorted(found)]


def norms(backbone: Backbone) -> list[str]:
    """Normalizations of the layers and the one behind them; not those of the embeddings."""
    return [
        name
        for name, module in backbone.model.named_modules()
        if "norm" in type(module).__name__.lower() and "embed" not in name
    ]


def biased(backbone: Backbone) -> list[str]:
    """Modules of the layers that have a bias."""
    return [
        name
        for name, module in backbone.model.named_modules()
        if isinstance(getattr(module, "bias", None), Tensor) and layer_of(name) is not None
    ]


def first_linear(backbone: Backbone) -> str:
    """The first linear module of the layers."""
    return next(
        name
        for name, module in backbone.model.named_modules()
        if isinstance(weight := getattr(module, "weight", None), Tensor)
        and weight.dim() == 2
        and layer_of(name) is not None
    )
