"""Label names: what the names of the classes say, before any support text is read or beside them.

    p_c = (sum_{i in S_c} f_i + m f(name of c)) / (n_c + m)
    p(y = c | x) = softmax_c( -scale * |f(x) - p_c|^2 )

The name of a class counts as m of its examples; with m = infinity it is all that counts.  With an
encoder of sentences the name of a class is a text like any other.  Chang et al. 2008, "Importance
of Semantic Representation: Dataless Classification", section 3.

At a glance:
    label-names: learns nothing; order none; trains in 0; adapts in 0; holds no graph; use it when
        the names of the classes are words that say what they are, and there are one or no shots.
    named-prototypes: learns nothing; order none; trains in 0; adapts in 1; holds no graph; use it
        when there are few shots and the names say something.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import normalize

from meta_models.errors import ModelError
from meta_models.features import FeatureStore, shared_features
from meta_models.heads import euclidean, linear, prototypes
from meta_models.params import Params
from metalearn.algorithms.protonet import Prototypes
from metalearn.learner import Learner
from tasks.episode import Batch, named


class LabelNames(Learner):
    """The class whose name, or whose mean with its name in it, is nearest to a text.

    Args:
        features: Kept features of a model without an adapter.
        weight: m, examples that a name counts as; infinity: no example is read.

    Raises:
        ValueError: If the weight is negative.
    """

    trains = False
    random = False

    def __init__(self, features: FeatureStore, *, weight: float = math.inf) -> None:
        if weight < 0:
            raise ValueError(f"a name cannot count as {weight} examples; give 0 or more")
        self._store = features
        self.weight = weight

    def init(self, generator: torch.Generator) -> Params:
        return self._store.model.init(generator)

    def adapt(self, state: Params, support: Batch, start: Params | None = None) -> list[Prototypes]:
        if start is not None:
            raise TypeError("label names adapt no values to start from")
        centers = name_features(self._store, state, support)
        if not math.isinf(self.weight):
            assert support.labels is not None
            labels, classes = support.labels, support.class_mask.shape[1]
            means = prototypes(self._store.features(state, support), labels, classes)
            count = (labels.unsqueeze(-1) == torch.arange(classes, device=labels.device)).sum(1)
            count = count.unsqueeze(-1).to(means.dtype)
            # p_c = (n_c mean_c + m f(name)) / (n_c + m)
            centers = (count * means + self.weight * centers) / (count + self.weight).clamp(
                min=1e-12
            )
        scale = state["scale"].expand(support.tasks)
        return [Prototypes(euclidean(centers) | {"scale": scale}, state)]

    def predict(self, adapted: Prototypes, query: Batch) -> Tensor:
        features = self._store.features(adapted.state, query)
        return linear(adapted.values, features, query.class_mask)

    def passes(self) -> float:
        return 0.0 if math.isinf(self.weight) else 1.0


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
