"""A classifier of scikit-learn on features that a task does not change, or that are fitted to it.

    W = argmin_W C sum_i -log softmax(W f_i + b)[y_i] + |W|^2 / 2      logistic
    W = argmin_W sum_i |y_i - W f_i - b|^2 + a |W|^2          ridge: Hoerl and Kennard 1970
    y(x) = y_i, i = argmin_i |f(x) - f_i|                     neighbour: Cover and Hart 1967
    y(x) = argmax_c p(c) prod_g p(g | c)^{f_g(x)}             naive Bayes: Rennie et al. 2003,
                                                              "Tackling the Poor Assumptions"

f are features of a frozen encoder, or TF-IDF of the support texts (`meta_models.tfidf`).

At a glance:
    logistic: learns nothing; order none; trains in 0; adapts in 1; holds no graph; use it when
        there are five shots or more and no time to train.
    ridge: learns nothing; order none; trains in 0; adapts in 1; holds no graph; use it when there
        are five shots or more: as logistic regression, in closed form.
    neighbour: learns nothing; order none; trains in 0; adapts in 1; holds no graph; use it when
        classes are no clouds around one mean.
    tfidf-logistic: learns nothing; order none; trains in 0; adapts in 0; holds no graph; use it
        when single words tell the classes apart and there are several shots.
    tfidf-bayes: learns nothing; order none; trains in 0; adapts in 0; holds no graph; use it when
        there are many weak words and few shots.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from meta_models.features import FeatureStore
from meta_models.heads import MASKED
from meta_models.params import Params
from meta_models.tfidf import TfIdf, Vectorizer
from metalearn.learner import Learner
from tasks.episode import Batch

LEAST = 1e-12  # probability that a zero counts as, so that its logarithm is finite


@dataclass(frozen=True)
class Classified:
    """One fitted classifier a task, and what its features come from."""

    classifiers: tuple[Any, ...]
    state: Params
    vectorizers: tuple[Vectorizer, ...] = ()


class Classifier(Learner):
    """Fits a classifier to the features of each support set.

    Args:
        features: Kept features of a model without an adapter, or TF-IDF.
        classifier: An unfitted classifier of scikit-learn; each task fits a copy of it.
    """

    trains = False
    random = False

    def __init__(self, features: FeatureStore | TfIdf, classifier: Any) -> None:
        self._features = features
        self._classifier = classifier

    def init(self, generator: torch.Generator) -> Params:
        store = self._features
        return store.model.init(generator) if isinstance(store, FeatureStore) else {}

    def adapt(self, state: Params, support: Batch, start: Params | None = None) -> list[Classified]:
        from sklearn.base import clone  # slow to import

        if start is not None:
            raise TypeError("a classifier on features adapts no values to start from")
        assert support.labels is not None
        store = self._features
        found = Classified((), state, store.fit(support) if isinstance(store, TfIdf) else ())
        fitted = []
        for rows, labels in zip(self._rows(found, support), support.labels.cpu(), strict=True):
            real = labels >= 0
            classifier: Any = clone(self._classifier)
            with warnings.catch_warnings():
                # Labels are classes, be they as many as there are examples: one shot is enough.
                warnings.filterwarnings("ignore", "The number of unique classes", UserWarning)
                fitted.append(classifier.fit(rows[real.numpy()], labels[real].numpy()))
        return [Classified(tuple(fitted), state, found.vectorizers)]

    def predict(self, adapted: Classified, query: Batch) -> Tensor:
        rows = self._rows(adapted, query)
        shape = len(rows), len(rows[0]), query.class_mask.shape[1]
        logits = np.full(shape, MASKED, np.float32)
        for task, classifier in enumerate(adapted.classifiers):
            logits[task][:, classifier.classes_] = _scores(classifier, rows[task])
        return torch.from_numpy(logits)

    def passes(self) -> float:
        return 0.0 if isinstance(self._features, TfIdf) else 1.0

    def _rows(self, adapted: Classified, batch: Batch) -> Sequence[np.ndarray]:
        """`[B, D]` features of each task; a vocabulary has as many as it has terms."""
        store = self._features
        if isinstance(store, TfIdf):
            return store.rows(adapted.vectorizers, batch)
        return list(store.features(adapted.state, batch).double().cpu().numpy())


def _scores(classifier: Any, rows: np.ndarray) -> np.ndarray:
    """`[B, N]` log probabilities, or decisions where a classifier has none."""
    if hasattr(classifier, "predict_proba"):
        return np.log(np.maximum(classifier.predict_proba(rows), LEAST))
    decisions = classifier.decision_function(rows)
    # With two classes there is one decision only.
    return decisions if decisions.ndim == 2 else np.stack([-decisions, decisions], 1)
