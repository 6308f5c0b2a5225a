"""CAVIA: adapt a few context parameters, meta-learn everything else.

Zintgraf, Shiarlis, Kurin, Hofmann and Whiteson 2019, "Fast Context Adaptation via Meta-Learning",
section 3.1, equations 3 and 4.

    phi_0 = 0,    phi_{s+1} = phi_s - alpha * grad_phi L_support(phi_s, theta)
    meta-gradient = d/d theta  1/T sum_t L_query(phi_S(theta), theta)

phi is an input of the model: of an MLP, numbers beside x (section 3.2); of a language model, a soft
prompt.  theta, all other parameters, is shared by the tasks and stays as it is at test time, so a
task is stored in a few numbers.

At a glance:
    cavia: learns everything but a context, which alone adapts; order 2; trains in 4 S + 2;
        adapts in 2 S; holds the graph of S steps; use it when many tasks are to be kept: each is a
        few vectors.

Deviations from the paper:

1. With a language model, phi are offsets `[n, D]` of virtual tokens from a neutral one, the mean
   input embedding at the length of a usual one, and theta are adapter and head.  (Prompts: Lester
   et al. 2021, "The Power of Scale for Parameter-Efficient Prompt Tuning", section 2.)
2. A head that is made from the support set is made at phi = 0 and then kept.
"""

from __future__ import annotations

from typing import Literal

from meta_models.model import Model
from metalearn.algorithms.maml import MAML
from metalearn.inner.loop import InnerLoop


def cavia(
    model: Model,
    loop: InnerLoop,
    *,
    order: Literal[1, 2] = 2,
    clamp: float = 0.0,
    tasks_per_pass: int = 4,
) -> MAML:
    """MAML in which only a context adapts.

    Args:
        model: The functional model, made with a context.
        loop: Inner steps, and the rate of "context".
        order: Order of the meta-gradient.
        clamp: Largest entry of the meta-gradient of a single task (the paper's code: 10); 0: no
            limit.
        tasks_per_pass: Tasks whose inner graph is held at once.

    Raises:
        ValueError: If the model has no context, or the loop adapts other parts or learns rates.

    Example:
        >>> from meta_models.mlp import MLP
        >>> learner = cavia(MLP(context=5), InnerLoop(1, {"context": 1.0}))
        >>> learner.loop.parts
        ('context',)
    """
    if "context" not in model.encoder:
        raise ValueError("cavia needs a model with a context: MLP(context=n), or AdaptedModel")
    if loop.parts != ("context",) or loop.learned or loop.preconditioner:
        raise ValueError(f"cavia adapts the context alone, at a fixed rate; got {loop}")
    return MAML(model, loop, order=order, clamp=clamp, tasks_per_pass=tasks_per_pass)
