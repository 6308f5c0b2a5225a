"""Meta-Curvature: learn a Kronecker-factored preconditioner of the inner gradients.

Park and Oliva 2019, "Meta-Curvature", section 3.

    MC(G) = M_out^T G M_in,    phi_{s+1} = phi_s - alpha MC(grad L_support(phi_s))
    meta-gradient = d/d (theta, M)  1/T sum_t L_query(phi_S(theta, M))

G is the gradient of a weight `[out, in]`; the factors start as identities and are learned with the
initial values, so that the preconditioner of vec G is their Kronecker product.

At a glance:
    meta-curvature: learns the start, and a preconditioner of the inner gradients; order 2;
        trains in 4 S + 2; adapts in 2 S; holds the graph of S steps; use it when rates alone do
        not help and there are tasks enough to learn directions.

Deviations from the paper:

1. An axis longer than `full` has a diagonal factor: LoRA's long axes are as wide as the backbone,
   and a full factor would be far larger than the adapter.
2. The rows of a head that is made for each task have no factor over the classes, whose number may
   vary.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from meta_models.model import Model
from meta_models.params import Params
from metalearn.algorithms.maml import MAML
from metalearn.inner.loop import InnerLoop
from metalearn.inner.rules import Preconditioner, Shapes, align


@dataclass(frozen=True)
class Kronecker(Preconditioner):
    """One factor for each axis of a value.

    Attributes:
        full: Longest axis that has a full factor `[n, n]`; a longer one has a diagonal `[n]`.

    Example:
        >>> sorted(Kronecker(full=4).init({"a": (2, 8)}))
        ['metric.a.axis0', 'metric.a.axis1']
        >>> Kronecker(full=4).init({"a": (2, 8)})["metric.a.axis1"].shape
        torch.Size([8])
    """

    full: int = 64

    def init(self, shapes: Shapes) -> Params:
        return {
            f"metric.{name}.axis{axis}": torch.eye(n) if n <= self.full else torch.ones(n)
            for name, shape in shapes.items()
            for axis, n in enumerate(shape)
        }

    def __call__(self, meta: Params, gradient: Params) -> Params:
        mapped = {}
        for name, g in gradient.items():
            axes = sum(key.rpartition(".axis")[0] == f"metric.{name}" for key in meta)
            for axis in range(axes):
                factor = meta[f"metric.{name}.axis{axis}"]
                last = g.movedim(axis - axes, -1)
                # G <- G x_axis M
                if factor.dim() == 2:  # a diagonal, [T, n]
                    last = last * align(factor, last)
                else:
                    last = torch.einsum("t...i,tij->t...j", last, factor)
                g = last.movedim(-1, axis - axes)
            mapped[name] = g
        return mapped


def meta_curvature(
    model: Model, loop: InnerLoop, *, full: int = 64, tasks_per_pass: int = 4
) -> MAML:
    """MAML with a learned preconditioner.

    Args:
        model: The functional model.
        loop: Inner steps and rates.
        full: Longest axis that has a full factor.
        tasks_per_pass: Tasks whose inner graph is held at once.
    """
    learned = replace(loop, preconditioner=Kronecker(full))
    return MAML(model, learned, tasks_per_pass=tasks_per_pass)
