"""What every method is brought to: a step that can be called and timed."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

Step = Callable[[int], tuple[float, dict[str, Tensor]]]
"""`step(number) -> (mean query loss, gradient in every meta-parameter)`; `number` chooses the
episode."""
