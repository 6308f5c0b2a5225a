"""Multi-task pre-training of the adapter, then fine-tuning.

The adapter is trained as one ordinary classifier over all meta-training classes, on the very
episodes that a meta-learner sees (support and query together, the same outer budget):

    loss = 1/T sum_t cross-entropy( scale * (f_theta(x) W^T + b), class of x in the family )

At test time W and b are dropped and the task is learned by the inner loop.  The strong baseline of
Chen et al. 2019, "A Closer Look at Few-shot Classification", section 3.1, on an adapter.

At a glance:
    multitask: learns the adapter, as one classifier over all training classes; order 1;
        trains in 4; adapts in 2 S; holds the graph of one pass; use it when asking what
        meta-learning adds to the same data at the same cost.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from meta_models.features import shared_features
from meta_models.model import AdaptedModel
from meta_models.params import Params, gradients, leaves
from metalearn.algorithms.maml import adapt_by_gradient
from metalearn.inner.loop import InnerLoop
from metalearn.learner import Learner, Metrics, add, in_passes, mean_metrics
from tasks.episode import IGNORE, Batch, Episode, union


class MultiTask(Learner):
    """Supervised pre-training over all training classes, fine-tuning on a task.

    Args:
        model: A language model with an adapter.
        loop: Inner steps and rates of the fine-tuning.
        classes: Number of classes of the family (the rows of W).
        tasks_per_pass: Tasks at once; 1 runs them without vmap.
    """

    def __init__(
        self, model: AdaptedModel, loop: InnerLoop, *, classes: int, tasks_per_pass: int = 4
    ) -> None:
        self.model = model
        self.loop = loop
        self.classes = classes
        self.tasks_per_pass = tasks_per_pass if model.batched else 1

    def init(self, generator: torch.Generator) -> Params:
        state = self.model.init(generator)
        width = self.model.head.width
        rows = torch.randn(self.classes, width, generator=generator) / math.sqrt(width)
        rows = rows.to(state["scale"])
        return state | {"classifier.weight": rows, "classifier.bias": rows.new_zeros(self.classes)}

    def adapt(self, state: Params, support: Batch, start: Params | None = None) -> list[Params]:
        known = {n: value for n, value in state.items() if not n.startswith("classifier.")}
        return adapt_by_gradient(self.model, self.loop, known, support, start)

    def predict(self, adapted: Params, query: Batch) -> Tensor:
        with torch.no_grad():
            return self.model.logits(adapted, query)

    def meta_gradient(
        self, state: Params, episode: Episode, progress: float = 1.0
    ) -> tuple[Params, Metrics]:
        total: Params = {}
        metrics = []
        for part in in_passes(episode, self.tasks_per_pass):
            theta = leaves(state)
            task = union(part.support, part.query)
            features = shared_features(self.model, theta, task)
            rows = features @ theta["classifier.weight"].T + theta["classifier.bias"]
            logits = rows * theta["scale"].exp()
            labels = _family_labels(task)
            errors = cross_entropy(
                logits.transpose(1, 2), labels, ignore_index=IGNORE, reduction="none"
            )
            losses = errors.sum(1) / (labels != IGNORE).sum(1)
            total = add(total, gradients(losses.sum() / episode.tasks, theta))
            figures = {"loss": losses.mean().item(), "losses": losses.tolist()}
            metrics.append((part.tasks, figures))
        return total, mean_metrics(metrics)

    def passes(self) -> float:
        return self.loop.passes(self.model)


def _family_labels(batch: Batch) -> Tensor:
    """`[T, B]` class of each example among all classes of its family, IGNORE at padding."""
    assert batch.labels is not None
    found = batch.class_ids.gather(1, batch.labels.clamp(min=0))
    return found.masked_fill(batch.labels < 0, IGNORE)
