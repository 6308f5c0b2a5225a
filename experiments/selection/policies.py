"""The policies by name, with their settings; a file is imported when it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any

from experiments.errors import UserError, one_of

if TYPE_CHECKING:
    from metalearn.selection.policy import Policy

Watch = Callable[[Mapping[str, float]], None]
"""Is handed the figures of a training."""
VIRTUAL_BEST = "virtual-best"
"""Stands in every table as the bound that it is; it knows the outcomes and cannot be fitted."""


@dataclass(frozen=True)
class Row:
    """A policy of the table.

    Attributes:
        file: Of metalearn.selection.
        kind: Class in it.
        settings: Of the class, where they differ from its defaults.
        trainer: File and class of what trains an actor by reinforcement; None: nothing does.
        training: Settings of the trainer.
        watched: Whether its training can be watched.
    """

    file: str
    kind: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    trainer: tuple[str, str] | None = None
    training: Mapping[str, Any] = field(default_factory=dict)
    watched: bool = False


def _reinforced(file: str, kind: str, **training: Any) -> Row:
    return Row("searcher", "Searcher", {}, (file, kind), training, watched=True)


POLICIES = {
    "random": Row("static", "Random"),
    "single-best": Row("static", "SingleBest"),
    "nearest-tasks": Row("nearest_tasks", "NearestTasks"),
    "regression-forest": Row("regression_forest", "RegressionForest"),
    "voting-forest": Row("voting_forest", "VotingForest"),
    "cost-sensitive": Row("cost_sensitive", "CostSensitive"),
    "ucb1": Row("ucb1", "UCB1"),
    "thompson": Row("thompson", "Thompson"),
    "exp3": Row("exp3", "EXP3"),
    "epsilon-greedy": Row("epsilon_greedy", "EpsilonGreedy"),
    "linucb": Row("linucb", "LinUCB"),
    "linear-thompson": Row("linear_thompson", "LinearThompson"),
    "reinforce": _reinforced("reinforce", "Reinforce"),
    "q-learning": _reinforced("temporal", "TemporalDifference"),
    "q-linear": _reinforced("temporal", "TemporalDifference", cells=0),
    "sarsa": _reinforced("temporal", "TemporalDifference", method="sarsa"),
    "ppo": _reinforced("ppo", "PPO"),
    "recurrent": Row("recurrent", "Recurrent", watched=True),
}
"""Every policy by name, the simplest first."""


def policy(name: str, watch: Watch | None = None) -> Policy:
    """A policy with the settings of the table, not fitted.

    Args:
        name: Its name.
        watch: Is handed the figures of its training, if it is trained step by step.

    Raises:
        UserError: If there is none of that name, or a library that it needs is not installed.

    Example:
        >>> policy("single-best").online
        False
    """
    row = row_named(name)
    watching = {"watch": watch} if row.watched else {}
    try:
        trainer = [] if row.trainer is None else [_made(*row.trainer, **row.training)]
        return _made(row.file, row.kind, *trainer, **row.settings, **watching)
    except ImportError as error:
        raise UserError(f"policy {name}: {error}") from None


def row_named(name: str) -> Row:
    """The row of a policy.

    Raises:
        UserError: If there is none of that name.
    """
    if name == VIRTUAL_BEST:
        raise UserError(f"{VIRTUAL_BEST} knows the outcomes: it is in every table, and no policy")
    if name not in POLICIES:
        raise UserError(f"no policy {name}{one_of(name, POLICIES)}")
    return POLICIES[name]


def known(names: Sequence[str]) -> list[str]:
    """Names of the table, each once: those given, or all; the virtual best needs no asking for.

    Raises:
        UserError: If there is no policy of such a name.

    Example:
        >>> known(["random", "virtual-best", "random"])
        ['random']
    """
    chosen = [name for name in dict.fromkeys(names) if name != VIRTUAL_BEST]
    for name in chosen:
        row_named(name)
    return chosen or list(POLICIES)


def settings(name: str) -> dict[str, Any]:
    """What the outcomes of a policy depend on, for JSON."""
    row = row_named(name)
    trained = {"trainer": row.trainer[1], **row.training} if row.trainer else {}
    return {"policy": row.kind, **row.settings, **trained}


def _made(file: str, kind: str, *built: Any, **chosen: Any) -> Any:
    return getattr(import_module(f"metalearn.selection.{file}"), kind)(*built, **chosen)
