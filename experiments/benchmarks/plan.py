"""What is measured: the reference work, its variations, and the rows of each figure.

The reference work is a second-order MAML meta-step: MiniLM with LoRA of rank 8 on query and value
of all six layers, 5-way 5-shot with 5 queries a class, 20 real tokens a text, 5 inner steps of
gradient descent on adapter and head at a fixed rate, 4 tasks, the gradient of the mean query loss
in all meta-parameters.  Nothing here imports torch: the process that starts the others stays small.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Self

PEERS = ("torch.func", "higher", "learn2learn", "TorchOpt")
"""What metalearn is compared with; each is in `peers.py`."""
PARTS = "metalearn, adjoint, 2 parts", {"inner.gradient": "adjoint", "inner.chunks": 2}
"""The adjoint with the support set in two parts, one after the other."""
CLASSES = "metalearn, adjoint, 5 parts", {"inner.gradient": "adjoint", "inner.chunks": 5}
"""In five parts: as many as there are classes."""
LENGTHS = (2, 5, 10, 20, 35, 50)
TASKS = (1, 2, 4, 8, 16)
ACCELERATOR_TASKS = (1, 4, 16, 64)
LLAMA_8B = {
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 14336,
    "vocab_size": 128256,
}
LLAMA_1B = {
    "hidden_size": 2048,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 8192,
    "vocab_size": 128256,
}
LLAMA_TINY = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "intermediate_size": 32,
    "vocab_size": 512,
}


@dataclass(frozen=True)
class Work:
    """One piece of work, the same for every method.

    Attributes:
        backbone: Name for `load_backbone`; empty: a random Llama of `sizes`.
        sizes: Configuration of that Llama.
        layers: Layers that carry LoRA; None: all.
        rank: r of LoRA.
        head_only: Only the head adapts (ANIL); the adapter is meta-learned all the same.
        frozen: Only the head adapts, and there is no adapter: features never change.
        order: Order of the meta-gradient.
        steps: S.
        tasks: T.
        ways: N.
        shots: K.
        queries: Q, a class.
        tokens: L, real tokens of every synthetic text.
        rate: Inner rate.
        dtype: Precision of the frozen backbone; adapter and head are float32.
        data: "synthetic" (random tokens, no padding), or a family of the catalog as it comes.
        episodes: Different meta-batches, one after the other.
        measure: "meta": a meta-step; "forward": the features of support and query alone.
        device: Where it runs.
    """

    backbone: str = "minilm"
    sizes: dict[str, int] = field(default_factory=dict)
    layers: tuple[int, ...] | None = None
    rank: int = 8
    head_only: bool = False
    frozen: bool = False
    order: int = 2
    steps: int = 5
    tasks: int = 4
    ways: int = 5
    shots: int = 5
    queries: int = 5
    tokens: int = 20
    rate: float = 0.05
    dtype: str = "float32"
    data: str = "synthetic"
    episodes: int = 1
    measure: str = "meta"
    device: str = "cpu"


@dataclass(frozen=True)
class Case:
    """One row: a method at a piece of work.

    Attributes:
        group: Rows that stand together in a table.
        name: The row.
        method: "metalearn", one of `PEERS`, or "copies".
        work: What it does.
        settings: Dotted settings of metalearn beyond those that the work asks for.
        reference: Ratios are taken to the best of the rows that say so.
        against: Group whose first row has the gradient to compare with; empty: its own.
        axis: Field of the work that grows along the group, where it is a curve.
        count: Count floating-point operations too.

    Example:
        >>> case = speed("cpu", smoke=True)[0]
        >>> Case.read(case.written()) == case
        True
    """

    group: str
    name: str
    method: str
    work: Work
    settings: dict[str, Any] = field(default_factory=dict)
    reference: bool = False
    against: str = ""
    axis: str = ""
    count: bool = False

    def written(self) -> dict[str, Any]:
        """As JSON has it."""
        written = asdict(self)
        layers = written["work"]["layers"]
        written["work"]["layers"] = None if layers is None else list(layers)
        return written

    @classmethod
    def read(cls, written: dict[str, Any]) -> Self:
        """The inverse of `written`."""
        work = dict(written["work"])
        work["layers"] = None if work["layers"] is None else tuple(work["layers"])
        rest = {name: value for name, value in written.items() if name != "work"}
        return cls(work=Work(**work), **rest)

    @property
    def size(self) -> int:
        """Where it lies on its curve."""
        return getattr(self.work, self.axis)


def _work(device: str, smoke: bool, **changes: Any) -> Work:
    """The reference work with changes; a smoke test does a small piece of it on a tiny model."""
    work = Work(device=device, **changes)
    if not smoke:
        return work
    tiny: dict[str, Any] = {
        "ways": 2,
        "shots": 1,
        "queries": 1,
        "tokens": 6,
        "steps": 2,
        "tasks": 2,
    }
    tiny["layers"] = None if work.layers is None else (1,)
    tiny |= {name: min(value, 2) for name, value in changes.items() if name in ("steps", "tasks")}
    if work.sizes:
        return replace(work, **tiny, sizes=LLAMA_TINY)
    data = "synthetic" if work.data == "synthetic" else "builtin"
    return replace(work, **tiny, backbone="tiny-bert", data=data, episodes=min(work.episodes, 2))


def _beside(
    group: str, work: Work, gradients: Sequence[str] = ("unrolled",), **rest: Any
) -> list[Case]:
    """Metalearn and every peer at the same work."""
    ours = [
        Case(group, f"metalearn, {name}", "metalearn", work, {"inner.gradient": name}, **rest)
        for name in gradients
    ]
    return ours + [Case(group, peer, peer, work, reference=True, **rest) for peer in PEERS]


def speed(device: str, smoke: bool) -> list[Case]:
    """The reference work in float32 and on a bfloat16 backbone."""
    work = _work(device, smoke)
    both = ("unrolled", "adjoint")
    half = replace(work, dtype="bfloat16")
    parts = Case("float32", PARTS[0], "metalearn", work, PARTS[1])
    whole, *rest = _beside("float32", work, both)
    return [whole, parts, *rest, *_beside("bfloat16", half, both, against="float32")]


def layers(device: str, smoke: bool) -> list[Case]:
    """Adapters on the top two layers alone."""
    work = _work(device, smoke, layers=(4, 5))
    second, first, half = "second order", "first order", "second order, bfloat16"
    at_half = replace(work, dtype="bfloat16")
    passes = {"inner.tasks_per_pass": work.tasks}
    whole, *rest = _beside(half, at_half, against=second)
    return [
        *_beside(second, work, ("unrolled", "adjoint")),
        *_beside(first, replace(work, order=1)),
        *_beside("head only", replace(work, head_only=True)),
        *_beside("head alone, no adapter", replace(work, head_only=True, frozen=True, layers=None)),
        whole,
        replace(whole, name="metalearn, tasks in one pass", settings=whole.settings | passes),
        *rest,
    ]


def packing(device: str, smoke: bool) -> list[Case]:
    """Real texts as they come: packed into rows, or padded."""
    return [
        Case(
            f"{data}, {title}",
            layout,
            "metalearn",
            _work(device, smoke, data=data, tasks=2, steps=2, episodes=4, measure=measure),
            {"backbone.layout": layout},
            reference=layout == "padded",
        )
        for data in ("banking77", "clinc150")
        for measure, title in (("meta", "meta-step"), ("forward", "forward"))
        for layout in ("packed", "grouped", "padded")
    ]


def length(device: str, smoke: bool) -> list[Case]:
    """Time and memory over the number of steps (a single task) and over that of tasks."""
    rows = []
    for axis, sizes in (("steps", LENGTHS), ("tasks", TASKS)):
        for size in (1, 2) if smoke else sizes:
            at = {"steps": size, "tasks": 1} if axis == "steps" else {"tasks": size}
            work = _work(device, smoke, **at)
            group = f"{axis} {size}"
            rows += [
                Case(group, name, "metalearn", work, settings, axis=axis)
                for name, settings in (PARTS, CLASSES)
            ]
            rows += _beside(group, work, axis=axis)
    return rows


def adjoint(device: str, smoke: bool) -> list[Case]:
    """The two ways to the Hessian-vector products of the adjoint, on a single task."""
    work = _work(device, smoke, tasks=1)
    return [
        Case(
            "adjoint",
            name,
            "metalearn",
            work,
            {"inner.gradient": "adjoint", "inner.adjoint": way},
            reference=way == "reverse",
        )
        for way, name in (("reverse", "reverse over reverse"), ("forward", "forward over reverse"))
    ]


def copies(device: str, smoke: bool) -> list[Case]:
    """Bytes that a learner's clone adds to a model of eight billion parameters; nothing is run."""
    work = Work(backbone="", sizes=LLAMA_TINY if smoke else LLAMA_8B)
    names = ("metalearn", *PEERS)
    return [
        Case("copies", name, "copies", work, {"of": name}, reference=name != "metalearn")
        for name in names
    ]


