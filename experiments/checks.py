"""Checks before a run: mistakes that would else show hours later, when the test tasks are drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from pydantic import ValidationError

from experiments.build import Workshop
from experiments.cells import first_cells, trials, variant
from experiments.config import Experiment
from experiments.errors import UserError, nearest
from experiments.families import judged_on
from experiments.folder import flatten
from experiments.learners import LEARNERS
from experiments.sampling import build_curriculum
from experiments.tensorboard import need_tensorboard
from metalearn.distributed import World, refuse_coupled
from tasks.episode import EpisodeShape, SplitName


def check(experiment: Experiment, kept: dict[str, Any]) -> None:
    """Make what the cells of an experiment need, and draw a task of every split they use.

    A drawn task is thrown away: it says that classes and examples suffice, nothing else.

    Args:
        experiment: The settings.
        kept: Takes up what is made, for the run.

    Raises:
        UserError: If a name is unknown or a grid does not fit.
        TaskError: If the data are missing, damaged or too few.
        ModelError: If the backbone or adapter cannot be made.
    """
    _check_names(experiment)
    if experiment.tracking.tensorboard:
        need_tensorboard()
    for first in first_cells(experiment):
        tried = trials(experiment, first.learner)
        for trial in range(len(tried)):
            workshop = Workshop(_variant(experiment, first._replace(trial=trial)), kept)
            learner = workshop.learner(first.learner)
            if first.learner == "multitask" and workshop.experiment.sampling.mix:
                raise UserError(
                    "sampling.mix: multitask has no rows for classes that are made of two; leave "
                    'it out, or give it the grid {"multitask": {"sampling.mix": [0]}}'
                )
            own: list[SplitName] = [] if experiment.evaluation.families else ["test"]
            if learner.trains or len(tried) > 1:
                own.append("valid")
            check_tasks(workshop, own, first.shots if learner.trains else None)
            if experiment.evaluation.families:
                for settings in judged_on(workshop.experiment):
                    check_tasks(Workshop(settings, kept), ["test"], None)


def _check_names(experiment: Experiment) -> None:
    if experiment.compile == "on" and experiment.backbone.name != "mlp":
        raise UserError(
            f"compile on: what {experiment.backbone.name} computes depends on the lengths of the "
            "texts, which no compiled graph may; leave compile at auto, or use --backbone.name mlp"
        )
    for name in experiment.learners:
        if name not in LEARNERS:
            raise UserError(f"no learner {name}{nearest(name, LEARNERS) or '; see metalearn list'}")
    if not experiment.learners or not experiment.seeds or not experiment.episodes.shots:
        raise UserError("learners, seeds and episodes.shots need at least one value each")
    known = f"; learners of the experiment: {', '.join(experiment.learners)}"
    for name in experiment.grids:
        # A grid of a learner that is left out does no harm; a name that is none is a mistake.
        if name not in LEARNERS:
            raise UserError(f"grids: no learner {name}{nearest(name, LEARNERS) or known}")
    reference = experiment.evaluation.reference
    if reference and reference not in experiment.learners:
        raise UserError(f"evaluation.reference: no learner {reference}{known}")
    for name, grid in experiment.grids.items():
        for setting, values in grid.items():
            if not values:
                raise UserError(f"grids: no values for {setting} of {name}; give at least one")


def _variant(experiment: Experiment, cell: Any) -> Experiment:
    try:
        return variant(experiment, cell)
    except KeyError as error:
        name = str(error.args[0])
        raise UserError(
            f"grids: no setting {name}{nearest(name, flatten(experiment.model_dump()))}"
        ) from None
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"]))
        raise UserError(f"grids: {name}: {first['msg']}; got {first['input']!r}") from None


def check_processes(experiment: Experiment, kept: dict[str, Any], world: World) -> None:
    """Check that the processes of a run can share its tasks, and its layers where they should.

    Args:
        experiment: The settings.
        kept: Takes up what is made, for the run.
        world: The processes.

    Raises:
        UserError: If there is one process for layers to be divided, or they cannot have equally
            many tasks: layers are gathered by all together.
        ModelError: If the tasks of a learner cannot be shared.
    """
    for first in first_cells(experiment):
        for trial in range(len(trials(experiment, first.learner))):
            settings = _variant(experiment, first._replace(trial=trial))
            if settings.backbone.shard and world.size == 1:
                raise UserError(
                    "backbone.shard divides the layers among processes, and there is one; start "
                    "several with torchrun, or use --backbone.no-shard"
                )
            if settings.backbone.shard and settings.outer.tasks % world.size:
                raise UserError(
                    f"outer.tasks {settings.outer.tasks} cannot be divided equally among "
                    f"{world.size} processes, which backbone.shard needs; choose a multiple"
                )
            if world.size > 1:
                learner = Workshop(settings, kept).learner(first.learner)
                refuse_coupled(learner, first.learner, world)


def check_tasks(workshop: Workshop, splits: Sequence[SplitName], trained: int | None) -> None:
    """Draw a task of each shape.

    Args:
        workshop: Objects of the cell.
        splits: Where tasks of the evaluated shapes are drawn.
        trained: Shots of meta-training, 0: those of its range; None: nothing is trained.
    """
    family, wanted = workshop.family, workshop.experiment.episodes
    backbone = workshop.experiment.backbone.name
    if (family.kind == "value") != (backbone == "mlp"):
        holds, remedy = ("numbers", "mlp") if family.kind == "value" else ("text", "minilm")
        raise UserError(
            f"backbone {backbone} does not fit family {family.name}, which holds {holds}; "
            f"use --backbone.name {remedy}"
        )
    for shots in wanted.shots:
        for split in splits:
            family.draw(split, workshop.shape(split, shots), _any())
    if trained is not None:
        stream = workshop.training_stream(trained, 0)
        # The largest numbers that can be drawn.
        sizes = stream.shape.ways, stream.shape.shots
        ways, most = (size if isinstance(size, int) else size[1] for size in sizes)
        family.draw("train", EpisodeShape(ways, most, stream.shape.queries), _any())
        build_curriculum(workshop.experiment, stream)
        workshop.training_episodes(trained, 0)


def _any() -> np.random.Generator:
    return np.random.default_rng(0)
