"""Naive fine-tuning: the inner loop from a fresh adapter, with nothing meta-learned.

The honest baseline of every gradient learner: the same model, head, steps and rates grid, from
PEFT's own initialization.  `FineTuning` has no meta-gradient.

At a glance:
    finetune: learns nothing; order none; trains in 0; adapts in 2 S; holds the graph of one step;
        use it when asking what the steps do without meta-learning.
"""

from __future__ import annotations

import torch
from torch import Tensor

from meta_models.model import Model
from meta_models.params import Params
from metalearn.algorithms.maml import adapt_by_gradient
from metalearn.inner.loop import InnerLoop
from metalearn.learner import Learner
from tasks.episode import Batch


class FineTuning(Learner):
    """Gradient descent on the support set from a fresh adapter.

    Args:
        model: The functional model.
        loop: Inner steps and rates.
        tasks_per_pass: Tasks adapted at once; 1 runs them without vmap.
    """

    trains = False

    def __init__(self, model: Model, loop: InnerLoop, *, tasks_per_pass: int = 4) -> None:
        self.model = model
        self.loop = loop
        self.tasks_per_pass = tasks_per_pass if model.batched else 1

    def init(self, generator: torch.Generator) -> Params:
        return self.model.init(generator)

    def adapt(self, state: Params, support: Batch, start: Params | None = None) -> list[Params]:
        return adapt_by_gradient(self.model, self.loop, state, support, start)

    def predict(self, adapted: Params, query: Batch) -> Tensor:
        with torch.no_grad():
            return self.model.logits(adapted, query)

    def passes(self) -> float:
        return self.loop.passes(self.model)
