"""Evolution strategies on the meta-parameters: the zero-order reference.

Salimans et al. 2017, "Evolution Strategies as a Scalable Alternative to Reinforcement Learning",
section 2; on the meta-parameters of adaptation, Song et al. 2020, "ES-MAML", algorithm 2.

    F(theta) = 1/T sum_t L_query(adapt(theta, support_t))
    meta-gradient = 1/n sum_i (F(theta + sigma e_i) - F(theta - sigma e_i)) / (2 sigma) e_i

with n antithetic pairs, e_i ~ N(0, I).  Nothing is differentiated but the inner loop, so it costs
2 n adaptations and no memory, and it works where no meta-gradient exists.

At a glance:
    evolution: learns the start of adapter and head; order 0; trains in 2 n (2 S + 1) with n pairs;
        adapts in 2 S; holds the graph of one step; use it when nothing can be differentiated, or to
        judge what a gradient is worth.

Deviations from the papers:

1. No ranking of the values F; the loss itself is averaged.
2. The noise of an episode is a function of its tasks, so that a resumed training draws the same.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from meta_models.model import Model
from meta_models.params import Params, each
from metalearn.algorithms.maml import adapt_by_gradient
from metalearn.inner.loop import InnerLoop
from metalearn.learner import Learner, Metrics, in_passes
from tasks.episode import Batch, Episode


class EvolutionStrategies(Learner):
    """Learns the start of the inner loop without a meta-gradient.

    Args:
        model: The functional model.
        loop: Inner steps and rates.
        pairs: n, antithetic pairs a meta-step.
        deviation: sigma.
        tasks_per_pass: Tasks adapted at once; 1 runs them without vmap.

    Raises:
        ValueError: If sigma is not positive or there is no pair.
    """

    coupled = "its noise is drawn by all tasks of a meta-step"

    def __init__(
        self,
        model: Model,
        loop: InnerLoop,
        *,
        pairs: int = 8,
        deviation: float = 0.02,
        tasks_per_pass: int = 4,
    ) -> None:
        if deviation <= 0 or pairs < 1:
            raise ValueError(f"{pairs} pairs of deviation {deviation}: both must be positive")
        self.model = model
        self.loop = loop
        self.pairs = pairs
        self.deviation = deviation
        self.tasks_per_pass = tasks_per_pass if model.batched else 1

    def init(self, generator: torch.Generator) -> Params:
        state = self.model.init(generator)
        return state | self.loop.init(self.model, state)

    def adapt(self, state: Params, support: Batch, start: Params | None = None) -> list[Params]:
        return adapt_by_gradient(self.model, self.loop, state, support, start)

    def predict(self, adapted: Params, query: Batch) -> Tensor:
        with torch.no_grad():
            return self.model.logits(adapted, query)

    def meta_gradient(
        self, state: Params, episode: Episode, progress: float = 1.0
    ) -> tuple[Params, Metrics]:
        theta = {n: v.detach() for n, v in state.items()}
        total = {n: torch.zeros_like(v) for n, v in theta.items()}
        seen = []
        for noise in self.noise(theta, episode):
            step = {n: self.deviation * e for n, e in noise.items()}
            ahead = self.losses(each(torch.add, theta, step), episode)
            behind = self.losses(each(torch.sub, theta, step), episode)
            # (F(theta + sigma e) - F(theta - sigma e)) / (2 sigma) e, averaged over the pairs
            weight = (ahead.mean() - behind.mean()) / (2 * self.deviation * self.pairs)
            total = {n: g + weight * noise[n] for n, g in total.items()}
            seen += [ahead, behind]
        loss_T = torch.stack(seen).mean(0)
        return total, {"loss": loss_T.mean().item(), "losses": loss_T.tolist()}

    def losses(self, state: Params, episode: Episode) -> Tensor:
        """`[T]` query losses after adaptation; F is their mean."""
        losses = []
        for part in in_passes(episode, self.tasks_per_pass):
            adapted = self.adapt(state, part.support)[-1]
            with torch.no_grad():
                losses.append(self.model.loss(adapted, part.query))
        return torch.cat(losses)

    def noise(self, state: Params, episode: Episode) -> list[Params]:
        """The directions e_i of an episode, drawn by its tasks and their records."""
        records = (episode.support.ids.flatten() + 1).tolist()  # padding is -1
        seed = np.random.SeedSequence([*episode.index, *records]).generate_state(1)[0]
        generator = torch.Generator().manual_seed(int(seed))
        return [
            {n: torch.randn(v.shape, generator=generator).to(v) for n, v in state.items()}
            for _ in range(self.pairs)
        ]

    def passes(self) -> float:
        return self.loop.passes(self.model)
