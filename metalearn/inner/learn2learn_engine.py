"""The inner loop run by learn2learn: MAML, MetaSGD, and GBML with a learnable transform.

Arnold et al. 2020, "learn2learn: A Library for Meta-Learning Research"; the library is
https://github.com/learnables/learn2learn.

    MAML      phi_{s+1} = phi_s - alpha grad L_support(phi_s)
    MetaSGD   phi_{s+1} = phi_s - alpha_s o grad L_support(phi_s)
    GBML      phi_{s+1} = phi_s - alpha U(grad L_support(phi_s))

MAML runs where all parts share a fixed rate, MetaSGD where rates differ or are learned, GBML where
there is a transform U: a module for each value, made by one of `learn2learn.optim.transforms`,
whose parameters are meta-parameters named `metric.<value>.<parameter>`.

Where it differs from the native loop:

1. Tasks go one after the other, the graph is unrolled, and the optimizer is gradient descent.
2. A transform is made for the values that tasks of any N share: the rows of a head that is made for
   each task go through the same module one by one, and its bias, a number a class, through none.
3. `learn2learn.optim.LearnableOptimizer` takes the same steps, but cuts the graph at each of them:
   its gradient reaches the last transform alone, so that it has no place in an inner loop.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.machinery import PathFinder
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from meta_models.errors import ModelError
from metalearn.inner.engines import Engine, SupportLoss, Task, refuse
from metalearn.inner.optimizers import SGD

if TYPE_CHECKING:
    from meta_models.params import Params
    from metalearn.inner.loop import InnerLoop
    from metalearn.inner.rules import Shapes

Transform = Callable[[Tensor], nn.Module]
"""From a parameter to the module that maps its gradient."""


@cache
def learn2learn() -> Any:
    """The package learn2learn, loaded without running its own `__init__`.

    That `__init__` imports gym and torchvision, which the algorithms do not need; a bare module
    that only knows where the package lies takes its place.  `sys.modules` is left as it was.

    Returns:
        A module with `algorithms`, `nn`, `optim` and `utils`.

    Raises:
        ModelError: If learn2learn is not installed.
    """
    spec = PathFinder.find_spec("learn2learn")
    if spec is None or spec.submodule_search_locations is None:
        raise ModelError(
            "learn2learn is not installed; `make install` builds it where there is a C compiler; "
            "without it, leave out gbml and set inner.engine to native or higher"
        )
    before = _loaded()
    bare: Any = ModuleType("learn2learn")
    bare.__path__ = list(spec.submodule_search_locations)
    for name in before:
        del sys.modules[name]
    sys.modules["learn2learn"] = bare
    try:
        for name in ("utils", "nn", "optim", "algorithms"):
            importlib.import_module(f"learn2learn.{name}")
    finally:
        for name in _loaded():
            del sys.modules[name]
        sys.modules.update(before)
    # Its own files ask the package for these.
    for name in ("clone_module", "detach_module", "update_module"):
        setattr(bare, name, getattr(bare.utils, name))
    return bare


def _loaded() -> dict[str, ModuleType]:
    return {n: m for n, m in sys.modules.items() if n.partition(".")[0] == "learn2learn"}


def named_transform(kind: Literal["kronecker", "curvature", "linear"]) -> Transform:
    """A transform of learn2learn that starts as the identity.

    | kind | U(G) of a gradient `[n, m]` | numbers |
    | :-- | :-- | :-- |
    | kronecker | `L^T L G R^T R`, a KroneckerTransform of KroneckerLinear | n^2 + m^2 |
    | curvature | `M_in G M_out`, a MetaCurvatureTransform; of a vector `m o g` | n^2 + m^2 |
    | linear | a matrix on the flat G, a ModuleTransform of a linear layer | n^2 m^2 |

    Args:
        kind: One of the table.

    Raises:
        ModelError: If learn2learn is not installed.
    """
    package = learn2learn()
    return {
        "kronecker": package.optim.KroneckerTransform(package.nn.KroneckerLinear),
        "curvature": package.optim.MetaCurvatureTransform,
        "linear": package.optim.ModuleTransform(_identity),
    }[kind]


def _identity(inputs: int, outputs: int) -> nn.Module:
    layer = nn.Linear(inputs, outputs, bias=False)
    nn.init.eye_(layer.weight)
    return layer


@dataclass(frozen=True)
class Learn2Learn(Engine):
    """learn2learn's MAML, MetaSGD or GBML.

    Attributes:
        transform: Makes the learnable transform of each value's gradient, as learn2learn's do from
            a parameter; None: plain or Meta-SGD steps.
    """

    transform: Transform | None = None

    def check(self, loop: InnerLoop) -> None:
        learn2learn()
        # With a transform there is no other engine to go to.
        own = self.transform is not None
        who = "learn2learn's GBML" if own else "inner.engine learn2learn"
        if loop.gradient == "adjoint":
            remedy = "inner.gradient to unrolled"
            refuse(who, "has no adjoint", remedy, "" if own else "native")
        if type(loop.optimizer) is not SGD:
            remedy = "inner.optimizer to sgd"
            refuse(who, "takes plain gradient steps", remedy, "" if own else "higher or native")
        if loop.preconditioner is not None:
            name = type(loop.preconditioner).__name__
            refuse(who, f"has no preconditioner {name}", "inner.engine to higher or native")
        if own and _shared_rate(loop) is None:
            refuse(who, "has one fixed rate for all that adapts", "inner.head_rate to inner.rate")

    def init(self, shapes: Shapes) -> Params:
        if self.transform is None:
            return {}
        return {
            f"metric.{value}.{name}": parameter.detach().clone()
            for value, shape in shapes.items()
            if shape
            for name, parameter in _made(self.transform, shape).named_parameters()
        }

    def descend(self, task: Task, loop: InnerLoop) -> list[Params]:
        learner = self._learner(task, loop)
        path = []
        for step in range(loop.steps):
            if hasattr(learner, "lrs"):
                learner.lrs = task.rates(loop, step)
            learner.adapt(learner(), first_order=not task.exact(loop, step))
            path.append(learner.module.values())
        return path

    def _learner(self, task: Task, loop: InnerLoop) -> Any:
        """One of learn2learn's learners, cloned at the task's start."""
        package, rate = learn2learn(), _shared_rate(loop)
        module = SupportLoss(task.loss, task.start)
        if self.transform is not None:
            transforms = {
                parameter: _Ready(self.transform, task, name)
                for name, parameter in module.values().items()
                if task.shapes[name]
            }
            each = package.optim.TransformDictionary(transforms)
            learner = package.algorithms.GBML(module, each, lr=rate)
        elif rate is not None:
            learner = package.algorithms.MAML(module, lr=rate)
        else:
            learner = package.algorithms.MetaSGD(module, lrs=[])  # rates are given at each step
        slots = [name for name, _ in module.named_parameters()]
        _put(module, dict(zip(slots, task.start.values(), strict=True)))
        return learner.clone()


@dataclass(frozen=True)
class _Ready:
    """The transform of one value with the task's meta-parameters in it."""

    transform: Transform
    task: Task
    name: str

    def __call__(self, parameter: Tensor) -> nn.Module:
        shape = self.task.shapes[self.name]
        module = learn2learn().utils.clone_module(_made(self.transform, shape))
        names = [name for name, _ in module.named_parameters()]
        _put(module, {n: self.task.rules[f"metric.{self.name}.{n}"][0] for n in names})
        return _Rows(module, shape)


