"""Layers that see only near tokens see these tokens, in texts longer than their window."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    Gemma2Config,
    Gemma2Model,
    MistralConfig,
    MistralModel,
    ModernBertConfig,
    ModernBertModel,
    PretrainedConfig,
    Qwen2Config,
    Qwen2Model,
)

from meta_models.adapters import Adapter
from meta_models.backbone import Backbone

SIZES = {
    "vocab_size": 512,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "max_position_embeddings": 64,
    "initializer_range": 0.3,
    "pad_token_id": 0,
    "attn_implementation": "eager",
}
SOME = {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 2}
MODELS: dict[str, tuple[type[nn.Module], PretrainedConfig]] = {
    "modernbert": (ModernBertModel, ModernBertConfig(**SIZES, local_attention=4)),
    "qwen2": (Qwen2Model, Qwen2Config(**SIZES, num_key_value_heads=1, **SOME)),
    "mistral": (MistralModel, MistralConfig(**SIZES, num_key_value_heads=1, sliding_window=4)),
    "gemma2": (
        Gemma2Model,
        Gemma2Config(**SIZES, num_key_value_heads=1, head_dim=8, sliding_window=4),
    ),
}


def frozen(name: str, dtype: torch.dtype) -> Backbone:
    make, config = MODELS[name]
    torch.manual_seed(0)
    model = make(config).to(dtype).eval().requires_grad_(False)
    return Backbone(name, model, None, 16, 4, name != "modernbert")


def texts() -> tuple[Tensor, Tensor]:
    """Of 20, 13 and 2 tokens."""
    ids = torch.randint(5, 300, (3, 20), generator=torch.Generator().manual_seed(0))
    mask = torch.arange(20) < torch.tensor([20, 13, 2])[:, None]
    return ids.masked_fill(~mask, 0), mask


@pytest.mark.parametrize("name", MODELS)
def test_hidden_states_are_those_of_the_plain_model(
    name: str, plain: Callable[..., Tensor]
) -> None:
    backbone = frozen(name, torch.float32)
    ids, mask = texts()
    expected = plain(backbone.model, ids, mask)

    hidden = Adapter(backbone, "none").hidden({}, ids, mask, None)

    torch.testing.assert_close(hidden[mask], expected[mask], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_padding_far_from_all_tokens_is_finite(name: str) -> None:
    """Their softmax is taken in fp32, where the least number of fp64 is minus infinity."""
    ids, mask = texts()
    hidden = Adapter(frozen(name, torch.float64), "none").hidden({}, ids, mask, None)
    assert hidden.isfinite().all()
