"""Functions of tensors, derivatives inside included, traced to one graph and compiled.

    graph = trace(f)(x)        every operation of f on x, those of its inner and outer gradients too
    f(y) = graph(y)            for all y of the same shapes

The graph holds what autograd did, operation by operation, so that nothing is left to differentiate:
second order costs the compiler no more than first order, and the mathematics is that of f by
construction.  It is sound where f is the same sequence of operations for all values of its inputs.
Tracing refuses a function that looks at values (a language model's does: it groups texts by their
length and looks kept states up), and the first result of a graph is held against that of f.

What cannot be compiled (no C++ compiler, a function of values, too many shapes) is computed by f
itself, after one line in the log that says why.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Hashable, Sequence

import torch
from torch import Tensor

Function = Callable[..., tuple[Tensor, ...]]

log = logging.getLogger(__name__)


class Compiler:
    """Runs functions of tensors, each compiled once for every set of shapes.

    Args:
        name: What is compiled, for the log.
        limit: Graphs that are made; each costs seconds.  What comes after is run as it is.

    Example:
        >>> run = Compiler("an empty limit", limit=0)
        >>> run("double", lambda x: (2 * x,), [torch.ones(1)])
        (tensor([2.]),)
    """

    def __init__(self, name: str, limit: int = 8) -> None:
        self.name = name
        self.limit = limit
        self._graphs: dict[Hashable, _Graph] = {}
        self._off = False

    def __call__(
        self, key: Hashable, function: Function, inputs: Sequence[Tensor]
    ) -> tuple[Tensor, ...]:
        """`function(*inputs)`, without a graph of autograd.

        Args:
            key: Everything but the inputs that the function depends on.
            function: A function of the inputs alone.
            inputs: Tensors that require no gradient.
        """
        shapes = tuple((x.shape, x.stride(), x.dtype, x.device) for x in inputs)
        graph = self._graphs.get((key, shapes))
        if graph is not None:
            return graph(inputs)
        if not self._off and len(self._graphs) >= self.limit:
            self._give_up(f"more than {self.limit} different shapes")
        if self._off:
            return _plain(function, inputs)
        try:
            graph = _Graph(function, inputs)
            found = graph(inputs)
        # Tracer, compiler and C++ compiler have no common error, and none of them is a reason to
        # stop: what is wrong with the function itself shows in the plain run.
        except Exception as error:
            expected = _plain(function, inputs)
            self._give_up(_reason(error))
            return expected
        distance = _distance(found, _plain(function, inputs))
        if not distance <= _tolerance(found):
            self._give_up(f"the compiled result is off by a fraction {distance:.1e}")
            return _plain(function, inputs)
        self._graphs[key, shapes] = graph
        return found

    def _give_up(self, reason: str) -> None:
        self._off = True
        log.warning("%s is not compiled from here on: %s", self.name, reason)


class _Graph:
    """A function, traced on some inputs and compiled for their shapes."""

    def __init__(self, function: Function, inputs: Sequence[Tensor]) -> None:
        # Here, because both take a second to import.
        from torch.fx.experimental.proxy_tensor import make_fx

        traced = make_fx(function)(*inputs)
        # Inputs that nothing depends on (record ids, masks of classes that are none) would only
        # cost a look at each of them in every call.
        places = [node for node in traced.graph.nodes if node.op == "placeholder"]
        self._used = [index for index, node in enumerate(places) if node.users]
        for node in places:
            if not node.users:
                traced.graph.erase_node(node)
        traced.recompile()
        self._run = torch.compile(traced, fullgraph=True, dynamic=False)

    def __call__(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        with torch.no_grad():
            return tuple(self._run(*[inputs[index] for index in self._used]))


def _plain(function: Function, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
    return tuple(x.detach() for x in function(*inputs))


def _distance(found: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """|found - expected| / |expected| over all tensors; 0 where both are not numbers."""
    if any(not bool(torch.isfinite(x).all()) for x in expected):
        return 0.0
    error = math.hypot(*(float((x - y).norm()) for x, y in zip(found, expected, strict=True)))
    return error / max(math.hypot(*(float(y.norm()) for y in expected)), 1e-30)


def _tolerance(found: Sequence[Tensor]) -> float:
    """Half of the digits: sums are taken in another order, nothing else differs."""
    return math.sqrt(torch.finfo(found[0].dtype).eps)


def _reason(error: Exception) -> str:
    if type(error).__name__ == "InvalidCxxCompiler" or "InvalidCxxCompiler" in str(error):
        return "no C++ compiler; install g++, or set CXX"
    if "value out of a tracing tensor" in str(error) or "DataDependent" in type(error).__name__:
        return "its operations depend on the values of its inputs, not on their shapes alone"
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