class _Rows(nn.Module):
    """A transform of one value; a gradient with a class axis goes through it row by row."""

    def __init__(self, transform: nn.Module, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.transform = transform
        self.shape = shape

    def forward(self, gradient: Tensor) -> Tensor:
        # learn2learn's transforms view their input, which must be contiguous.
        rows = gradient.reshape(-1, *self.shape).contiguous()
        return torch.stack([self.transform(row) for row in rows]).view_as(gradient)


@lru_cache(maxsize=64)
def _made(transform: Transform, shape: tuple[int, ...]) -> nn.Module:
    """The fresh transform of a value of some shape, the same at every call."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        try:
            return transform(torch.zeros(shape))
        except NotImplementedError as error:
            raise ModelError(
                f"learn2learn's transform does not take values of shape {list(shape)}; "
                "choose another inner.transform or adapter.method"
            ) from error


def _put(module: nn.Module, values: Params) -> None:
    """Make tensors with a graph the parameters of a module, as learn2learn does in its clones."""
    for name, value in values.items():
        owner, _, key = name.rpartition(".")
        module.get_submodule(owner)._parameters[key] = value  # pyright: ignore[reportArgumentType]


def _shared_rate(loop: InnerLoop) -> float | None:
    """The fixed rate of everything that adapts, where there is one."""
    rates = set(loop.rates.values())
    return rates.pop() if loop.learned is None and len(rates) == 1 else None
