"""Judging a cell: a learner on the test tasks, with what that costs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console

from experiments import outcome, stopping
from experiments.build import Workshop, batches
from experiments.progress import Progress
from meta_models.params import Params
from metalearn.distributed import ALONE, World
from metalearn.evaluation import evaluate
from metalearn.footprint import Footprint
from metalearn.learner import Learner
from tasks.episode import Episode

SILENT = Console(quiet=True, force_terminal=False)
"""For the progress of all processes but the first."""


def judge(
    part: Path,
    workshop: Workshop,
    learner: Learner,
    state: Params,
    place: dict[str, Any],
    train_seconds: float,
    world: World = ALONE,
) -> None:
    """Judge a learner on the test tasks of its workshop and write the part.

    Args:
        part: File of the scores.
        workshop: Says which tasks; every choice is made.
        learner: The learner.
        state: Its meta-parameters.
        place: Learner, fold, shots and seed, as the tables call them.
        train_seconds: What its training cost.
        world: The processes that share the tasks; the first one writes.

    Raises:
        Stopped: If a signal asked for it; there is no part then.
    """
    stopping.check(world)
    workshop.frozen = True
    settings, shots = workshop.experiment.evaluation, place["shots"]
    few = settings.gradient_tasks if learner.passes() > 1 else None
    tasks = min(few or settings.tasks, settings.tasks)
    episodes = batches(workshop, workshop.stream("test", shots, settings.seed), tasks)
    place = {"family": workshop.family.name} | place
    label = f"{part.name.split('-test')[0]} test {shots}-shot"
    console = None if world.first else SILENT
    with Progress(tasks, label, lines=1, console=console) as progress:

        def done(count: int) -> None:
            progress.update(count, {})
            if count < tasks:  # else the part is all but written
                stopping.check(world)

        judged = evaluate(
            learner,
            state,
            episodes,
            progress=done,
            world=workshop.judges(world),
        )
    costs = (
        {} if workshop.experiment.backbone.shard else adaptation_cost(learner, state, episodes[0])
    )
    if not world.first:
        return
    cost = costs | {
        "adapt_seconds_per_task": judged.seconds / judged.tasks,
        "passes": learner.passes(),
        "train_seconds": train_seconds,
    }
    outcome.write_part(part, judged, place, cost)


def adaptation_cost(learner: Learner, state: Params, episode: Episode) -> dict[str, float]:
    """Operations and memory of adapting to a single task, by the operations themselves.

    What is kept of texts (features, layers below the first adapter) is not computed again, so the
    task must have been met before: the costs are those that every further task has.

    Args:
        learner: The learner.
        state: Its meta-parameters.
        episode: Tasks that it was judged on; the first one is adapted to.

    Returns:
        `adapt_flops`, floating-point operations of matrix products, and `adapt_bytes`, most bytes
        that tensors made on the way held at once; see `metalearn.footprint`.
    """
    with Footprint() as found:
        learner.adapt(state, episode.select(0, 1).support)
    return {"adapt_flops": float(found.flops), "adapt_bytes": float(found.peak)}
