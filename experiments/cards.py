"""What a meta-step would need, as `metalearn estimate` tells it, and what would fit a card."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import torch

from experiments.build import Workshop
from experiments.catalog import LEARNERS
from experiments.cells import Cell, folds, variant
from experiments.config import Experiment
from experiments.errors import UserError, nearest
from experiments.estimate import Estimate, estimate, process_baseline, tasks_of_a_step
from experiments.passes import tasks_per_pass
from metalearn.allocators import FRAGMENTED, JOINED, Heap, of_this_process
from tasks.episode import Episode

GB = 2**30  # a card of "24 GB" has that many times it
_UNITS = {"": 1, "b": 1, "kb": 2**10, "mb": 2**20, "gb": GB, "tb": 2**40}
_UNITS |= {unit.replace("b", "ib"): size for unit, size in _UNITS.items() if len(unit) == 2}


def card_bytes(text: str) -> int:
    """Bytes of a card's memory; a number below a million without a unit counts gigabytes.

    Raises:
        UserError: If it is not understood.

    Example:
        >>> card_bytes("24GB") == card_bytes("24 GiB") == card_bytes("24") == 24 * 2**30
        True
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]*)\s*", text)
    unit = found[2].lower() if found else ""
    if found is None or unit not in _UNITS or not float(found[1]):
        raise UserError(f"card {text!r} is no size of a memory; write --card 24GB, or bytes")
    number = float(found[1])
    return int(number * (GB if not unit and number < 1e6 else _UNITS[unit]))


def tell(
    experiment: Experiment,
    learner: str = "",
    *,
    card: str | None = None,
    tokens: int | None = None,
    rate: float | None = None,
) -> Iterator[str]:
    """The lines that `metalearn estimate` prints.

    Args:
        experiment: The settings.
        learner: Catalog name; empty: the last of the experiment's that trains.
        card: Memory of an accelerator.
        tokens: Tokens of every text; None: texts of the experiment's family.
        rate: Floating-point operations a second of the device, in 10^12.

    Raises:
        UserError: If something does not exist or is not understood.
    """
    memory = None if card is None else card_bytes(card)
    if tokens is not None and tokens < 1:
        raise UserError(f"--tokens {tokens}: a text has at least one; give 1 or more")
    if rate is not None and rate <= 0:
        raise UserError(f"--rate {rate} is no speed; give operations a second in 10^12")
    if learner and learner not in LEARNERS:
        raise UserError(
            f"no learner {learner}{nearest(learner, LEARNERS) or '; see metalearn list'}"
        )
    kept: dict[str, Any] = {}
    learner = learner or _last_trained(experiment, kept)
    first = Cell(learner, folds(experiment)[0], 0, experiment.seeds[0], 0)
    experiment = variant(experiment, first)
    shop = Workshop(experiment, kept, weights=False)
    accelerator = memory is not None or shop.device.type != "cpu"
    episode = tasks_of_a_step(shop, tokens)
    baseline = 0 if accelerator else process_baseline(shop, learner)
    made = shop.learner(learner)
    if not made.trains:
        raise UserError(f"learner {learner} trains nothing; name one that does with --learner")
    size = tasks_per_pass(experiment, learner, made, episode, torch.device("cpu"))
    asked = experiment.override({"inner.tasks_per_pass": size})

    def of(settings: Experiment) -> Estimate:
        return estimate(
            settings, learner, episode, accelerator=accelerator, baseline=baseline, kept=kept
        )

    found = of(asked)
    name, backbone = experiment.name, experiment.backbone.name
    yield f"{learner} of {name} on {backbone}: a meta-step of {_shape(episode)}"
    yield from _parts(found, accelerator)
    if not accelerator and isinstance(of_this_process(), Heap):
        yield f"  (activations with the holes of glibc's heap, {FRAGMENTED} times their bytes;"
        yield f"  GLIBC_TUNABLES={JOINED} avoids them)"
    if rate is not None:
        yield f"  {'seconds at ' + f'{rate:g}' + ' TFLOP/s':<42}{found.flops / rate / 1e12:>12.2f}"
    if not accelerator and _keeps_states(asked, kept):
        limit = asked.backbone.trunk_memory
        yield f"  (kept states grow with the texts that a run meets, to at most {limit:g} GiB)"
    if memory is not None:
        yield f"\non a card of {memory / GB:g} GB, the CUDA context (about 0.5 GB) not counted:"
        yield f"  {'':<42}{'peak GB':>10}{'TFLOP':>10}"
        for name, settings in _ladder(asked, shop, learner):
            try:
                here = of(settings)
            except ValueError as error:
                yield f"  {name:<42}  not possible: {str(error).split(';')[0]}"
                continue
            fits = "fits" if here.peak <= memory else "too large"
            yield f"  {name:<42}{here.peak / GB:>10.2f}{here.flops / 1e12:>10.2f}  {fits}"


