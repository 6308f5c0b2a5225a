"""ProtoMAML: MAML whose head starts from the prototypes of the task.

Triantafillou et al. 2020, "Meta-Dataset: A Dataset of Datasets for Learning to Learn from Few
Examples", section 3.

    W_0 = 2 p_c,    b_0 = -|p_c|^2,    p_c = mean feature of class c in the support set
    phi_0 = (adapter(theta), W_0(theta), b_0(theta)),    phi_S = S steps of gradient descent
    meta-gradient = d/d theta  1/T sum_t L_query(phi_S(theta))

At phi_0 the classifier is that of prototypical networks; the steps fine-tune it with the adapter.
The prototypes are functions of the adapter, and the meta-gradient goes through them.  Since no row
is learned, any number of classes will do.

At a glance:
    proto-maml: learns the start of the adapter, the head starts from prototypes; order 2;
        trains in 4 S + 4; adapts in 2 S + 1; holds the graph of S steps; use it when the number of
        ways varies, or prototypes are good already.

Deviations from the paper:

1. Only the adapter is meta-learned; the backbone is frozen.
2. The logits carry a learned inverse temperature.
"""

from __future__ import annotations

from typing import Literal

from meta_models.model import AdaptedModel
from metalearn.algorithms.maml import MAML
from metalearn.inner.loop import InnerLoop


def proto_maml(
    model: AdaptedModel,
    loop: InnerLoop,
    *,
    order: Literal[1, 2] = 2,
    first_order_until: float = 0.0,
    tasks_per_pass: int = 4,
) -> MAML:
    """MAML from prototypes.

    Args:
        model: A language model with a prototype head.
        loop: Inner steps and rates.
        order: Order of the meta-gradient.
        first_order_until: Fraction of the meta-training in first order.
        tasks_per_pass: Tasks whose inner graph is held at once.

    Raises:
        ValueError: If the head does not start from prototypes.
    """
    if model.head.kind != "prototype":
        raise ValueError(f"ProtoMAML starts from a prototype head, not from {model.head.kind!r}")
    return MAML(
        model,
        loop,
        order=order,
        first_order_until=first_order_until,
        tasks_per_pass=tasks_per_pass,
    )
