"""How many tasks of a meta-step go through one pass, where the settings leave it open.

    as many as keep the device busy, and no more than fit half of its memory

A pass of few short texts leaves a processor waiting; one of enough texts is as fast as it can be,
and more tasks only hold more memory.  The choice depends on the settings, the first tasks and the
machine alone: a resumed run makes the same one.
"""

from __future__ import annotations

import logging
import math
import os
from functools import cache

import torch

from experiments.config import Experiment
from experiments.estimate import estimate
from meta_models.model import AdaptedModel
from metalearn.learner import Learner
from tasks.episode import Episode

# Tokens of support in a pass at which a CPU is busy. At one thread, second-order MAML on MiniLM
# took 0.28 s a task of 60 tokens alone, 0.24 s with 120 tokens a pass, 0.22 s with 240 and with
# 480; longer tasks gained less than a twelfth (`python -m experiments.benchmarks.estimate busy`).
# An accelerator takes all that fit, which was not measured.
BUSY = 512
# Numbers an activation graph may hold for each token, layer, hidden unit and step: some 30 were
# seen in second order, more with wide feed-forward layers and long rows.
MOST = 200

_say_once = cache(logging.getLogger(__name__).info)


def tasks_per_pass(
    experiment: Experiment, name: str, learner: Learner, episode: Episode, device: torch.device
) -> int:
    """Tasks a pass of a training.

    Args:
        experiment: Its settings.
        name: Catalog name of the learner.
        learner: The learner, which knows whether its model takes several tasks at once.
        episode: The tasks of a meta-step.
        device: Where it runs.
    """
    if experiment.inner.tasks_per_pass != "auto" or learner.tasks_per_pass == 1:
        return learner.tasks_per_pass
    if experiment.backbone.checkpoint:  # layers keep less only in a task that runs alone
        return 1
    tokens = episode.support.tokens
    if tokens is None:
        return episode.tasks
    size = episode.tasks
    if device.type == "cpu":
        mean = float(tokens.mask.sum()) / episode.tasks
        size = min(size, math.ceil(BUSY / max(1.0, mean)))
    memory = total_memory(device) // 2
    if size > 1 and size * _bound(experiment, learner, episode) > memory:
        alone = experiment.override({"inner.tasks_per_pass": 1})
        one = estimate(alone, name, episode, accelerator=device.type != "cpu").activations
        size = max(1, min(size, memory // max(1, one)))
    _say_once("%s: %d of %d tasks in one pass", name, size, episode.tasks)
    return size


def _bound(experiment: Experiment, learner: Learner, episode: Episode) -> int:
    """Bytes that the graph of a task certainly does not exceed: where that fits, all is well."""
    model = getattr(learner, "model", None)
    if not isinstance(model, AdaptedModel):
        return 0
    texts = [batch.tokens for batch in (episode.support, episode.query) if batch.tokens is not None]
    tokens = max(int(text.mask.sum((1, 2)).max()) for text in texts)
    backbone = model.adapter.backbone
    steps = 1 + experiment.inner.steps
    return 4 * MOST * tokens * backbone.layers * backbone.width * steps


def total_memory(device: torch.device) -> int:
    """Bytes of memory of a device, in use or not."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[1]
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