def accelerator(device: str, smoke: bool) -> list[Case]:
    """What only an accelerator can show: many tasks at once, and a model of a billion."""
    rows = []
    for dtype in ("float32", "bfloat16"):
        for tasks in (1, 2) if smoke else ACCELERATOR_TASKS:
            work = _work(device, smoke, tasks=tasks, dtype=dtype)
            against = f"float32, tasks {tasks}"
            rows += _at_once(f"{dtype}, tasks {tasks}", work, against, "tasks")
    large = {"backbone": "", "sizes": LLAMA_1B, "dtype": "bfloat16", "tasks": 4}
    return rows + _at_once("a billion parameters, bfloat16", _work(device, smoke, **large), "", "")


def _at_once(group: str, work: Work, against: str, axis: str) -> list[Case]:
    """Metalearn with all tasks in one pass, beside the peers."""
    rows = _beside(group, work, ("unrolled", "adjoint"), against=against, axis=axis, count=True)
    at_once = {"inner.tasks_per_pass": work.tasks}
    return [
        replace(row, settings=row.settings | at_once) if row.method == "metalearn" else row
        for row in rows
    ]


FIGURES = {
    "speed": speed,
    "layers": layers,
    "packing": packing,
    "length": length,
    "adjoint": adjoint,
    "copies": copies,
    "accelerator": accelerator,
}
"""Rows by the name of their figure: functions of the device, and of whether it is a smoke test."""
