"""What a computation holds and does, without doing it: bytes at the peak, and operations.

    peak = max over operations of  sum of bytes of the storages alive,    flops = sum 2 m n k

Tensors on the meta device have shapes and no memory, but every operation on them is dispatched, and
whatever autograd keeps lives as long as it would.  So the code itself runs, with its graphs, double
backwards, vmap and casts, in seconds and in no memory.  What an operation allocates and frees
inside of itself is not seen.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from functools import cache, partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only
from torch.utils.flop_counter import flop_registry

from metalearn.allocators import Allocator, Blocks

_ITEM = torch.ops.aten._local_scalar_dense.default
_EQUAL = torch.ops.aten.equal.default
_COPY = torch.ops.aten._to_copy.default


class Footprint(TorchDispatchMode):
    """Watches the operations within it.

    Tensors that were there before are not counted.  An operation that meets only real tensors
    (token ids, masks) is done; one that meets a tensor without memory has a result without.  A
    number read from such a tensor is 1, and two of them are equal.

    Args:
        allocator: Says what the tensors take; None: their bytes.

    Attributes:
        flops: Floating-point operations of matrix products and attention.

    Example:
        >>> x, w = torch.empty(8, 32, device="meta"), torch.empty(32, 16, device="meta")
        >>> with Footprint() as found:
        ...     y = (x @ w).relu()
        >>> found.flops, found.peak, found.live
        (8192, 1024, 512)
    """

    def __init__(self, allocator: Allocator | None = None) -> None:
        super().__init__()
        self.flops = 0
        self._allocator = Blocks() if allocator is None else allocator
        self._known: dict[int, weakref.ref[Any]] = {}

    @property
    def live(self) -> int:
        """Bytes that the tensors take now."""
        return self._allocator.held

    @property
    def peak(self) -> int:
        """Most bytes that they took at once."""
        return self._allocator.peak

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = {} if kwargs is None else kwargs
        given = list(_tensors((*args, *kwargs.values())))
        for tensor in given:
            self._meet(tensor, new=False)
        shapes_only = any(x.is_meta for x in given)
        if shapes_only:
            if func is _ITEM:
                return 1.0
            if func is _EQUAL:
                return True
            if func is _COPY and (to := kwargs.get("device")) is not None and to.type != "meta":
                return torch.ones(given[0].shape, device=to, dtype=kwargs.get("dtype"))
            if not all(x.is_meta for x in given):
                args = _bare(args)
                kwargs = {name: _bare(value) for name, value in kwargs.items()}
        if shapes_only and _makes_new(func):
            result = self._made(func, args, kwargs)
        else:
            result = func(*args, **kwargs)
            self.flops += _flops(func, args, kwargs, result)
        for tensor in _tensors((result,)):
            self._meet(tensor, new=True)
        return result

    def _made(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """The result of an operation whose shapes were met before, or are worked out now.

        The same few operations come again in every layer and step; asking torch for the shapes of
        each takes ten times as long as remembering them.
        """
        key = func, _signature(args), _signature(tuple(sorted(kwargs.items())))
        if (found := _MADE.get(key)) is None:
            result = func(*args, **kwargs)
            outputs = tuple(result) if isinstance(result, tuple | list) else (result,)
            simple = all(x is None or isinstance(x, Tensor) for x in outputs)
            if simple:
                shapes = tuple(None if x is None else _shape(x) for x in outputs)
                flops = _flops(func, args, kwargs, result)
                kind = type(result) if isinstance(result, tuple | list) else None
                _MADE[key] = _Found(shapes, kind, flops)
                self.flops += flops
            return result
        self.flops += found.flops
        outputs = [
            x and torch.empty_strided(x[0], x[1], dtype=x[2], device="meta") for x in found.shapes
        ]
        return outputs[0] if found.kind is None else found.kind(outputs)

    def _meet(self, tensor: Tensor, *, new: bool) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._known:
            return
        size = storage.nbytes() if new else 0
        self._allocator.take(size)
        self._known[key] = weakref.ref(storage, partial(self._forget, key, size))

    def _forget(self, key: int, size: int, _: object) -> None:
        del self._known[key]
        self._allocator.give(size)


class _Found(NamedTuple):
    """What an operation makes: shapes, strides and types; the sequence they come in; its flops."""

    shapes: tuple[Any, ...]
    kind: type[Any] | None
    flops: int


_MADE: dict[Any, _Found] = {}  # by operation and signature of its arguments


@cache
def _makes_new(func: Any) -> bool:
    """Whether the results of an operation share no memory with anything."""
    schema = func._schema
    return not any(x.alias_info is not None for x in (*schema.arguments, *schema.returns))


def _flops(func: Any, args: Any, kwargs: dict[str, Any], result: Any) -> int:
    count = flop_registry.get(func._overloadpacket)
    return 0 if count is None else count(*args, **kwargs, out_val=result)


def _shape(tensor: Tensor) -> tuple[Any, ...]:
    return tensor.shape, tensor.stride(), tensor.dtype


def _signature(value: Any) -> Any:
    """What the shapes of a result depend on, to be looked up by; 1, 1.0 and True differ."""
    if isinstance(value, Tensor):
        return _shape(value)
    if isinstance(value, tuple | list):
        return tuple(map(_signature, value))
    return type(value), value


def _tensors(values: Any) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, tuple | list):
            yield from _tensors(value)


def _bare(values: Any) -> Any:
    """The same without memory."""
    return tree_map_only(Tensor, lambda x: x if x.is_meta else x.to("meta"), values)
