"""What the tests of several processes let one process do, and two, each of which runs this file."""

from __future__ import annotations

import sys
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor

from meta_models.adapters import Adapter
from meta_models.backbone import load_backbone
from meta_models.features import FeatureStore
from meta_models.heads import Head
from meta_models.model import AdaptedModel
from meta_models.sharding import shard
from metalearn.algorithms.maml import MAML
from metalearn.algorithms.protonet import ProtoNet
from metalearn.algorithms.reptile import Reptile
from metalearn.distributed import ALONE, World
from metalearn.evaluation import evaluate, validation_score
from metalearn.inner.loop import InnerLoop
from metalearn.learner import Learner
from metalearn.training import MetaTraining, OuterLoop
from tasks.collate import Collator
from tasks.curriculum import Curriculum, Difficulty
from tasks.episode import Episode, EpisodeShape, TaskStream
from tasks.sources.builtin import builtin

LOOP = InnerLoop(2, {"adapter": 0.05, "head": 0.05})
SHAPE = EpisodeShape(ways=3, shots=(1, 2), queries=2)


class Place:
    """A tiny language model in double precision, and its tasks."""

    def __init__(self, sharded: bool = False, layers: tuple[int, ...] | None = None) -> None:
        backbone = load_backbone("tiny-bert", dtype=torch.float64)
        adapter = Adapter(backbone, "lora", {"r": 2}, layers)
        if sharded:
            shard(adapter)
        head = Head("slots", backbone.width, 10.0)
        self.model = AdaptedModel(adapter, head, keep_trunk=False)
        self.streams = {s: TaskStream(builtin(), s, SHAPE, seed=0) for s in ("train", "valid")}
        self.collator = Collator(backbone.tokenizer)

    def episode(self, split: Literal["train", "valid"], first: int, tasks: int) -> Episode:
        return self.tasks(split, range(first, first + tasks))

    def tasks(self, split: Literal["train", "valid"], indices: Any) -> Episode:
        return self.collator.collate(self.streams[split].tasks(indices), indices)


def train(
    learner: Learner,
    place: Place,
    world: World,
    *,
    tasks: int,
    steps: int = 20,
    chosen: bool = False,
    judges: World | None = None,
) -> dict[str, Any]:
    """Meta-train, and say everything that came of it."""
    curriculum = None
    if chosen:
        curriculum = Curriculum(
            place.streams["train"], Difficulty(), tasks=tasks, pool=2, steps=steps
        )

    def episode(step: int) -> Episode:
        if curriculum is not None:
            return place.tasks("train", curriculum.indices(step))
        return place.episode("train", step * tasks, tasks)

    held_out = [place.episode("valid", 0, 5), place.episode("valid", 5, 2)]
    judges = world if judges is None else judges
    training = MetaTraining(
        learner,
        episode,
        validation_score(learner, held_out, judges),
        OuterLoop(steps=steps, tasks=tasks, rate=0.02, warmup=2, validate_every=10),
        torch.Generator().manual_seed(0),
        curriculum,
        world,
    )
    figures = []
    while not training.done:
        figures.append(training.take_step())
        del figures[-1]["seconds"]
    judged = evaluate(learner, training.state, held_out, world=judges)
    return {
        "tensors": training.snapshot()[0],
        "numbers": training.snapshot()[1],
        "figures": figures,
        "predictions": judged.predictions,
        "scores": judged.scores,
    }


def share(world: World) -> dict[str, Any]:
    """The same trainings, whatever the number of processes."""
    place = Place()
    several = world.size > 1
    work = {
        # Three tasks: one process has two of them, the other one.
        "maml": train(MAML(place.model, LOOP, tasks_per_pass=2), place, world, tasks=3),
        "chosen": train(
            MAML(place.model, LOOP, order=1), place, world, tasks=3, steps=6, chosen=True
        ),
        "protonet": train(ProtoNet(FeatureStore(place.model)), place, world, tasks=4),
        # One task: the second process has none.
        "reptile": train(Reptile(place.model, LOOP), place, world, tasks=1, steps=4),
    }
    divided = Place(sharded=several)
    first = MAML(divided.model, LOOP, order=1, tasks_per_pass=2)
    work["sharded"] = train(first, divided, world, tasks=4, steps=6, judges=ALONE)
    if several:
        work["held"] = _held(divided)
        work["second order"] = _fails(divided)
        methods = ("dora", "ia3", "vera", "bias", "ln_tuning", "prompt_tuning")
        work["methods"] = {method: _moved_by_sharding(method) for method in methods}
    return work


def _held(place: Place) -> tuple[int, int]:
    """Numbers of the layers that this process holds, and that there are."""
    layers = [p for n, p in place.model.adapter.model.named_parameters() if ".layer." in n]
    frozen: list[Any] = [p for p in layers if type(p).__name__ == "DTensor"]
    return sum(p.to_local().numel() for p in frozen), sum(p.numel() for p in frozen)


def _moved_by_sharding(method: str) -> float:
    """How far hidden states and gradients of an adapter are from those of whole layers."""
    found = []
    for sharded in (False, True):
        adapter = Adapter(load_backbone("tiny-bert", dtype=torch.float64), method)
        if sharded:
            shard(adapter)
        values = adapter.init(torch.Generator().manual_seed(0))
        values = {n: (v + 0.1 * torch.ones_like(v)).requires_grad_() for n, v in values.items()}
        ids = torch.arange(12).view(3, 4) + 5
        states = adapter.hidden(values, ids, torch.ones_like(ids, dtype=torch.bool), None)
        weight = torch.arange(states.numel(), dtype=states.dtype).view_as(states).sin()
        slope = torch.autograd.grad((states * weight).sum(), list(values.values()))
        assert max(float(g.abs().max()) for g in slope) > 1e-3
        found.append(torch.cat([x.detach().flatten() for x in (states, *slope)]))
    return float((found[0] - found[1]).abs().max())


def _fails(place: Place) -> str:
    """What second order ends with on sharded layers."""
    learner = MAML(place.model, LOOP, order=2, tasks_per_pass=1)
    state = learner.init(torch.Generator().manual_seed(0))
    try:
        learner.meta_gradient(state, place.episode("train", 0, 2))
    except RuntimeError as error:
        return str(error)
    return ""


def distance(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> float:
    """Largest difference of any entry."""
    assert ours.keys() == theirs.keys()
    return max(float((ours[n] - theirs[n]).abs().max()) for n in ours)


def main(meeting: str, rank: str, output: str) -> None:
    """One of two ranks."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=int(rank), world_size=2)
    torch.save(share(World(int(rank), 2)), output)
    dist.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
