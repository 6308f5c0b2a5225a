"""Checks before the first trial: what a sweep asks of its experiment."""

from __future__ import annotations

from typing import Any

from experiments.build import Workshop
from experiments.cells import first_cells, variant
from experiments.checks import check
from experiments.config import Experiment
from experiments.errors import UserError, nearest
from experiments.settings import replaced
from experiments.standing import VALIDATION
from experiments.sweeps import space
from experiments.sweeps.file import Sweep

OWN = ("name", "description", "tracking.group", "tracking.job_type")
"""Settings that a sweep gives its trials itself."""
WHERE = "parameters"


def check_sweep(asked: Sweep, base: Experiment, seed: int) -> None:
    """Check every value of every parameter, and make what the trials need.

    Args:
        asked: What is asked for.
        base: The experiment whose settings are replaced.
        seed: Seed of the settings.

    Raises:
        UserError: If a name is no setting, a value does not fit, or nothing has the metric.
        TaskError: If the data of a trial are missing or too few.
        ModelError: If the model of a trial cannot be made.
    """
    for parameter in asked.parameters:
        if parameter.name in OWN:
            raise UserError(f"{WHERE}: {parameter.name} is the sweep's own; leave it out")
        for value in parameter.probes():
            replaced(base, {parameter.name: value}, WHERE)
        _refuse_grids(parameter.name, base)
    for point in asked.points(seed) or []:
        replaced(base, space.settings(asked.parameters, point), WHERE)
    kept: dict[str, Any] = {}
    for experiment in _kinds(asked, base, seed):
        check(experiment, kept)
        _check_metric(asked.metric, experiment, kept)


def _refuse_grids(name: str, base: Experiment) -> None:
    """A learner's grid replaces settings itself, after the trial has."""
    for learner in base.learners:
        if name in base.grids.get(learner, {}):
            raise UserError(
                f"{WHERE}: {name} is in the grid of {learner}, which would replace it; leave it "
                "out, or give --grids without it, '{}' for none"
            )


def _kinds(asked: Sweep, base: Experiment, seed: int) -> list[Experiment]:
    """The first trial, and what becomes of it with each other value of one parameter."""
    points = asked.points(seed)
    first = space.settings(asked.parameters, points[0]) if points else {}
    if not points:
        first = {parameter.name: parameter.probes()[0] for parameter in asked.parameters}
    found = [replaced(base, first, WHERE)]
    for parameter in asked.parameters:
        # A number changes no shape, as a rule; what is listed may be another model or source.
        values = parameter.probes() if isinstance(parameter, space.Choice) else []
        found += [
            replaced(base, first | {parameter.name: value}, WHERE)
            for value in values
            if value != first[parameter.name]
        ]
    return found


def _check_metric(metric: str, experiment: Experiment, kept: dict[str, Any]) -> None:
    trained = [
        cell.learner
        for cell in first_cells(experiment)
        if Workshop(variant(experiment, cell), kept).learner(cell.learner).trains
    ]
    known = dict.fromkeys([VALIDATION, *(f"{learner}/{VALIDATION}" for learner in trained)])
    if not trained:
        raise UserError(
            f"metric {metric}: none of {', '.join(experiment.learners)} is trained, and a run "
            "validates what it trains; add a learner such as maml"
        )
    if metric not in known:
        raise UserError(
            f"no metric {metric} in {experiment.name}{nearest(metric, known)}; its trainings have "
            f"{', '.join(known)}"
        )
