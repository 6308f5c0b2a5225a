"""Reptile: move the initialization towards what each task adapts to.

Nichol, Achiam and Schulman 2018, "On First-Order Meta-Learning Algorithms", algorithm 1 (serial)
and algorithm 2 (batched).

    batched   phi_t = S steps of gradient descent on task t, from theta
              meta-gradient = 1/T sum_t (theta - phi_t)
    serial    theta_0 = theta,    theta_t = theta_{t-1} + epsilon (phi_t(theta_{t-1}) - theta_{t-1})
              meta-gradient = (theta - theta_T) / (epsilon T)

The serial form goes on from task to task; with plain outer descent at rate epsilon T it is
algorithm 1, and for small epsilon it is the batched form.

At a glance:
    reptile: learns the start of the adapter; order 1; trains in 4 S + 2; adapts in 2 S;
        holds the graph of one step; use it when steps are many and memory is short.
    reptile-serial: learns the start of the adapter; order 1; trains in 4 S + 2, one task at a time;
        adapts in 2 S; holds the graph of one step; use it when the paper's first algorithm is
        wanted, one task a move.

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
from meta_models.params import Params, gradients, pick, stack
from metalearn.algorithms.maml import adapt_by_gradient
from metalearn.inner.loop import InnerLoop
from metalearn.learner import Learner, Metrics, add, in_passes, mean_metrics
from tasks.episode import Batch, Episode, union


class Reptile(Learner):
    """Reptile over the adapter of a functional model.

    Args:
        model: The functional model.
        loop: Inner steps and rates.
        epsilon: Fraction of the way that the serial form goes after each task; None: the batched
            form.
        tasks_per_pass: Tasks adapted at once; 1 runs them without vmap.

    Raises:
        ValueError: If epsilon is not above 0 and at most 1.
    """

    def __init__(
        self,
        model: Model,
        loop: InnerLoop,
        *,
        epsilon: float | None = None,
        tasks_per_pass: int = 4,
    ) -> None:
        if epsilon is not None and not 0 < epsilon <= 1:
            raise ValueError(f"epsilon {epsilon} must be above 0 and at most 1")
        self.model = model
        self.loop = loop
        self.epsilon = epsilon
        self.coupled = "each task starts where the one before it ended" if epsilon else ""
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
        moved = pick(state, self.loop.parts)
        theta = state
        total: Params = {}
        metrics = []
        for few in in_passes(episode, 1 if self.epsilon else self.tasks_per_pass):
            way, rest, loss_T = self._way(theta, moved, few)
            total = add(total, way | rest)
            if self.epsilon:
                # theta_t = theta_{t-1} + epsilon (phi_t - theta_{t-1})
                theta = theta | {n: theta[n] - self.epsilon * way[n] for n in way}
            figures = {"loss": loss_T.mean().item(), "losses": loss_T.tolist()}
            metrics.append((few.tasks, figures))
        # serial: (theta - theta_T) / epsilon is the sum of the ways
        return {name: g / episode.tasks for name, g in total.items()}, mean_metrics(metrics)

    def _way(self, theta: Params, moved: Params, few: Episode) -> tuple[Params, Params, Tensor]:
        """theta - phi_S of what moves and the slope in the rest, summed over some tasks; losses."""
        task = union(few.support, few.query)
        phi = adapt_by_gradient(self.model, self.loop, theta, task)[-1]
        fixed = {n: v.clone().requires_grad_() for n, v in phi.items() if n not in moved}
        loss_T = self.model.loss(phi | fixed, task)
        slope = gradients(loss_T.sum(), fixed) if fixed else {}
        way = {n: (stack({n: theta[n]}, few.tasks)[n] - phi[n]).sum(0) for n in moved}
        rest = {
            n: slope[n].sum(0) if n in slope else torch.zeros_like(v)
            for n, v in theta.items()
            if n not in moved
        }
        return way, rest, loss_T.detach()

    def passes(self) -> float:
        return self.loop.passes(self.model)
