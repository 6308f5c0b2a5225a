"""Texts in rows: nothing lost, nothing mixed, and the same states as each text alone."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
from transformers import (
    MistralConfig,
    MistralModel,
    ModernBertConfig,
    ModernBertModel,
    Qwen2Config,
    Qwen2Model,
    Qwen3Config,
    Qwen3Model,
    RobertaConfig,
    RobertaModel,
)

from meta_models.adapters import Adapter
from meta_models.backbone import Backbone, load_backbone
from meta_models.heads import Head
from meta_models.layout import Layout, LayoutKind, arrange, first_fit
from meta_models.model import AdaptedModel
from meta_models.params import stack
from metalearn.algorithms.maml import MAML
from metalearn.inner.loop import InnerLoop
from tasks.episode import Tokens

KINDS: tuple[LayoutKind, ...] = ("packed", "grouped", "padded")
SIZES: dict[str, Any] = {
    "vocab_size": 2048,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
}
GROUPED: dict[str, Any] = {"num_key_value_heads": 1, "head_dim": 8}
RANDOM: dict[str, tuple[Any, Any]] = {
    "roberta": (RobertaModel, RobertaConfig(**SIZES)),
    "modernbert": (
        ModernBertModel,
        ModernBertConfig(**SIZES, local_attention=4, global_attn_every_n_layers=2),
    ),
    "mistral": (MistralModel, MistralConfig(**SIZES, **GROUPED, sliding_window=3)),
    "qwen2": (
        Qwen2Model,
        Qwen2Config(
            **SIZES, num_key_value_heads=1, use_sliding_window=True, sliding_window=3,
            max_window_layers=1,
        ),
    ),
    "qwen3": (Qwen3Model, Qwen3Config(**SIZES, **GROUPED)),
}  # fmt: skip
NAMES = ("tiny-bert", "tiny-gpt2", "tiny-llama", *RANDOM)
LOOSE = ("tiny-llama", "mistral", "qwen2", "qwen3", "modernbert")
"""These round to fp32 inside, in norms or rotations."""


def backbone(name: str, dtype: torch.dtype = torch.float64) -> Backbone:
    """A small random model, eager attention."""
    if name not in RANDOM:
        return load_backbone(name, dtype=dtype)
    make, config = RANDOM[name]
    config._attn_implementation = "eager"
    config.initializer_range = 0.3
    torch.manual_seed(0)
    model = make(config).to(dtype).eval().requires_grad_(False)
    tokenizer = load_backbone("tiny-bert").tokenizer
    causal = name in ("mistral", "qwen2", "qwen3")
    return Backbone(name, model, tokenizer, 16, config.num_hidden_layers, causal)


def model(name: str, kind: LayoutKind, pooling: str | None = None) -> AdaptedModel:
    frozen = backbone(name)
    adapter = Adapter(frozen, "lora", {"r": 2, "target_modules": "all-linear"})
    return AdaptedModel(adapter, Head("slots", frozen.width), layout=kind, pooling=pooling)


def texts(*lengths: tuple[int, ...]) -> Tokens:
    """Random tokens for texts of the given lengths, a tuple a task."""
    generator = torch.Generator().manual_seed(0)
    sizes = torch.tensor(lengths)
    mask = torch.arange(int(sizes.max())) < sizes.unsqueeze(-1)
    ids = torch.randint(5, 300, mask.shape, generator=generator)
    return Tokens(ids.where(mask, 0), mask)


def ids_of(layout: Layout) -> torch.Tensor:
    return torch.cat([rows.ids.flatten(1) for rows in layout.rows], dim=1)


# --- where tokens lie ---------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_every_token_has_one_place_and_finds_the_way_back(kind: LayoutKind) -> None:
    tokens = texts((3, 9, 1, 4, 0, 7), (2, 2, 2, 2, 2, 2))
    layout = arrange(tokens, kind)

    back = ids_of(layout).gather(1, layout.place.flatten(1)).view(tokens.ids.shape)
    assert torch.equal(back[tokens.mask], tokens.ids[tokens.mask])
    real = [layout.place[task][tokens.mask[task]] for task in range(2)]
    assert [len(places.unique()) for places in real] == [24, 12]
    assert (layout.text >= 0).sum(1).tolist() == [24, 12]


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_known_of_a_token_comes_with_it(kind: LayoutKind) -> None:
    tokens = texts((3, 9, 1), (5, 0, 2))
    states = tokens.ids.unsqueeze(-1).expand(-1, -1, -1, 2).double()
    for rows in arrange(Tokens(tokens.ids, tokens.mask, tokens.ids + 1), kind, states).rows:
        assert rows.constants is not None and rows.segments is not None
        assert torch.equal(rows.constants[0][..., 1][rows.mask], rows.ids[rows.mask].double())
        assert torch.equal(rows.segments[rows.mask], rows.ids[rows.mask] + 1)


def test_packed_rows_hold_little_padding() -> None:
    generator = torch.Generator().manual_seed(1)
    lengths = torch.randint(4, 30, (2, 60), generator=generator)
    lengths[0, 0] = 60
    tokens = texts(*map(tuple, lengths.tolist()))

    places = {kind: arrange(tokens, kind).text.numel() for kind in KINDS}

    assert places["packed"] < 1.1 * lengths.sum() < places["grouped"] < places["padded"]
    assert places["padded"] == 2 * 60 * 60


def test_a_text_longer_than_other_rows_makes_the_row_as_wide() -> None:
    assert arrange(texts((200, 3, 4)), "packed").rows[0].ids.shape[2] >= 200


def test_first_fit_decreasing() -> None:
    rows = first_fit([4, 8, 1, 4, 2, 1], 10)
    assert rows == [[1, 4], [0, 3, 2, 5]]


# --- what is computed ---------------------------------------------------------------------------


@pytest.mark.parametrize("pooling", ["mean", "first", "last"])
@pytest.mark.parametrize("name", NAMES)
def test_features_are_those_of_each_text_alone(name, pooling, make_episode, generic) -> None:
    """Packed, grouped and padded, with vmap and without it, N and K varying."""
    episode = make_episode()
    found = {}
    for kind in KINDS:
        functional = model(name, kind, pooling)
        assert functional.layout == kind
        state = generic(functional.init(torch.Generator().manual_seed(0)))
        found[kind] = functional.features(stack(state, 3), episode.support)
        for task in range(3):
            alone = functional.features(stack(state, 1), episode.support.select(task, task + 1))
            torch.testing.assert_close(alone[0], found[kind][task], rtol=1e-4, atol=1e-6)
    real = episode.support.example_mask
    tolerance = 2e-6 if name in LOOSE else 1e-11
    for kind in ("packed", "grouped"):
        torch.testing.assert_close(
            found[kind][real], found["padded"][real], rtol=tolerance, atol=tolerance
        )
    if pooling != "first":  # which is the same token in every text
        assert found["padded"][real].std(0).min() > 1e-3


@pytest.mark.parametrize("name", NAMES)
def test_states_are_those_of_the_model_with_its_own_mask(name: str) -> None:
    """Windows of attention included: texts are longer than the windows."""
    frozen = backbone(name)
    tokens = texts((12, 5, 9, 2))
    adapter = Adapter(frozen, "none")
    layout = arrange(tokens, "packed")
    rows = layout.rows[0]
    assert rows.packing is not None
    packing = type(rows.packing)(*(x[0] for x in rows.packing))
    states = adapter.hidden({}, rows.ids[0], rows.mask[0], None, None, None, packing)
    padded = adapter.hidden({}, tokens.ids[0], tokens.mask[0], None)
    for text, length in enumerate((12, 5, 9, 2)):
        plain: Any = frozen.model
        expected = plain(input_ids=tokens.ids[0, text : text + 1, :length]).last_hidden_state[0]
        ours = states.flatten(0, 1)[layout.place[0, text, :length]]
        tolerance = 1e-5 if name in LOOSE else 1e-11
        torch.testing.assert_close(ours, expected, rtol=tolerance, atol=tolerance)
        torch.testing.assert_close(padded[text, :length], expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("gradient", ["unrolled", "adjoint"])
@pytest.mark.parametrize("name", ["tiny-bert", "tiny-gpt2", "roberta"])
def test_meta_gradients_are_those_of_padded_texts(name, gradient, make_episode, generic) -> None:
    episode = make_episode()
    found = []
    for kind in KINDS:
        learner = MAML(model(name, kind), InnerLoop(2, gradient=gradient))
        state = generic(learner.init(torch.Generator().manual_seed(0)))
        found.append(learner.meta_gradient(state, episode)[0])
    assert sum(value.norm() > 0 for value in found[-1].values()) > 10
    for key, value in found[-1].items():
        for other in found[:-1]:
            assert (other[key] - value).norm() <= 1e-9 * value.norm(), key


def test_tokens_have_the_states_of_padded_texts(make_episode, generic) -> None:
    """Token labels: a feature a token, in its place."""
    batch = make_episode().support
    tags = torch.where(batch.tokens.mask, 0, -100)
    batch = type(batch)(
        **{name: getattr(batch, name) for name in batch.__dataclass_fields__}
        | {"kind": "token", "token_labels": tags}
    )
    found = []
    for kind in KINDS:
        functional = model("tiny-bert", kind)
        state = generic(functional.init(torch.Generator().manual_seed(0)))
        found.append(functional.features(stack(state, 3), batch)[batch.tokens.mask.flatten(1)])
    for other in found[:-1]:
        torch.testing.assert_close(other, found[-1], rtol=1e-10, atol=1e-12)


def test_a_layout_is_worked_out_once_for_all_steps(make_episode, monkeypatch) -> None:
    calls = []

    def counted(*arguments: Any) -> Layout:
        calls.append(arguments)
        return arrange(*arguments)

    monkeypatch.setattr("meta_models.model.arrange", counted)
    learner = MAML(model("tiny-bert", "packed"), InnerLoop(5))
    learner.meta_gradient(learner.init(torch.Generator()), make_episode())
    assert len(calls) == 2  # support and query


# --- where it would not be exact ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "context", "word"),
    [("prefix_tuning", 0, "virtual tokens"), ("prompt_tuning", 0, "virtual tokens"),
     ("lora", 2, "context")],
)  # fmt: skip
def test_virtual_tokens_are_not_packed_and_the_log_says_so(method, context, word, caplog) -> None:
    frozen = load_backbone("tiny-bert")
    adapter = Adapter(frozen, method)
    with caplog.at_level(logging.INFO):
        functional = AdaptedModel(adapter, Head("slots", frozen.width), context=context)
    assert functional.layout == "grouped"
    assert [word in record.message for record in caplog.records if "packed" in record.message] == [
        True
    ]


def test_a_model_that_takes_no_positions_is_not_packed(monkeypatch) -> None:
    frozen = backbone("tiny-gpt2")
    forward = frozen.model.forward

    def blind(*arguments: Any, position_ids: Any = None, **others: Any) -> Any:
        return forward(*arguments, **others)

    monkeypatch.setattr(frozen.model, "forward", blind)
    adapter = Adapter(frozen, "lora", {"r": 2})
    assert "beside another" in adapter.unpackable
    assert AdaptedModel(adapter, Head("slots", frozen.width)).layout == "grouped"
