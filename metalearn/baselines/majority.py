"""Majority: the class frequencies of the support set, whatever the text.

At a glance:
    majority: learns nothing; order none; trains in 0; adapts in 0; holds no graph; use it when
        asking what the class frequencies alone give.
"""

from __future__ import annotations

import torch
from torch import Tensor

from meta_models.heads import MASKED
from meta_models.model import item_labels
from meta_models.params import Params
from metalearn.learner import Learner
from tasks.episode import Batch


class Majority(Learner):
    """p(y = c | x) = n_c / sum_k n_k with n_c the support items of class c.

    In a balanced task this is chance, 1/N.
    """

    trains = False
    random = False

    def init(self, generator: torch.Generator) -> Params:
        return {}

    def adapt(self, state: Params, support: Batch, start: Params | None = None) -> list[Tensor]:
        labels = item_labels(support)
        classes = torch.arange(support.class_mask.shape[1], device=labels.device)
        count = (labels.unsqueeze(-1) == classes).sum(1).double()
        logits = (count / count.sum(1, keepdim=True)).log().clamp(min=MASKED)
        return [logits.float()]

    def predict(self, adapted: Tensor, query: Batch) -> Tensor:
        return adapted.unsqueeze(1).expand(-1, item_labels(query).shape[1], -1)

    def passes(self) -> float:
        return 0.0
