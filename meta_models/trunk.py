"""The frozen layers below the first adapter: computed once a text, kept, and skipped after.

    h_j(x) = layer_{j-1}( ... layer_0(embed(x)))        independent of every adapter value
    hidden(theta, x) = layer_{l-1}( ... layer_j(h_j(x); theta))

Layers below j take no part in any gradient, so with adapters on the top k of l layers a forward
costs k layers instead of l.  Each text is computed by itself and without padding: what is kept
does not depend on the batches that it was met in, and a resumed run finds the same bits.

What frozen modules of layer j make of h_j alone (LoRA leaves W h_j of every projection) is constant
as well.  It is computed once for the rows of a batch, and all inner steps begin with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, overload

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from torch.nn.utils.rnn import pad_sequence

from meta_models.backbone import Backbone
from meta_models.clock import charge, now
from meta_models.fingerprint import fingerprint
from meta_models.layout import Rows
from meta_models.store import Keep, Store
from meta_models.targets import layer_of, layers_of
from tasks.episode import Tokens

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
        learned: The parameters that are not frozen.
        run: One forward of the model.
        store: Keeps the states; what it does not keep is computed again every time.
    """

    def __init__(
        self,
        layers: list[nn.Module],
        below: int,
        learned: Sequence[nn.Parameter],
        run: Run,
        store: Store,
    ) -> None:
        self.below = below
        self.store = store
        self._seconds: dict[bytes, float] = {}
        self._first_above = layers[below]
        self._run = run
        self._given: tuple[Tensor, ...] | None = None
        for index, layer in enumerate(layers[:below]):
            layer.forward = partial(self._forward, index, layer.forward)
        self._frozen = self._find({id(value) for value in learned})

    def states(self, tokens: Tokens) -> Tensor:
        """`[T, B, L, D]` hidden states before layer j; zero at padding.

        Args:
            tokens: `[T, B, L]` token ids; a row without real tokens counts as its first one.
        """
        result = pad_sequence(self.rows(tokens), batch_first=True)
        result = pad(result, (0, 0, 0, tokens.ids.shape[-1] - result.shape[1]))
        return result.to(tokens.ids.device).unflatten(0, tokens.ids.shape[:2])

    def rows(self, tokens: Tokens) -> list[Tensor]:
        """The same without padding, on the CPU: T B tensors `[n, D]`, not to be written to.

        Row b of task t is number t B + b.
        """
        lengths = tokens.mask.sum(-1).clamp(min=1).flatten().tolist()
        ids, segments = _flat(tokens.ids), _flat(tokens.segments)
        keys = list(_keys(ids, segments, lengths))
        found = self.store.get(keys)
        charge(sum(self._seconds.get(key, 0.0) for key in found))
        fresh: dict[bytes, Tensor] = {}
        for row, (key, length) in enumerate(zip(keys, lengths, strict=True)):
            if key not in found:
                cut = None if segments is None else segments[row, :length]
                began = now()
                found[key] = fresh[key] = self._compute(ids[row, :length], cut)
                self._seconds[key] = now() - began
        if fresh:
            self.store.put(fresh)
        return [found[key] for key in keys]

    def forget(self) -> None:
        """Drop what is kept in memory: its texts will not come again."""
        self.store.forget()
        self._seconds.clear()

    @torch.no_grad()
    def prepared(self, rows: Rows) -> Rows:
        """Rows with all their constants: h_j, then what the frozen modules make of it.

        Args:
            rows: Rows of T tasks whose states before layer j are known.
        """
        assert rows.constants is not None
        found = [rows.constants[0]]
        for module, place in self._frozen:
            found.append(torch.stack([module(x) for x in found[place]]))
        return replace(rows, constants=tuple(found))

    @contextmanager
    def skipped(self, constants: tuple[Tensor, ...]) -> Iterator[None]:
        """Within, a forward starts at layer j with these `constants` of one task."""
        self._given = constants
        try:
            yield
        finally:
            self._given = None

    def _find(self, learned: set[int]) -> list[tuple[nn.Module, int]]:
        """Modules of layer j that see constants alone, each with the place of its input among them.

        Found by watching one forward; then they are patched to be skipped within `skipped`.

        Args:
            learned: Identities of the parameters that are not frozen.
        """
        seen: list[Tensor] = []
        frozen: list[tuple[nn.Module, int]] = []

        def enter(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            seen.append(_hidden(args, kwargs))

        def leave(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            for place, known in enumerate(seen):
                if len(args) == 1 and args[0] is known:
                    frozen.append((module, place))
                    seen.append(output)
                    return

        hooks = [self._first_above.register_forward_pre_hook(enter, with_kwargs=True)]
        for module in self._first_above.modules():
            own = list(module.parameters())
            if own and not list(module.children()) and learned.isdisjoint(map(id, own)):
                hooks.append(module.register_forward_hook(leave))
        device = next(self._first_above.parameters()).device
        ids = torch.full((1, 2), 5, device=device)
        try:
            self._run(ids, torch.ones_like(ids, dtype=torch.bool), None)
        finally:
            for hook in hooks:
                hook.remove()
        for place, (module, _) in enumerate(frozen, 1):
            module.forward = partial(self._constant, place, module.forward)
        return frozen

    @torch.no_grad()
    def _compute(self, ids: Tensor, segments: Tensor | None) -> Tensor:
        def leave(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            raise _Reached(_hidden(args, kwargs))

        hook = self._first_above.register_forward_pre_hook(leave, with_kwargs=True)
        mask = torch.ones_like(ids, dtype=torch.bool)[None]
        try:
            self._run(ids[None], mask, None if segments is None else segments[None])
        except _Reached as reached:
            return reached.states[0].clone().cpu()
        finally:
            hook.remove()
        raise AssertionError("the forward has not come to its layer")

    def _forward(self, index: int, forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """A layer below j: itself, or what is given in its place."""
        if self._given is None:
            return forward(*args, **kwargs)
        return self._given[0] if index == 0 else _hidden(args, kwargs)

    def _constant(self, place: int, forward: Callable[..., Any], *args: Any) -> Any:
        """A frozen module of layer j: itself, or what is given in its place."""
        return forward(*args) if self._given is None else self._given[place]


def trunk_below(
    backbone: Backbone, values: Mapping[str, nn.Parameter], run: Run, keep: Keep
) -> Trunk | None:
    """The layers below the first one that carries a value; None where there are none.

    Args:
        backbone: The frozen model, with its adapter.
        values: The adapter's values, by their full names.
        run: One forward of the model.
        keep: How much is kept.
    """
    where = [layer_of(name) for name in values]
    below = 0 if not where or None in where else min(index or 0 for index in where)
    if not below:
        return None
    store = Store(keep, partial(fingerprint, backbone, below))
    return Trunk(layers_of(backbone), below, list(values.values()), run, store)


def _hidden(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """The hidden states that a layer is called with."""
    return args[0] if args else kwargs["hidden_states"]


@overload
def _flat(tensor: Tensor) -> Tensor: ...
@overload
def _flat(tensor: None) -> None: ...
def _flat(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.flatten(0, 1)


def _keys(ids: Tensor, segments: Tensor | None, lengths: list[int]) -> Iterator[bytes]:
    """What tells texts apart: their ids, and their segments where the model has such."""
    words = ids.cpu().numpy()
    types = None if segments is None else segments.cpu().numpy()
    for row, length in enumerate(lengths):
        kinds = b"" if types is None else b"," + types[row, :length].tobytes()
        yield words[row, :length].tobytes() + kinds