def _keeps_states(experiment: Experiment, kept: dict[str, Any]) -> bool:
    """Whether there are layers below the first adapter whose states are kept."""
    if experiment.backbone.name == "mlp":
        return False
    return Workshop(experiment, kept, weights=False).language_model.trunk is not None


def _last_trained(experiment: Experiment, kept: dict[str, Any]) -> str:
    shop = Workshop(experiment, kept, weights=False)
    for name in reversed(experiment.learners):
        if shop.learner(name).trains:
            return name
    raise UserError(f"{experiment.name} trains no learner; name one with --learner")


def _shape(episode: Episode) -> str:
    support, query = episode.support, episode.query
    size = f"{episode.tasks} tasks, {support.ids.shape[1]} + {query.ids.shape[1]} examples"
    if support.tokens is None or query.tokens is None:
        return size
    tokens = int(support.tokens.mask.sum() + query.tokens.mask.sum()) // episode.tasks
    return f"{size}, {tokens} tokens a task"


def _parts(found: Estimate, accelerator: bool) -> Iterator[str]:
    rows = {
        "Python and its libraries": found.baseline,
        "frozen weights": found.frozen,
        "meta-parameters, gradients, optimizer": found.training,
        "kept states of lower layers": found.kept,
        f"activations, {found.tasks_per_pass} of {found.tasks} tasks a pass": found.activations,
        "peak" + (" (allocated; no context)" if accelerator else ""): found.peak,
    }
    for name, size in rows.items():
        yield f"  {name:<42}{size / 1e6:>12,.1f} MB"
    yield f"  {'operations':<42}{found.flops / 1e12:>12,.3f} TFLOP"
    if found.forward:
        times = found.flops / found.forward
        yield f"  {'  that is, forwards of the support sets':<42}{times:>12,.1f}"


def _ladder(asked: Experiment, shop: Workshop, learner: str) -> Iterator[tuple[str, Experiment]]:
    """Settings that need less and less memory, the change that costs least time first.

    Up to checkpointing they keep what is learned (bfloat16: nearly); the last two change it.
    """
    settings: dict[str, Any] = {}
    yield "as asked", asked
    size = int(asked.inner.tasks_per_pass)
    while size > 1:
        size //= 2
        settings["inner.tasks_per_pass"] = size
        yield f"tasks_per_pass {size}", asked.override(settings)
    text = asked.backbone.name != "mlp"
    if text and asked.backbone.dtype == "float32" and asked.backbone.quantize == "none":
        settings["backbone.dtype"] = "bfloat16"
        yield "  and backbone.dtype bfloat16", asked.override(settings)
    second = asked.inner.order == 2 and learner not in ("fomaml", "reptile", "protonet")
    if second and asked.inner.gradient == "unrolled":
        settings["inner.gradient"] = "adjoint"
        yield "  and inner.gradient adjoint", asked.override(settings)
    if text and not asked.backbone.checkpoint:
        settings["backbone.checkpoint"] = True
        yield "  and backbone.checkpoint", asked.override(settings)
    if text:
        layers = shop.language_model.adapter.backbone.layers
        top = max(1, layers // 4)
        if asked.adapter.layers is None and top < layers:
            settings["adapter.layers"] = tuple(range(layers - top, layers))
            yield f"  and adapters in the top {top} layers", asked.override(settings)
    if second:
        settings["inner.order"] = 1
        yield "  and inner.order 1", asked.override(settings)
