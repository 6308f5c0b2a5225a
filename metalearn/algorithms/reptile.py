"""Reptile: move the initialization towards what each task adapts to.

Nichol, Achiam and Schulman 2018, "On First-Order Meta-Learning Algorithms", algorithm 2 (the
batched version of section 2).

    phi_S = S steps of gradient descent on the task, from theta
    meta-gradient = 1/T sum_t (theta - phi_S)

Deviations from the paper:

1. The pseudo-gradient goes to the outer optimizer (AdamW) instead of plain descent.
2. A task's data are its support and query sets together: Reptile needs no split in training.
3. Only parts that are both meta-parameters and adapted move; the head starts from the task, and
   the scale of its logits is trained by the first-order gradient of the loss at phi_S.
"""

from __future__ import annotations

import torch
from torch import Tensor

from meta_models.model import Model
from meta_models.params import Params, gradients, stack
from metalearn.algorithms.maml import adapt_by_gradient
from metalearn.inner.loop import InnerLoop
from metalearn.learner import Learner, Metrics, add, in_passes, mean_metrics
from tasks.episode import Batch, Episode, union


class Reptile(Learner):
    """Reptile over the adapter of a functional model.

    Args:
        model: The functional model.
        loop: Inner steps and rates.
        tasks_per_pass: Tasks adapted at once; 1 runs them without vmap.
    """

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

    def meta_gradient(
        self, state: Params, episode: Episode, progress: float = 1.0
    ) -> tuple[Params, Metrics]:
        total: Params = {}
        metrics = []
        for part in in_passes(episode, self.tasks_per_pass):
            task = union(part.support, part.query)
            phi = adapt_by_gradient(self.model, self.loop, state, task)[-1]
            fixed = {n: phi[n].clone().requires_grad_() for n in phi if n not in self._moved(state)}
            loss = self.model.loss(phi | fixed, task)
            slope = gradients(loss.sum(), fixed) if fixed else {}
            gradient = {}
            for name, theta in state.items():
                if name in self._moved(state):
                    # theta - phi_S, summed over the tasks of the pass
                    gradient[name] = (stack({name: theta}, part.tasks)[name] - phi[name]).sum(0)
                else:
                    gradient[name] = (
                        slope[name].sum(0) if name in slope else torch.zeros_like(theta)
                    )
            total = add(total, {name: g / episode.tasks for name, g in gradient.items()})
            metrics.append((part.tasks, {"loss": loss.mean().item()}))
        return total, mean_metrics(metrics)

    def _moved(self, state: Params) -> set[str]:
        return {name for name in state if name.split(".", 1)[0] in self.loop.parts}

    def passes(self) -> float:
        return self.loop.passes(self.model)
