"""MAML++: multi-step loss, a rate a layer and step, annealed order.

Antoniou, Edwards and Storkey 2019, "How to train your MAML", section 4.

    phi_{s+1} = phi_s - alpha_{layer, s} grad L_support(phi_s)
    meta-gradient = d/d (theta, alpha)  1/T sum_t sum_s w_s(progress) L_query(phi_s)

The weights w begin equal over the steps 1..S and move to the last one; when a fraction
`multi_step_until` of the training is done it has them all.  The first `first_order_until` of the
training is in first order.  The cosine schedule of the outer rate is the outer loop's.

At a glance:
    maml++: learns the start, and a rate for each tensor and step; order 1, after a third of the
        training 2; trains in 4 S + 2 (4 S in the first tenth, then 2 S + 2 while in first order);
        adapts in 2 S; holds the graph of S steps; use it when the training of maml is unstable.

Deviations from the paper:

1. A "layer" is a tensor of the adapter or the head, as in the authors' code.
2. Transformers have layer norm, so what the paper says of batch norm has no place here.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from meta_models.model import Model
from metalearn.algorithms.maml import MAML
from metalearn.inner.loop import InnerLoop
from metalearn.inner.rules import LearnedRates

LEAST = 0.03  # share of its first weight that a step keeps while the weights move (authors' code)


def multi_step_weights(progress: float, steps: int, until: float) -> list[float]:
    """Weights `[S + 1]` of the query losses after 0, ..., S steps; they sum to one.

    Args:
        progress: Fraction of the meta-training that is done.
        steps: S.
        until: Fraction after which the last step has all the weight.

    Example:
        >>> multi_step_weights(0.0, steps=4, until=0.1)
        [0.0, 0.25, 0.25, 0.25, 0.25]
        >>> multi_step_weights(0.1, steps=4, until=0.1)
        [0.0, 0.0, 0.0, 0.0, 1.0]
    """
    if steps == 0 or progress >= until:
        return [0.0] * steps + [1.0]
    early = max(1 - progress / until, LEAST) / steps
    return [0.0] + [early] * (steps - 1) + [1 - early * (steps - 1)]


def maml_plus_plus(
    model: Model,
    loop: InnerLoop,
    *,
    multi_step_until: float = 0.1,
    first_order_until: float = 1 / 3,
    tasks_per_pass: int = 4,
) -> MAML:
    """MAML with the stabilizers of MAML++.

    Args:
        model: The functional model.
        loop: Inner steps; its rates are where the learned ones start.
        multi_step_until: Fraction of the training with a multi-step loss (the paper: 15 of 150
            epochs).
        first_order_until: Fraction of the training in first order (the paper: 50 of 150 epochs).
        tasks_per_pass: Tasks whose inner graph is held at once.
    """
    return MAML(
        model,
        replace(loop, learned=LearnedRates("tensor", loop.steps)),
        first_order_until=first_order_until,
        query_weights=partial(multi_step_weights, steps=loop.steps, until=multi_step_until),
        tasks_per_pass=tasks_per_pass,
    )
