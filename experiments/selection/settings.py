"""Settings of the commands on a matrix; run folders keep those of judging and fitting."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from experiments.config import TrackingSettings
from experiments.schema import Settings

Cost = Literal["passes", "seconds"]
Missing = Literal["refuse", "marginalize"]
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
WEIGHTS = (0.0, 0.002)
"""Values of lambda, utility that a unit of cost takes away.  0.002: ten passes cost two points of
accuracy."""


class Viewing(Settings):
    """`metalearn select view MATRIX`: what a matrix says."""

    matrix: str
    """Folder of the performance matrix."""
    weights: tuple[Weight, ...] = WEIGHTS
    """Values of lambda."""
    cost: Cost = "passes"
    """Unit of cost."""
    missing: Missing = "refuse"
    """What to do about a cell that was not measured."""


class Judging(Settings):
    """`metalearn select evaluate MATRIX`: policies on held-out sources."""

    name: str = "select-evaluate"
    """The run folder begins with it."""
    description: str = "policies that choose a learner, judged on held-out sources"
    """One line for people."""
    matrix: str
    """Folder of the performance matrix."""
    policies: tuple[str, ...]
    """Which policies."""
    weights: tuple[Weight, ...] = WEIGHTS
    """Values of lambda, utility that a unit of cost takes away."""
    cost: Cost = "passes"
    """Unit of cost."""
    missing: Missing = "refuse"
    """What to do about a cell that was not measured."""
    folds: int = Field(default=10, ge=2)
    """Folds of sources."""
    repetitions: int = Field(default=5, ge=1)
    """Cross-validations, with folds drawn anew and policies fitted with other seeds."""
    seed: int = Field(default=0, ge=0)
    """Of folds, policies and the order of the tasks."""
    learning: bool = True
    """Whether online policies go on learning from their choices on the tasks they are judged on."""
    tracking: TrackingSettings = TrackingSettings(job_type="select")
    """Where results are told."""


class Fitting(Settings):
    """`metalearn select fit MATRIX`: one policy, fitted to all tasks of a matrix."""

    name: str = "select-fit"
    """W&B groups runs by it."""
    description: str = "a policy that chooses a learner"
    """One line for people."""
    matrix: str
    """Folder of the performance matrix."""
    policy: str
    """Which policy."""
    weight: Weight = WEIGHTS[-1]
    """lambda, see `WEIGHTS`."""
    cost: Cost = "passes"
    """Unit of cost."""
    missing: Missing = "refuse"
    """What to do about a cell that was not measured."""
    seed: int = Field(default=0, ge=0)
    """Of whatever the policy draws."""
    tracking: TrackingSettings = TrackingSettings(job_type="select")
    """Where its training is told."""
