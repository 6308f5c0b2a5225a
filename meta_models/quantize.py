"""Frozen weights of 8 or 4 bits, under adapters whose gradients are exact.

    y = x W^T,   dx = dy W          with W = unpack(weights), never kept

This is the linear map of the unpacked weights and its transpose, so that derivatives of any order
are those of the model with these weights, and several tasks go through one product.  The products
of bitsandbytes are not that: those of 8 bits round their input to 8 bits as well and differentiate
as if they had not, and neither kind goes through `torch.vmap`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import Any, Literal

import torch
from torch import Tensor, nn

from meta_models.errors import ModelError

Quantization = Literal["none", "8bit", "4bit"]
"""int8 with a scale a row, or NormalFloat4 with a scale for 64 values (Dettmers et al. 2023)."""
# It tells of each optional kernel that it does not find, on import.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)


def loading(kind: Quantization, device: str | torch.device = "cpu") -> dict[str, Any]:
    """Arguments of `from_pretrained` that quantize the weights as they are read.

    Raises:
        ModelError: If bitsandbytes is not installed.

    Example:
        >>> loading("none")
        {}
    """
    if kind == "none":
        return {}
    if find_spec("bitsandbytes") is None:
        raise ModelError(
            f"backbone.quantize {kind} needs bitsandbytes; pip install 'metalearn[quantized]'"
        )
    from transformers import BitsAndBytesConfig

    if kind == "8bit":
        config = BitsAndBytesConfig(load_in_8bit=True)
    else:
        config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")
    return {"quantization_config": config, "device_map": {"": str(device)}}


def exact(model: nn.Module) -> None:
    """Give the quantized layers of a model, if it has any, products that are exact.

    Raises:
        ModelError: If the model was quantized by anything but bitsandbytes.
    """
    if not getattr(model, "is_quantized", False):
        return
    found = False
    for module in model.modules():
        if (unpack := unpacking(module)) is not None:
            module.forward = partial(_linear, module, unpack)
            found = True
    if not found:
        method = model.config.quantization_config.quant_method  # pyright: ignore
        raise ModelError(
            f"weights quantized by {getattr(method, 'value', method)} have no exact derivatives; "
            "use those of full precision, with backbone.quantize"
        )


def unpacking(module: nn.Module) -> Callable[[torch.dtype], Tensor] | None:
    """What makes `[out, in]` of a layer's weights; None for a layer that is not quantized."""
    kind = type(module).__name__  # asked by name, so that nothing is imported for nothing
    if kind == "Linear4bit":
        return partial(_unpacked_4bit, module)
    return partial(_unpacked_8bit, module) if kind == "Linear8bitLt" else None


def _unpacked_4bit(layer: Any, dtype: torch.dtype) -> Tensor:
    from bitsandbytes.functional import dequantize_4bit

    return dequantize_4bit(layer.weight.data, layer.weight.quant_state).to(dtype)


def _unpacked_8bit(layer: Any, dtype: torch.dtype) -> Tensor:
    scale = layer.weight.SCB if layer.state.SCB is None else layer.state.SCB
    return (layer.weight.data * (scale / 127).unsqueeze(1)).to(dtype)


def _linear(layer: Any, unpack: Callable[[torch.dtype], Tensor], x: Tensor) -> Tensor:
    product: Any = Product.apply(x, unpack, False)
    return product if layer.bias is None else product + layer.bias


class Product(torch.autograd.Function):
    """`apply(x, unpack, transposed)`: x W^T, or, transposed, x W.

    W is unpacked again wherever a derivative needs it.
    """

    @staticmethod
    def forward(x: Tensor, unpack: Callable[[torch.dtype], Tensor], transposed: bool) -> Tensor:
        weight = unpack(x.dtype)
        return x @ (weight if transposed else weight.mT)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, ctx.unpack, ctx.transposed = inputs

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return Product.apply(gradients[0], ctx.unpack, not ctx.transposed), None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        return Product.apply(tangents[0], ctx.unpack, ctx.transposed)

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[Any, ...], x: Tensor, unpack: Any, transposed: bool
    ) -> tuple[Any, int]:
        return Product.apply(x.movedim(in_dims[0], 0), unpack, transposed), 0
