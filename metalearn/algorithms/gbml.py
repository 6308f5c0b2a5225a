"""GBML of learn2learn: gradient descent through a learnable transform of the gradients.

Arnold, Iqbal and Sha 2021, "When MAML Can Adapt Fast and How to Assist When It Cannot" (Meta-KFO,
the "kronecker" transform); Park and Oliva 2019, "Meta-Curvature" (the "curvature" transform).

    phi_{s+1} = phi_s - alpha U_xi(grad L_support(phi_s))
    meta-gradient = d/d (theta, xi)  1/T sum_t L_query(phi_S(theta, xi))

U maps the gradient of each value by a module of `learn2learn.optim.transforms`; its parameters xi
are learned with the initial values.  The steps are always taken by learn2learn.

At a glance:
    gbml: learns the start, and a transform of the inner gradients; order 2; trains in 4 S + 2;
        adapts in 2 S; holds the graph of S steps; use it when a transform of learn2learn is to be
        tried; it runs one task at a time.

Deviations from the papers:

1. Only the adapter and the head are meta-learned; the backbone is frozen.
2. The rows of a head that is made for each task share their transform and its bias has none, so
   that N may vary.
3. xi stays as it is within a task (learn2learn's `adapt_transform=False`).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from meta_models.model import Model
from metalearn.algorithms.maml import MAML
from metalearn.inner.learn2learn_engine import Learn2Learn, Transform
from metalearn.inner.loop import InnerLoop


def gbml(
    model: Model,
    loop: InnerLoop,
    transform: Transform,
    *,
    order: Literal[1, 2] = 2,
    tasks_per_pass: int = 4,
) -> MAML:
    """MAML whose inner steps go through a learnable transform of learn2learn.

    Args:
        model: The functional model.
        loop: Inner steps, with one fixed rate and plain gradient descent.
        transform: Makes the transform of each value, from a parameter of its shape:
            `named_transform("kronecker")`, or any of learn2learn's own.
        order: Order of the meta-gradient.
        tasks_per_pass: Tasks whose inner graph is held at once.

    Raises:
        ModelError: If learn2learn is not installed or cannot run such a loop.
    """
    transformed = replace(loop, engine=Learn2Learn(transform))
    return MAML(model, transformed, order=order, tasks_per_pass=tasks_per_pass)
