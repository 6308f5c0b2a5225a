"""What an outer loop may learn about the steps themselves: their rates, and a preconditioner.

Both own meta-parameters beside the model's, named `rate.<value>` and `metric.<value>...`, where
`<value>` is the adapted value they belong to.  They enter every step, so the meta-gradient in them
comes out of the same backward as the one in the initial values.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from meta_models.params import Params, part

Shapes = Mapping[str, tuple[int, ...]]
"""Shape of each value without task and class axes: what a task of any N shares."""


@dataclass(frozen=True)
class LearnedRates:
    """Inner rates that are meta-parameters.

        phi_{s+1} = phi_s - alpha_s o d_s

    A value whose first axis is the class (the rows of a head that is made for each task) has the
    same rates for every class.  A rate may become negative in training, as in Meta-SGD.

    Attributes:
        per: One rate a tensor, or one an element.
        steps: Rates of their own for each of so many steps (later steps use the last ones);
            0: the same rates for all steps.

    Example:
        >>> LearnedRates("tensor", steps=2).init({"head.weight": (3,)}, {"head": 0.5})
        {'rate.head.weight': tensor([0.5000, 0.5000])}
    """

    per: Literal["tensor", "element"] = "element"
    steps: int = 0

    def init(self, shapes: Shapes, initial: Mapping[str, float]) -> Params:
        """The rates before training.

        Args:
            shapes: Shapes of the values that adapt.
            initial: Rate of each part.
        """
        axis = (self.steps,) if self.steps else ()
        return {
            f"rate.{name}": torch.full(
                (*axis, *(shape if self.per == "element" else ())), initial[part(name)]
            )
            for name, shape in shapes.items()
        }

    def at(self, meta: Params, name: str, step: int) -> Tensor:
        """`[T, ...]` rate of a value at step 0, 1, ..."""
        rate = meta[f"rate.{name}"]
        return rate[:, min(step, self.steps - 1)] if self.steps else rate


class Preconditioner(ABC):
    """A learned linear map of the gradient of each adapted value."""

    @abstractmethod
    def init(self, shapes: Shapes) -> Params:
        """Its meta-parameters, named `metric.*`: the identity map."""

    @abstractmethod
    def __call__(self, meta: Params, gradient: Params) -> Params:
        """The mapped gradients.

        Args:
            meta: Meta-parameters with a task axis.
            gradient: Gradient of each adapted value, `[T, ...]`.
        """


def align(meta: Tensor, value: Tensor) -> Tensor:
    """`[T, *shape]` viewed as `[T, 1, ..., *shape]`, so that it meets a value's last axes."""
    return meta.view(len(meta), *[1] * (value.dim() - meta.dim()), *meta.shape[1:])
