"""The policies by their names; a file is imported when it is asked for."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from experiments.errors import UserError, one_of

if TYPE_CHECKING:
    from metalearn.selection.policy import Policy

POLICIES = {
    "random": ("static", "Random"),
    "single-best": ("static", "SingleBest"),
    "nearest-tasks": ("nearest_tasks", "NearestTasks"),
    "regression-forest": ("regression_forest", "RegressionForest"),
    "voting-forest": ("voting_forest", "VotingForest"),
    "cost-sensitive": ("cost_sensitive", "CostSensitive"),
    "stacked": ("stacked", "Stacked"),
}
"""File of metalearn.selection and class, by name, the simplest first."""


def policy(name: str) -> Policy:
    """A policy at its defaults, not fitted.

    Raises:
        UserError: If there is none of that name.

    Example:
        >>> policy("single-best").online
        False
    """
    if name not in POLICIES:
        raise UserError(f"no policy {name}{one_of(name, POLICIES)}")
    file, kind = POLICIES[name]
    return getattr(import_module(f"metalearn.selection.{file}"), kind)()
