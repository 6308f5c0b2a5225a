"""The layers below the first adapter: kept, skipped, and nothing changed by it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import (
    ModernBertConfig,
    ModernBertModel,
    PretrainedConfig,
    Qwen2Config,
    Qwen2Model,
    Qwen3Config,
    Qwen3Model,
    RobertaConfig,
    RobertaModel,
)
from transformers.pytorch_utils import Conv1D

from meta_models.adapters import Adapter
from meta_models.backbone import Backbone, load_backbone
from meta_models.heads import Head
from meta_models.model import AdaptedModel
from meta_models.params import stack
from meta_models.store import GIB, Keep
from meta_models.targets import layers_of
from metalearn.algorithms.maml import MAML
from metalearn.inner.loop import InnerLoop

SIZES = {
    "vocab_size": 2048,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "max_position_embeddings": 40,
    "pad_token_id": 0,
}
RANDOM: dict[str, tuple[type[nn.Module], PretrainedConfig]] = {
    "roberta": (RobertaModel, RobertaConfig(**SIZES)),
    "modernbert": (
        ModernBertModel,
        ModernBertConfig(**SIZES, local_attention=4, global_attn_every_n_layers=2),
    ),
    "qwen2": (Qwen2Model, Qwen2Config(**SIZES, num_key_value_heads=1)),
    "qwen3": (Qwen3Model, Qwen3Config(**SIZES, num_key_value_heads=1, head_dim=8)),
}


def backbone(name: str) -> Backbone:
    """A small random model in fp64, eager attention."""
    if name not in RANDOM:
        return load_backbone(name, dtype=torch.float64)
    make, config = RANDOM[name]
    config._attn_implementation = "eager"
    torch.manual_seed(0)
    model = make(config).double().eval().requires_grad_(False)
    tokenizer = load_backbone("tiny-bert").tokenizer
    return Backbone(name, model, tokenizer, 16, config.num_hidden_layers, name.startswith("qwen"))


def model(
    name: str, *, keep: bool, layers: tuple[int, ...] | None = None, limits: Keep | None = None
) -> AdaptedModel:
    frozen = backbone(name)
    top = (frozen.layers - 1,) if layers is None else layers
    adapter = Adapter(frozen, "lora", {"r": 2, "target_modules": "all-linear"}, top, limits)
    return AdaptedModel(adapter, Head("prototype", frozen.width), keep_trunk=keep)


@contextmanager
def counted(layers: list[nn.Module]) -> Iterator[list[int]]:
    """How often the last linear part of each layer runs."""
    calls = [0] * len(layers)

    def count(index: int):
        def hook(*_: object) -> None:
            calls[index] += 1

        return hook

    parts = [
        [m for m in layer.modules() if isinstance(m, nn.Linear | Conv1D)][-1] for layer in layers
    ]
    hooks = [part.register_forward_hook(count(i)) for i, part in enumerate(parts)]
    try:
        yield calls
    finally:
        for hook in hooks:
            hook.remove()


@pytest.mark.parametrize("name", ["tiny-bert", "tiny-gpt2", "tiny-llama", *RANDOM])
def test_features_and_meta_gradients_are_those_of_the_whole_model(
    name, make_episode, generic
) -> None:
    episode = make_episode()
    results = []
    for keep in (True, False):
        functional = model(name, keep=keep)
        assert (functional.trunk is not None) == keep
        learner = MAML(functional, InnerLoop(2, {"adapter": 0.005, "head": 0.005}))
        state = generic(learner.init(torch.Generator().manual_seed(0)))
        features = functional.features(stack(state, episode.tasks), episode.support)
        gradient, _ = learner.meta_gradient(state, episode)
        results.append((features[episode.support.example_mask], gradient))

    (ours, mine), (theirs, expected) = results
    assert mine.keys() == expected.keys()
    # These round to fp32 inside, in norms or rotations.
    loose = {"tiny-llama": 1e-5, "qwen2": 2e-5, "qwen3": 1e-5, "modernbert": 1e-5}
    tolerance = loose.get(name, 1e-10)
    torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)
    for key, value in expected.items():
        assert value.norm() > 0
        assert (mine[key] - value).norm() <= tolerance * value.norm(), key


def test_a_text_is_computed_once_and_the_layers_below_are_skipped(make_episode) -> None:
    functional = model("roberta", keep=True)
    episode = make_episode()
    state = stack(functional.init(torch.Generator()), episode.tasks)
    texts = {
        tuple(row[mask].tolist())
        for ids, masks in zip(episode.support.tokens.ids, episode.support.tokens.mask, strict=True)
        for row, mask in zip(ids, masks, strict=True)
    }

    with counted(layers_of(functional.adapter.backbone)) as calls:
        functional.features(state, episode.support)
        first = list(calls)
        functional.features(state, episode.support)

    # Padded rows count as their first token, one text more.
    padded = not episode.support.example_mask.all()
    assert first[0] == first[1] == len(texts - {()}) + padded
    assert calls[:2] == first[:2]
    assert calls[2] == 2 * first[2] > 0


def test_what_frozen_projections_make_of_kept_states_is_used_not_computed(make_episode) -> None:
    functional = model("roberta", keep=True)
    support = make_episode().support
    state = stack(functional.init(torch.Generator()), support.tasks)
    before = functional.features(state, support)

    (rows,) = functional.arrange(support.tokens).rows
    assert rows.constants is not None
    hidden, *projected = rows.constants
    assert [x.shape for x in projected] == [hidden.shape] * 3  # query, key, value
    projected[1].zero_()  # then every token attends to all others alike
    assert not torch.allclose(functional.features(state, support), before)


def test_what_is_kept_does_not_depend_on_the_batch(make_episode) -> None:
    """So that a resumed run, which meets the texts in other batches, has the same bits."""
    episode = make_episode()
    one, other = model("tiny-bert", keep=True), model("tiny-bert", keep=True)
    assert one.trunk and other.trunk
    whole = one.trunk.states(episode.support.tokens)

    for task in reversed(range(episode.tasks)):
        alone = other.trunk.states(episode.select(task, task + 1).support.tokens)
        assert torch.equal(alone[0], whole[task])


def test_beyond_the_limit_states_are_computed_again(make_episode) -> None:
    tokens = make_episode().support.tokens
    whole = model("tiny-bert", keep=True).trunk
    assert whole
    everything = whole.states(tokens)
    assert whole.store.bytes > 0

    memory = whole.store.bytes / 2 / GIB
    small = model("tiny-bert", keep=True, limits=Keep(memory=memory, disk=0)).trunk
    assert small
    for _ in range(2):
        assert torch.equal(small.states(tokens), everything)
    assert 0 < small.store.bytes <= memory * GIB


def test_rows_are_the_states_without_padding(make_episode) -> None:
    trunk = model("roberta", keep=True).trunk
    assert trunk
    tokens = make_episode().support.tokens
    states = trunk.states(tokens)
    rows = trunk.rows(tokens)

    lengths = tokens.mask.sum(-1).clamp(min=1).flatten().tolist()
    assert [len(row) for row in rows] == lengths
    for row, state in zip(rows, states.flatten(0, 1), strict=True):
        assert torch.equal(row, state[: len(row)])
        assert not state[len(row) :].any()


def on_disk(folder: Path, seed: int = 0, layers: tuple[int, ...] = (1,)) -> AdaptedModel:
    """A model that keeps all states in files."""
    frozen = load_backbone("tiny-bert", dtype=torch.float64, seed=seed)
    adapter = Adapter(frozen, "lora", {"r": 2}, layers, Keep(0.0, 0.1, folder))
    return AdaptedModel(adapter, Head("prototype", frozen.width))


@pytest.mark.parametrize("method", ["lora", "bias"])
def test_a_later_run_starts_at_its_layer(make_episode, tmp_path: Path, method: str) -> None:
    tokens = make_episode().support.tokens
    found = []
    for run in range(2):
        frozen = load_backbone("tiny-bert", dtype=torch.float64)
        torch.manual_seed(run)  # what PEFT draws makes no other model
        adapter = Adapter(frozen, method, {}, (1,), Keep(0.0, 0.1, tmp_path))
        assert adapter.trunk
        with counted(layers_of(adapter.backbone)) as calls:
            found.append(adapter.trunk.states(tokens))
        assert (calls[0] > 0) == (run == 0)
    assert torch.equal(*found)


@pytest.mark.parametrize(
    "change", ["weights", "values of a layer below", "precision", "tokenizer", "settings"]
)
def test_a_changed_backbone_is_computed_anew(make_episode, tmp_path: Path, change: str) -> None:
    tokens = make_episode().support.tokens
    one = on_disk(tmp_path).trunk
    assert one
    before = one.states(tokens)

    other = on_disk(tmp_path, seed=int(change == "weights"))
    frozen = other.adapter.backbone
    if change == "values of a layer below":
        with torch.no_grad():
            frozen.model.get_parameter("encoder.layer.0.output.dense.bias")[0] += 1
    elif change == "precision":
        frozen.model.float()
    elif change == "tokenizer":
        frozen.tokenizer.add_tokens(["refund"])
    elif change == "settings":
        frozen.model.config.layer_norm_eps *= 2  # pyright: ignore
    assert other.trunk
    with counted(layers_of(frozen)) as calls:
        after = other.trunk.states(tokens)

    assert calls[0] > 0
    same = change in ("tokenizer", "settings")  # this one is read when the model is made
    assert torch.equal(before, after) == same
    assert len([path for path in tmp_path.iterdir() if path.is_dir()]) == 2


def test_what_lies_above_makes_no_other_trunk(make_episode, tmp_path: Path) -> None:
    tokens = make_episode().support.tokens
    one, other = on_disk(tmp_path).trunk, on_disk(tmp_path)
    assert one and other.trunk
    with torch.no_grad():
        weight = other.adapter.backbone.model.get_parameter("encoder.layer.1.output.dense.bias")
        weight += 1
    states = one.states(tokens)
    with counted(layers_of(other.adapter.backbone)) as calls:
        assert torch.equal(other.trunk.states(tokens), states)
    assert calls[0] == 0


@pytest.mark.parametrize("layers", [(0,), (0, 1)])
def test_an_adapter_in_the_first_layer_leaves_no_trunk(layers) -> None:
    assert model("tiny-bert", keep=True, layers=layers).trunk is None


def test_prompts_and_contexts_leave_no_trunk(language_model) -> None:
    assert language_model(method="prefix_tuning").trunk is None
    frozen = load_backbone("tiny-bert")
    adapter = Adapter(frozen, "lora", {"r": 2}, (1,))
    assert AdaptedModel(adapter, Head("slots", frozen.width), context=2).trunk is None
    assert AdaptedModel(adapter, Head("slots", frozen.width)).trunk is not None


def test_export_is_untouched_by_the_trunk(tmp_path: Path) -> None:
    functional = model("tiny-bert", keep=True)
    assert functional.trunk
    values = functional.adapter.init(torch.Generator())

    functional.adapter.export(values, tmp_path)

    back = functional.adapter.read(tmp_path)
    assert all(torch.equal(back[name], value) for name, value in values.items())
