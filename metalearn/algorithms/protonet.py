"""Prototypical networks: learn the feature space in which class means classify.

Snell, Swersky and Zemel 2017, "Prototypical Networks for Few-shot Learning", equations 1 and 2.

    p_c = mean of the features of class c in the support set
    log p(y = c | x) = log softmax_c( -scale * |f_theta(x) - p_c|^2 )

At a glance:
    protonet: learns the adapter, as a metric; order 1; trains in 4; adapts in 1; holds the graph of
        one pass; use it when tasks are classifications with few shots: try it first.

Deviations from the paper:

1. Only the adapter is trained, below a frozen backbone.
2. Features have unit length, so the distances are scaled by a learned inverse temperature.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from meta_models.features import FeatureStore, shared_features
from meta_models.heads import euclidean, linear, prototypes
from meta_models.params import Params, gradients, leaves
from metalearn.learner import Learner, Metrics, add, in_passes, mean_metrics
from tasks.episode import Batch, Episode


@dataclass(frozen=True)
class Prototypes:
    """Adapted form of a prototypical network: the head `values` `[T, ...]` and its encoder."""

    values: Params
    state: Params


class ProtoNet(Learner):
    """Prototypical network on an adapter.

    Args:
        features: Kept features of a language model with an adapter; its head's scale is used.
        tasks_per_pass: Tasks whose graph is held at once.
    """

    def __init__(self, features: FeatureStore, *, tasks_per_pass: int = 4) -> None:
        self.model = features.model
        self.tasks_per_pass = tasks_per_pass
        self._store = features

    def init(self, generator: torch.Generator) -> Params:
        state = self.model.init(generator)
        return {name: value for name, value in state.items() if name != "slots"}

    def adapt(self, state: Params, support: Batch, start: Params | None = None) -> list[Prototypes]:
        if start is not None:
            raise TypeError("a prototypical network adapts no values to start from")
        features = self._store.features(state, support)
        return [Prototypes(_head(state, features, support), state)]

    def predict(self, adapted: Prototypes, query: Batch) -> Tensor:
        features = self._store.features(adapted.state, query)
        return linear(adapted.values, features, query.class_mask)

    def meta_gradient(
        self, state: Params, episode: Episode, progress: float = 1.0
    ) -> tuple[Params, Metrics]:
        total: Params = {}
        metrics = []
        for part in in_passes(episode, self.tasks_per_pass):
            theta = leaves(state)
            head = _head(theta, shared_features(self.model, theta, part.support), part.support)
            features = shared_features(self.model, theta, part.query)
            # - 1/T sum_t 1/(N Q) sum log p(y | x)
            losses = self.model.loss(head, part.query, features)
            total = add(total, gradients(losses.sum() / episode.tasks, theta))
            labels = part.query.labels
            assert labels is not None
            right = linear(head, features, part.query.class_mask).argmax(-1) == labels
            accuracy = (right.sum(1) / (labels >= 0).sum(1)).mean().item()
            figures = {"loss": losses.mean().item(), "accuracy": accuracy}
            metrics.append((part.tasks, figures | {"losses": losses.tolist()}))
        return total, mean_metrics(metrics)


def _head(state: Params, features: Tensor, support: Batch) -> Params:
    """-scale * |f - p_c|^2 as a linear head."""
    assert support.labels is not None
    centers = prototypes(features, support.labels, support.class_mask.shape[1])
    scale = state["scale"].expand(support.tasks)
    return euclidean(centers) | {"scale": scale}
