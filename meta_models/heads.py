"""Heads: how class logits are made from features, and what their rows are before the first step.

All heads share one form, `logits = scale * (f W^T + b)`, in which `W` and `b` are adapted by the
inner loop and `scale` (an inverse temperature) is a meta-parameter.  They differ in the initial W:

=========== ============================================= ==========================
kind        initial rows                                  meta-parameters
=========== ============================================= ==========================
prototype   mean support feature of each class            scale
label       feature of each label name                    scale
slots       one learned row a class position              scale, slots `[64, D]`
zero        zeros                                         scale
=========== ============================================= ==========================

The first two start as a nearest-prototype classifier: with `W = 2 p_c` and `b = -|p_c|^2` the
logits are `-scale * |f - p_c|^2` up to a constant (Snell et al. 2017, section 2.3).
"""

from __future__ import annotations

import logging
import math
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from meta_models.errors import ModelError
from meta_models.params import Params

HeadKind = Literal["prototype", "label", "slots", "zero"]
SLOTS = 64  # rows of the "slots" head: more classes than any few-shot task here has
# Length of a fresh row: small, so that the first step follows the support; not zero, so that it
# reaches the features.
SLOT_NORM = 0.1
MASKED = -1e4  # logit of a class that a task does not have: exp() of it is zero in every precision

_log = logging.getLogger(__name__)


def prototypes(features: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Mean feature of each class, p_c = 1/|S_c| sum_{i in S_c} f_i.

    Args:
        features: `[T, I, D]`.
        labels: `[T, I]` class of each item; negative where the item is padding.
        classes: N.

    Returns:
        `[T, N, D]`; zero for a class without items.

    Example:
        >>> prototypes(torch.tensor([[[1.0], [3.0], [9.0]]]), torch.tensor([[0, 0, -100]]), 1)
        tensor([[[2.]]])
    """
    member = one_hot(labels.clamp(min=0), classes).to(features.dtype)
    member = member * (labels >= 0).unsqueeze(-1)
    total = member.sum(1).clamp(min=1.0)
    return torch.einsum("tin,tid->tnd", member, features) / total.unsqueeze(-1)


def euclidean(centers: Tensor) -> Params:
    """The linear head equal to -|f - p_c|^2 up to a constant: W = 2 p, b = -|p|^2."""
    return {"head.weight": 2 * centers, "head.bias": -centers.square().sum(-1)}


def linear(values: Params, features: Tensor, class_mask: Tensor) -> Tensor:
    """logits = scale * (f W^T + b), MASKED at classes that the task does not have.

    Args:
        values: `head.weight` `[T, N, D]`, `head.bias` `[T, N]`, `scale` `[T]` (its logarithm).
        features: `[T, I, D]`.
        class_mask: `[T, N]`.

    Returns:
        `[T, I, N]`.
    """
    rows = torch.einsum("tid,tnd->tin", features, values["head.weight"])
    logits = (rows + values["head.bias"].unsqueeze(1)) * values["scale"].exp()[:, None, None]
    return logits.masked_fill(~class_mask.unsqueeze(1), MASKED)


class Head:
    """A linear head of one kind.

    Args:
        kind: See the table above.
        width: D.
        scale: Initial inverse temperature; its logarithm is the meta-parameter.

    Raises:
        ModelError: If there is no such kind or the scale is not positive.
    """

    def __init__(self, kind: HeadKind, width: int, scale: float = 10.0) -> None:
        if kind not in ("prototype", "label", "slots", "zero"):
            raise ModelError(f"no head {kind!r}; known: prototype, label, slots, zero")
        if scale <= 0:
            raise ModelError(f"head scale {scale} must be positive")
        if kind == "zero":
            _log.warning(
                "a zero head makes the first inner step null: the gradient that reaches the "
                "features is sum_c (p_c - y_c) w_c = 0; prefer prototype, label or slots"
            )
        self.kind = kind
        self.width = width
        self.scale = scale

    def init(self, generator: torch.Generator) -> Params:
        """Meta-parameters of the head."""
        state = {"scale": torch.tensor(math.log(self.scale))}
        if self.kind == "slots":
            rows = torch.randn(SLOTS, self.width, generator=generator)
            state["slots"] = rows * (SLOT_NORM / math.sqrt(self.width))
        return state

    def start(self, meta: Params, centers: Tensor | None, classes: int) -> Params:
        """The head that the inner loop starts from.

        Args:
            meta: Meta-parameters with a task axis.
            centers: `[T, N, D]` class prototypes or label-name features; None for the other kinds.
            classes: N.

        Returns:
            `head.weight` `[T, N, D]` and `head.bias` `[T, N]`.
        """
        if centers is not None:
            return euclidean(centers)
        scale = meta["scale"]
        if self.kind == "zero":
            weight = scale.new_zeros(scale.shape[0], classes, self.width)
        elif classes > SLOTS:
            raise ModelError(f"a slots head has {SLOTS} rows, the task {classes} classes")
        else:
            weight = meta["slots"][:, :classes]
        return {"head.weight": weight, "head.bias": weight.new_zeros(weight.shape[:2])}
