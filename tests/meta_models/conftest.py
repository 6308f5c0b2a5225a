"""What the tests of models share: padded rows of token ids, and plain transformers models."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from meta_models.backbone import load_backbone


@pytest.fixture(scope="session")
def rows() -> tuple[Tensor, Tensor]:
    """Token ids `[4, 7]` and their mask: rows of 7, 3, 5 and 1 real tokens."""
    ids = torch.randint(5, 300, (4, 7), generator=torch.Generator().manual_seed(0))
    mask = torch.arange(7) < torch.tensor([7, 3, 5, 1])[:, None]
    return ids.masked_fill(~mask, 0), mask


@pytest.fixture(scope="session")
def plain() -> Callable[..., Tensor]:
    """Last hidden states of a transformers model as its users call it, with a 2-D mask."""

    def hidden(model: Any, ids: Tensor, mask: Tensor, **inputs: Tensor) -> Tensor:
        with torch.no_grad():
            out = model(input_ids=ids, attention_mask=mask.long(), **inputs)
        return out.last_hidden_state

    return hidden


@pytest.fixture
def frozen() -> Callable[[str], Any]:
    """An untouched tiny transformers model."""
    return lambda name: load_backbone(name, dtype=torch.float64).model
