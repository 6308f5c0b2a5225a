"""The meta-gradient through every adapter method and backbone equals finite differences."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from meta_models.adapters import Adapter
from meta_models.backbone import load_backbone
from meta_models.heads import Head
from meta_models.methods import METHODS
from meta_models.model import AdaptedModel
from meta_models.params import norm
from metalearn.algorithms.maml import MAML
from metalearn.inner.loop import InnerLoop

OPTIONS = {
    **{name: {"r": 2, "lora_alpha": 2} for name in ("lora", "rslora", "dora")},
    "vera": {"r": 4},
    "prefix_tuning": {"num_virtual_tokens": 2},
    "prompt_tuning": {"num_virtual_tokens": 2},
}
PAIRS = [
    (backbone, method)
    for method in METHODS
    for backbone in ("tiny-bert", "tiny-gpt2", "tiny-llama")
    if (backbone, method) != ("tiny-llama", "bias")  # it has none
]


@pytest.mark.parametrize(("backbone", "method"), PAIRS)
def test_meta_gradients_are_finite_differences(
    backbone: str,
    method: str,
    make_episode: Any,
    generic: Any,
    query_loss: Any,
    check_gradient: Any,
    llama_in_double: None,
) -> None:
    frozen = load_backbone(backbone, dtype=torch.float64)
    model = AdaptedModel(
        Adapter(frozen, method, OPTIONS.get(method)), Head("prototype", frozen.width)
    )
    learner = MAML(model, InnerLoop(2, {"adapter": 0.02, "head": 0.02}), tasks_per_pass=2)
    episode = make_episode(tasks=learner.tasks_per_pass, shots=1, queries=1)
    state = generic(learner.init(torch.Generator().manual_seed(0)), deviation=0.1)

    gradient, _ = learner.meta_gradient(state, episode)

    check_gradient(lambda s: query_loss(learner, s, episode), state, gradient, coordinates=0)
    assert norm(gradient) > 0
