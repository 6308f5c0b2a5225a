"""The cells of an experiment: what is trained and judged, and with which settings."""

from __future__ import annotations

import itertools
import logging
import math
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from experiments.build import Workshop, batches
from experiments.config import Experiment
from experiments.errors import Diverged
from tasks.episode import Episode

CHOICES = "choices.json"
"""File of a run folder: what was chosen on validation classes for each of `first_cells`."""

log = logging.getLogger(__name__)


class Cell(NamedTuple):
    """One training or judgement of a run; `shots` 0: trained for every number of shots.

    Example:
        >>> Cell("maml", "01", 5, seed=0, trial=2).slug
        'maml-fold01-5shot-seed0-trial2'
    """

    learner: str
    fold: str
    shots: int
    seed: int
    trial: int

    @property
    def slug(self) -> str:
        """Name of its folder."""
        fold = f"-fold{self.fold}" if self.fold else ""
        shots = f"-{self.shots}shot" if self.shots else ""
        name = f"{self.learner}{fold}{shots}-seed{self.seed}-trial{self.trial}"
        return re.sub(r"[^\w.-]+", "-", name)  # a fold may be "group/fold"


def folds(experiment: Experiment) -> Sequence[str]:
    """The folds that an experiment goes through."""
    return experiment.folds or (experiment.family.fold,)


def first_cells(experiment: Experiment) -> list[Cell]:
    """What is chosen for: each learner, fold and number of shots, with the first seed."""
    shared = experiment.episodes.train_shots is not None
    return [
        Cell(learner, fold, shots, experiment.seeds[0], 0)
        for learner in experiment.learners
        for fold in folds(experiment)
        for shots in ((0,) if shared else experiment.episodes.shots)
    ]


def trials(experiment: Experiment, learner: str) -> list[dict[str, Any]]:
    """The settings that a learner's grid tries.

    Example:
        >>> grids = {"maml": {"inner.rate": (0.1, 0.3), "inner.steps": (5,)}}
        >>> trials(Experiment(grids=grids), "maml")
        [{'inner.rate': 0.1, 'inner.steps': 5}, {'inner.rate': 0.3, 'inner.steps': 5}]
    """
    grid = experiment.grids.get(learner, {})
    return [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]


def choice(
    first: Cell, tried: Sequence[dict[str, Any]], scores: Sequence[float | None]
) -> dict[str, Any]:
    """Choose the best trial of one of `first_cells`: its entry in `CHOICES`.

    Args:
        first: The cell.
        tried: Settings of its trials.
        scores: Their validation scores; None: diverged, or there is nothing to choose.

    Raises:
        Diverged: If all of several trials have.
    """
    if len(tried) > 1 and None in scores:
        if not any(score is not None for score in scores):
            raise Diverged(f"{first.slug}: every trial ended in a non-finite loss; lower the rates")
        log.warning("%s: some trials ended in a non-finite loss", first.slug)
    known = [-math.inf if score is None else score for score in scores]
    best = max(range(len(tried)), key=known.__getitem__)
    return {
        "learner": first.learner,
        "fold": first.fold,
        "shots": first.shots,
        "trial": best,
        "settings": tried[best],
        "validation_accuracy": scores[best],
        "trials": [
            {"settings": settings, "validation_accuracy": score}
            for settings, score in zip(tried, scores, strict=True)
        ],
    }


def variant(experiment: Experiment, cell: Cell) -> Experiment:
    """The settings of a cell: those of its trial, on its fold."""
    settings = trials(experiment, cell.learner)[cell.trial]
    if cell.fold:
        settings = settings | {"family.fold": cell.fold}
    return experiment.override(settings)


def validation_episodes(workshop: Workshop, trained_shots: int) -> list[Episode]:
    """Validation tasks: the same for all learners, shared between the numbers of shots.

    Args:
        workshop: Objects of the cell.
        trained_shots: `shots` of the cell.
    """
    experiment = workshop.experiment
    wanted = (trained_shots,) if trained_shots else experiment.episodes.shots
    tasks = max(1, experiment.outer.validation_tasks // len(wanted))
    return [
        episode
        for shots in wanted
        for episode in batches(
            workshop, workshop.stream("valid", shots, experiment.evaluation.seed), tasks
        )
    ]
