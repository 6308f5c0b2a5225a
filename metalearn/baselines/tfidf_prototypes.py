"""Nearest class mean of TF-IDF features (Rocchio): what words alone can do, at no cost.

    p_c = mean of the features of class c in the support set
    p(y = c | x) = softmax_c( -|f(x) - p_c|^2 )

f are fitted to the support texts (`meta_models.tfidf`).  Rocchio 1971, "Relevance Feedback in
Information Retrieval"; Manning, Raghavan and Schuetze 2008, "Introduction to Information
Retrieval", section 14.2.

At a glance:
    tfidf-prototypes: learns nothing; order none; trains in 0; adapts in 0; holds no graph; use it
        when single words tell the classes apart, and nothing may be spent.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from meta_models.heads import euclidean, linear, prototypes
from meta_models.params import Params
from meta_models.tfidf import TfIdf, Vectorizer
from metalearn.learner import Learner
from tasks.episode import Batch


@dataclass(frozen=True)
class Terms:
    """The vocabulary of each task, and the head `[T, N, V]` on it."""

    vectorizers: tuple[Vectorizer, ...]
    head: Params


class TfIdfPrototypes(Learner):
    """The class whose mean support text is nearest.

    Args:
        tfidf: The featurizer.
    """

    trains = False
    random = False

    def __init__(self, tfidf: TfIdf) -> None:
        self._tfidf = tfidf

    def init(self, generator: torch.Generator) -> Params:
        return {}

    def adapt(self, state: Params, support: Batch, start: Params | None = None) -> list[Terms]:
        if start is not None:
            raise TypeError("TF-IDF prototypes adapt no values to start from")
        assert support.labels is not None
        fitted = self._tfidf.fit(support)
        features = self._tfidf.features(fitted, support)
        centers = prototypes(features, support.labels.cpu(), support.class_mask.shape[1])
        return [Terms(fitted, euclidean(centers) | {"scale": centers.new_zeros(support.tasks)})]

    def predict(self, adapted: Terms, query: Batch) -> Tensor:
        features = self._tfidf.features(adapted.vectorizers, query)
        return linear(adapted.head, features, query.class_mask.cpu())

    def passes(self) -> float:
        return 0.0
