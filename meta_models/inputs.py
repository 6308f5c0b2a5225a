"""What a transformers model is called with: ready masks and positions, which `torch.vmap` can bear.

    a_ij = 0 where token i may see token j, the least finite number elsewhere

Building a mask inside the model would branch on data; a ready additive one of four axes is taken as
it is.  It is then ours to cut it to the window of layers that see only near tokens.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from meta_models.layout import Packing


def model_inputs(
    model: nn.Module,
    mask: Tensor,
    packing: Packing | None,
    *,
    causal: bool,
    first_position: int,
    dtype: torch.dtype,
) -> dict[str, Any]:
    """Attention mask and positions of rows of texts.

    Args:
        model: The transformers model; its configuration says which layers have a window.
        mask: `[R, W]` True at real tokens.
        packing: `[R, W]` texts and positions where a row holds several texts; None: a text a row,
            from its first place on.
        causal: Whether a token sees only those before it.
        first_position: Number that the model gives to the first token of a text.
        dtype: Of the attention scores.
    """
    width = mask.shape[-1]
    place = torch.arange(width, device=mask.device)
    # Padding sees padding, itself at least: attention over nothing would be NaN.
    if packing is None:
        seen = mask[:, None, None, :] | (place == place.unsqueeze(-1))
    else:
        seen = (packing.text.unsqueeze(-1) == packing.text.unsqueeze(-2)).unsqueeze(1)
    if causal:
        seen = seen & (place <= place.unsqueeze(-1))
    inputs: dict[str, Any] = {"attention_mask": _additive(seen, dtype)}
    config: Any = model.config
    if (window := window_of(config)) is not None:
        ahead = place.unsqueeze(-1) - place
        near = _additive(seen & (ahead < window if causal else ahead.abs() <= window), dtype)
        kinds = {"full_attention": inputs["attention_mask"], "sliding_attention": near}
        inputs["attention_mask"] = kinds if getattr(config, "layer_types", None) else near
    if packing is not None:
        inputs["position_ids"] = packing.position + first_position
    elif causal:
        inputs["position_ids"] = place[None]
    if causal:
        inputs["use_cache"] = False
    return inputs


def window_of(config: Any) -> int | None:
    """Tokens that some layers see to each side; None where every layer sees all.

    Example:
        >>> from transformers import MistralConfig, Qwen3Config
        >>> window_of(MistralConfig(sliding_window=8)), window_of(Qwen3Config())
        (8, None)
    """
    kinds = getattr(config, "layer_types", None)
    if kinds is not None and "sliding_attention" not in kinds:
        return None
    return getattr(config, "sliding_window", None)


def first_position(model: Any) -> int:
    """Number of the first position: RoBERTa and its kin count on from the padding token's id."""
    embeddings = getattr(model, "embeddings", None)
    counts_on = hasattr(embeddings, "create_position_ids_from_input_ids")
    return embeddings.padding_idx + 1 if counts_on else 0  # pyright: ignore


def _additive(seen: Tensor, dtype: torch.dtype) -> Tensor:
    hidden = torch.full((), torch.finfo(dtype).min, dtype=dtype, device=seen.device)
    return torch.where(seen, torch.zeros_like(hidden), hidden)
