"""DoRA's magnitudes, with the exact derivative of the norm that they are divided by.

Liu et al. 2024, "DoRA: Weight-Decomposed Low-Rank Adaptation", equation 5.

    W' = m V / |V|,    V = W + s B A,    |V| the norm of each row (output unit)

Deviation from the paper:

1. The norm is differentiated.  The paper (section 4.3) and PEFT take it as a constant to save
   memory; what comes out is the gradient of no loss, and a meta-gradient through it would not be
   one either.  Values are the same.  The memory is saved otherwise: with w = |W|,

       |V|^2 = w^2 + 2 s <W A^T, B> + s^2 <B A A^T, B>    row by row,

   so that no matrix as large as W is made for a task.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from meta_models.quantize import Product, unpacking


class Magnitude(nn.Module):
    """Stands in the place of PEFT's layer of the same weight m `[out]`.

    Args:
        weight: m.
        transposed: The frozen weight is stored as `[in, out]` (GPT-2).
    """

    def __init__(self, weight: nn.Parameter, *, transposed: bool) -> None:
        super().__init__()
        self.weight = weight
        self.transposed = transposed

    def forward(
        self,
        x: Tensor,
        *,
        lora_A: nn.Linear,
        lora_B: nn.Linear,
        scaling: float,
        base_layer: nn.Module,
        base_result: Tensor,
        **_: Any,
    ) -> Tensor:
        """What DoRA adds to `base_result` = W x + bias."""
        frozen: Any = base_layer
        a, b = lora_A.weight, lora_B.weight
        if (unpack := unpacking(frozen)) is None:
            weight = frozen.weight.T if self.transposed else frozen.weight
            along = weight @ a.T
        else:  # the product keeps no unpacked weight
            weight, along = unpack(a.dtype), Product.apply(a, unpack, False).T
        square = 2 * scaling * (along * b).sum(1) + scaling**2 * (b @ (a @ a.T) * b).sum(1)
        length = torch.linalg.vector_norm(weight, dim=1)
        # |V| = w sqrt(1 + (|V|^2 - w^2) / w^2): exactly w where B is zero
        ratio = self.weight / (length * (1 + square / length.square()).sqrt())
        product = base_result if frozen.bias is None else base_result - frozen.bias
        # m / |V| (W x + s B A x) - W x
        return (ratio - 1) * product + ratio * scaling * linear(linear(x, a), b)
