"""What the reproductions on sinusoids share: settings, meta-training side by side, judging.

The learners are those of the catalog, trained by the one meta-training loop and judged by the
episode protocol; an error is the mean squared error on the query points of a task.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import lru_cache, partial
from typing import TYPE_CHECKING

from experiments.config import (
    BackboneSettings,
    EpisodeSettings,
    EvaluationSettings,
    Experiment,
    FamilySettings,
)
from experiments.learning import InnerSettings, OuterSettings
from experiments.papers.reproduction import Estimate
from experiments.workers import pool

if TYPE_CHECKING:
    import numpy as np

    from meta_models.params import Params

SINUSOIDS = Experiment(
    threads=1,  # the tensors are small: a second thread costs more than it does
    family=FamilySettings(source="sinusoid", name="sinusoid"),
    episodes=EpisodeSettings(shots=(10,), queries=10),
    backbone=BackboneSettings(name="mlp", weights="small"),
    inner=InnerSettings(steps=1, rate=0.01, tasks_per_pass=25),
    outer=OuterSettings(
        tasks=25, rate=1e-3, schedule="constant", warmup=0, weight_decay=0.0, clip=0.0, patience=0
    ),
    evaluation=EvaluationSettings(tasks_per_batch=100),
)
"""Plain Adam at a constant rate, no clipping, one inner step, and fresh weights as in the code of
Finn et al.: a paper's file says the rest."""


def smaller(experiment: Experiment) -> Experiment:
    """The experiment on a hundredth of its budget.

    Example:
        >>> smaller(SINUSOIDS.override({"outer.steps": 70_000})).outer.steps
        700
    """
    budget = (
        ("outer.steps", experiment.outer.steps),
        ("evaluation.tasks", experiment.evaluation.tasks),
    )
    return experiment.override({name: max(2, size // 100) for name, size in budget})


def meta_train(experiments: Mapping[str, Experiment], seed: int, shots: int) -> dict[str, Params]:
    """Meta-train the learner of each experiment on the same tasks, a core each where there are.

    What is learned does not depend on the number of cores.

    Args:
        experiments: Settings by a name of the caller's; the first of `learners` is trained.
            Family, shape of the tasks and outer loop are the same in all of them.
        seed: Seed of the tasks and of the initial values.
        shots: K in training.

    Returns:
        The meta-parameters after the last step, by the same names.
    """
    workers = min(len(experiments), os.cpu_count() or 1)
    together = partial(_side_by_side, seed=seed, shots=shots)
    if workers == 1:
        return together(dict(experiments))
    items = list(experiments.items())
    groups = [dict(items[first::workers]) for first in range(workers)]
    with pool(workers) as shared:
        states = [state for group in shared.map(together, groups) for state in group.items()]
    return dict(states)


def _side_by_side(experiments: dict[str, Experiment], seed: int, shots: int) -> dict[str, Params]:
    """Meta-train in this process, a step of each after the other."""
    import torch
    from rich.console import Console

    from experiments.build import Workshop, seeded
    from experiments.progress import Progress
    from metalearn.training import MetaTraining

    shops = {name: Workshop(experiment) for name, experiment in experiments.items()}
    first = next(iter(shops.values()))
    torch.set_num_threads(first.experiment.threads)
    # Each meta-step's tasks are drawn once for all the learners.
    episodes = lru_cache(maxsize=1)(first.training_episodes(shots, seed))
    trainings = {
        name: MetaTraining(
            shop.learner(shop.experiment.learners[0]),
            episodes,
            None,
            shop.outer_loop(),
            seeded(seed),
        )
        for name, shop in shops.items()
    }
    steps = first.experiment.outer.steps
    # Plain lines: two processes cannot share a bar.
    console = Console(stderr=True, force_terminal=False)
    with Progress(steps, first.experiment.name, console=console) as progress:
        for step in range(1, steps + 1):
            losses = {name: training.take_step()["loss"] for name, training in trainings.items()}
            progress.update(step, losses)
    return {name: training.state for name, training in trainings.items()}


def query_errors(
    experiment: Experiment, state: Params, *, shots: int, queries: int, steps: int
) -> np.ndarray:
    """`[E, S + 1]` mean squared error of every test task after 0, ..., S inner steps.

    Args:
        experiment: Settings; the first of `learners` is judged, on `evaluation.tasks` tasks.
        state: Its meta-parameters.
        shots: K.
        queries: Points that a task is judged on.
        steps: S.
    """
    import numpy as np

    from experiments.build import Workshop, batches
    from metalearn.evaluation import evaluate

    shop = Workshop(experiment.override({"inner.steps": steps, "episodes.queries": queries}))
    shop.frozen = True  # nothing is chosen
    settings = experiment.evaluation
    episodes = batches(shop, shop.stream("test", shots, settings.seed), settings.tasks)
    judged = evaluate(shop.learner(experiment.learners[0]), state, episodes)
    return np.stack([judged.final("loss", step) for step in range(steps + 1)], axis=1)


def mean(errors: np.ndarray) -> Estimate:
    """Mean over tasks `[E]`, with 1.96 standard errors."""
    return Estimate(float(errors.mean()), 1.96 * float(errors.std(ddof=1)) / len(errors) ** 0.5)


def ratio(errors: np.ndarray, others: np.ndarray) -> Estimate:
    """Ratio of the means of two learners on the same tasks, with 1.96 standard errors.

    To first order, r = a / b varies over tasks as (a_i - r b_i) / b does.
    """
    value = float(errors.mean() / others.mean())
    return Estimate(value, mean((errors - value * others) / others.mean()).half)
