"""Meta-SGD: learn the rates of the inner loop, one an element, with the initial values.

Li, Zhou, Chen and Li 2017, "Meta-SGD: Learning to Learn Quickly for Few-Shot Learning",
algorithm 1.

    phi_{s+1} = phi_s - alpha o grad L_support(phi_s)
    meta-gradient = d/d (theta, alpha)  1/T sum_t L_query(phi_S(theta, alpha))

In first order the inner gradients are constants, in theta and in alpha alike: the meta-gradient in
theta is grad L_query at phi_S, the one in alpha is - grad L_query(phi_S) o sum_s grad L_support.

At a glance:
    meta-sgd: learns the start, and a rate for each element; order 2; trains in 4 S + 2;
        adapts in 2 S; holds the graph of S steps; use it when one inner rate does not fit all
        values and one or two steps must do.

Deviations from the paper:

1. Every rate starts at the inner rate of its part; the paper draws them at random.
2. The rows of a head that is made for each task share their rates, so that N may vary.
3. Several steps, with the same rates, where the paper takes one; one rate a tensor on request.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from meta_models.model import Model
from metalearn.algorithms.maml import MAML
from metalearn.inner.loop import InnerLoop
from metalearn.inner.rules import LearnedRates


def meta_sgd(
    model: Model,
    loop: InnerLoop,
    *,
    per: Literal["tensor", "element"] = "element",
    order: Literal[1, 2] = 2,
    tasks_per_pass: int = 4,
) -> MAML:
    """MAML with learned rates.

    Args:
        model: The functional model.
        loop: Inner steps; its rates are where the learned ones start.
        per: One rate a tensor, or one an element.
        order: Order of the meta-gradient.
        tasks_per_pass: Tasks whose inner graph is held at once.

    Example:
        >>> import torch
        >>> from meta_models.mlp import MLP
        >>> learner = meta_sgd(MLP((1, 2, 1)), InnerLoop(1, {"body": 0.01, "head": 0.01}))
        >>> learner.init(torch.Generator())["rate.head.bias1"]
        tensor([0.0100])
    """
    learned = replace(loop, learned=LearnedRates(per))
    return MAML(model, learned, order=order, tasks_per_pass=tasks_per_pass)
