"""Members of a fitted policy's portfolio, ready to adapt to examples of a user."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from experiments.build import Workshop
    from meta_models.params import Params
    from metalearn.learner import Learner

PROBLEM = "problem.parquet"
"""File that every fitted policy has, and no other folder."""


def is_fitted(folder: Path) -> bool:
    """Whether `metalearn select fit` wrote a folder."""
    return (folder / PROBLEM).exists()


def ready_of_policy(
    folder: Path, asked: str | None, support: Path, settings: dict[str, Any]
) -> tuple[str, Workshop, Learner, Params, dict[str, Any]]:
    """A member: its name, workshop, learner, state, and where it comes from.

    Args:
        folder: Of the policy.
        asked: Name of the member; None: the one that the policy chooses.
        support: The examples to choose for.
        settings: Dotted settings that replace the member's.

    Raises:
        UserError: If the policy cannot be used, or has no such member.
    """
    from experiments.build import Workshop, seeded
    from experiments.config import AdapterSettings
    from experiments.selection import portfolio
    from experiments.selection.fitting import TRAINED, members
    from experiments.selection.recommending import recommendation
    from experiments.trained import TrainedRun

    members(folder, asked)
    name = asked or recommendation(folder, support)["learner"]
    entry = portfolio.entry_named(name)
    origin = {"run": folder.resolve().name, "experiment": "portfolio", "learner": name}
    origin |= {"algorithm": entry.algorithm, "settings": dict(entry.settings)}
    if entry.trained:
        run = TrainedRun(folder / TRAINED)
        cell = run.cell(entry.algorithm)
        workshop = run.workshop(cell, settings)
        learner = workshop.learner(entry.algorithm)
        return name, workshop, learner, run.state(learner, cell)[0], origin
    if entry.adapter is None:  # that of the trained members may have no place in a cut backbone
        settings = settings | {"adapter": AdapterSettings(method="none", options={}).model_dump()}
    workshop = Workshop(portfolio.settings(entry).override(settings))
    learner = workshop.learner(entry.algorithm)
    return name, workshop, learner, learner.init(seeded(0)), origin
