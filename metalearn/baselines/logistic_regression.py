"""Logistic regression on frozen features.

At a glance:
    logistic: learns nothing; order none; trains in 0; adapts in 1; holds no graph; use it when
        there are five shots or more and no time to train.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from meta_models.features import FeatureStore
from meta_models.heads import MASKED
from meta_models.params import Params
from metalearn.learner import Learner
from tasks.episode import Batch

ITERATIONS = 200  # enough for L-BFGS on unit-length features; more changes no digit


@dataclass(frozen=True)
class Fitted:
    """One fitted classifier a task, and the encoder its features came from."""

    classifiers: tuple[Any, ...]
    state: Params


class LogisticRegression(Learner):
    """min_w  C sum_i -log softmax(W f_i + b)[y_i] + |W|^2 / 2 on frozen features, task by task.

    Args:
        features: Kept features of a model without an adapter.
        strength: C, the inverse of the regularization.
    """

    trains = False
    random = False

    def __init__(self, features: FeatureStore, *, strength: float = 10.0) -> None:
        self._store = features
        self.strength = strength

    def init(self, generator: torch.Generator) -> Params:
        return self._store.model.init(generator)

    def adapt(self, state: Params, support: Batch, start: Params | None = None) -> list[Fitted]:
        # Slow to import, and needed by no other learner.
        from sklearn.linear_model import LogisticRegression as Classifier

        if start is not None:
            raise TypeError("logistic regression adapts no values to start from")
        assert support.labels is not None
        features = self._store.features(state, support).double().cpu()
        fitted = []
        for task, labels in zip(features, support.labels.cpu(), strict=True):
            real = labels >= 0
            classifier = Classifier(C=self.strength, max_iter=ITERATIONS)
            fitted.append(classifier.fit(task[real].numpy(), labels[real].numpy()))
        return [Fitted(tuple(fitted), state)]

    def predict(self, adapted: Fitted, query: Batch) -> Tensor:
        features = self._store.features(adapted.state, query).double().cpu().numpy()
        logits = np.full((*features.shape[:2], query.class_mask.shape[1]), MASKED, np.float32)
        for task, classifier in enumerate(adapted.classifiers):
            # predict_log_proba covers the two-class case, in which there is one decision only
            logits[task][:, classifier.classes_] = classifier.predict_log_proba(features[task])
        return torch.from_numpy(logits)
