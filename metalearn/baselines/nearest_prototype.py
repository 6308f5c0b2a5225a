"""Nearest prototype on frozen features: what the backbone can do before anything is learned.

At a glance:
    prototypes: learns nothing; order none; trains in 0; adapts in 1; holds no graph; use it when
        asking what the frozen backbone can do: every learner should pass it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from meta_models.features import FeatureStore
from meta_models.params import Params
from metalearn.algorithms.protonet import ProtoNet, Prototypes
from metalearn.learner import Learner
from tasks.episode import Batch


class NearestPrototype(Learner):
    """The class whose mean support feature is nearest, under no adapter.

    p(y = c | x) = softmax_c( -scale * |f(x) - p_c|^2 ), Snell et al. 2017, without training.

    Args:
        features: Kept features of a model without an adapter.
    """

    trains = False
    random = False

    def __init__(self, features: FeatureStore) -> None:
        self._network = ProtoNet(features)

    def init(self, generator: torch.Generator) -> Params:
        return self._network.init(generator)

    def adapt(self, state: Params, support: Batch, start: Params | None = None) -> list[Prototypes]:
        return self._network.adapt(state, support, start)

    def predict(self, adapted: Prototypes, query: Batch) -> Tensor:
        return self._network.predict(adapted, query)
