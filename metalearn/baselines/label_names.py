"""Nearest label name: what the names of the classes say, before any support text is read.

    p(y = c | x) = softmax_c( scale * cos(f(x), f(name of c)) )

With an encoder of sentences the name of a class is a text like any other.  Chang et al. 2008,
"Importance of Semantic Representation: Dataless Classification", section 3.

At a glance:
    label-names: learns nothing; order none; trains in 0; adapts in 0; holds no graph; use it when
        the names of the classes are words that say what they are, and there are one or no shots.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from meta_models.errors import ModelError
from meta_models.features import FeatureStore, shared_features
from meta_models.heads import MASKED
from meta_models.params import Params
from metalearn.learner import Learner
from tasks.episode import Batch, named


@dataclass(frozen=True)
class Named:
    """Features of the label names `[T, N, D]`, of unit length, and their encoder."""

    names: Tensor
    state: Params


class LabelNames(Learner):
    """The class whose name is nearest to a text.

    Args:
        features: Kept features of a model without an adapter.
    """

    trains = False
    random = False

    def __init__(self, features: FeatureStore) -> None:
        self._store = features

    def init(self, generator: torch.Generator) -> Params:
        return self._store.model.init(generator)

    def adapt(self, state: Params, support: Batch, start: Params | None = None) -> list[Named]:
        if start is not None:
            raise TypeError("label names adapt no values to start from")
        return [Named(name_features(self._store, state, support), state)]

    def predict(self, adapted: Named, query: Batch) -> Tensor:
        features = normalize(self._store.features(adapted.state, query), dim=-1)
        cosines = torch.einsum("tbd,tnd->tbn", features, adapted.names)
        logits = adapted.state["scale"].exp() * cosines
        return logits.masked_fill(~query.class_mask.unsqueeze(1), MASKED)

    def passes(self) -> float:
        return 0.0


@torch.no_grad()
def name_features(store: FeatureStore, state: Params, support: Batch) -> Tensor:
    """`[T, N, D]` features of the label names, of unit length; zero where there is no class.

    Args:
        store: Whose model they are taken from; they are not kept.
        state: Its parameters.
        support: A batch of tasks with label names.

    Raises:
        ModelError: If it has none.
    """
    if support.names is None:
        raise ModelError("label names are needed, and these tasks have none")
    return normalize(shared_features(store.model, state, named(support)), dim=-1)
