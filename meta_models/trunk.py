"""The frozen layers below the first adapter: computed once a text, kept, and skipped after.

    h_j(x) = layer_{j-1}( ... layer_0(embed(x)))        independent of every adapter value
    hidden(theta, x) = layer_{l-1}( ... layer_j(h_j(x); theta))

Layers below j take no part in any gradient, so with adapters on the top k of l layers a forward
costs k layers instead of l.  Each text is computed by itself and without padding: what is kept
does not depend on the batches that it was met in, and a resumed run finds the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from tasks.episode import Tokens

LIMIT = 2**31  # bytes that are kept: some 80,000 short texts of a small encoder
Run = Callable[[Tensor, Tensor, Tensor | None], object]
"""`run(ids, mask, segments)`: one forward of a batch `[B, L]` through the whole model."""


class _Reached(Exception):
    """The forward has come to layer j."""

    def __init__(self, states: Tensor) -> None:
        self.states = states


class Trunk:
    """Hidden states before layer j of a frozen model.

    Args:
        layers: All transformer layers of the model, in order; the first j are patched to be
            skipped within `skipped`.
        below: j, at least 1.
        run: One forward of the model.
        limit: Bytes that are kept; what comes after is computed again every time.
    """

    def __init__(
        self, layers: list[nn.Module], below: int, run: Run, *, limit: int = LIMIT
    ) -> None:
        self.below = below
        self.limit = limit
        self.bytes = 0
        self._first_above = layers[below]
        self._run = run
        self._kept: dict[tuple[Any, ...], Tensor] = {}
        self._given: Tensor | None = None
        for index, layer in enumerate(layers[:below]):
            layer.forward = partial(self._forward, index, layer.forward)

    def states(self, tokens: Tokens) -> Tensor:
        """`[T, B, L, D]` hidden states before layer j; zero at padding.

        Args:
            tokens: `[T, B, L]` token ids; a row without real tokens counts as its first one.
        """
        lengths = tokens.mask.sum(-1).clamp(min=1).tolist()
        segments = None if tokens.segments is None else tokens.segments
        found = [
            [
                self._state(
                    tokens.ids[task, row, :length],
                    None if segments is None else segments[task, row, :length],
                )
                for row, length in enumerate(rows)
            ]
            for task, rows in enumerate(lengths)
        ]
        sample = found[0][0]
        result = sample.new_zeros(*tokens.ids.shape, sample.shape[-1])
        for task, rows in enumerate(found):
            for row, state in enumerate(rows):
                result[task, row, : len(state)] = state
        return result

    @contextmanager
    def skipped(self, states: Tensor) -> Iterator[None]:
        """Within, a forward starts at layer j with `states` `[B, L, D]`."""
        self._given = states
        try:
            yield
        finally:
            self._given = None

    def _state(self, ids: Tensor, segments: Tensor | None) -> Tensor:
        key = (*ids.tolist(), None, *([] if segments is None else segments.tolist()))
        if key not in self._kept:
            state = self._compute(ids, segments)
            size = state.numel() * state.element_size()
            if self.bytes + size > self.limit:
                return state
            self.bytes += size
            self._kept[key] = state
        return self._kept[key]

    @torch.no_grad()
    def _compute(self, ids: Tensor, segments: Tensor | None) -> Tensor:
        def leave(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            raise _Reached(args[0] if args else kwargs["hidden_states"])

        hook = self._first_above.register_forward_pre_hook(leave, with_kwargs=True)
        mask = torch.ones_like(ids, dtype=torch.bool)[None]
        try:
            self._run(ids[None], mask, None if segments is None else segments[None])
        except _Reached as reached:
            return reached.states[0].clone()
        finally:
            hook.remove()
        raise AssertionError("the forward has not come to its layer")

    def _forward(self, index: int, forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """A layer below j: itself, or what is given in its place."""
        if self._given is None:
            return forward(*args, **kwargs)
        if index == 0:
            return self._given
        return args[0] if args else kwargs["hidden_states"]
