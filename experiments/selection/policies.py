"""The policies by name, with their settings; a file is imported when it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal

from experiments.errors import UserError, one_of

if TYPE_CHECKING:
    from metalearn.selection.policy import Policy

Watch = Callable[[Mapping[str, float]], None]
"""Is handed the figures of a training."""
VIRTUAL_BEST = "virtual-best"
"""Stands in every table as the bound that it is; it knows the outcomes and cannot be fitted."""


Group = Literal["static", "supervised", "bandit", "reinforced"]
Looks = Literal["features", "tries", "examples"]
"""What a policy looks at beside the features: scores of learners that it tries, or the examples."""


@dataclass(frozen=True)
class Row:
    """A policy of the table.

    Attributes:
        group: What kind of policy it is.
        file: Of metalearn.selection.
        kind: Class in it.
        training: Settings of its training, where they differ from the defaults.
        base: File and class of what it is built on: the trainer of an actor, or another policy,
            which the settings of training are for; None: it stands alone.
        options: Its own settings where it is built on something.
        looks: What it looks at.
    """

    group: Group
    file: str
    kind: str
    training: Mapping[str, Any] = field(default_factory=dict)
    base: tuple[str, str] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    looks: Looks = "features"


def _reinforced(file: str, kind: str, **training: Any) -> Row:
    return Row("reinforced", "searcher", "Searcher", training, (file, kind))


def _searching(file: str, kind: str, **training: Any) -> Row:
    """One that may try three learners before it answers."""
    base, options = (file, kind), {"most": 3}
    return Row("reinforced", "searcher", "Searcher", training, base, options, "tries")


POLICIES = {
    "random": Row("static", "static", "Random"),
    "single-best": Row("static", "static", "SingleBest"),
    "cross-validation": Row("static", "cross_validated", "CrossValidated", looks="tries"),
    "nearest-tasks": Row("supervised", "nearest_tasks", "NearestTasks"),
    "regression-forest": Row("supervised", "regression_forest", "RegressionForest"),
    "voting-forest": Row("supervised", "voting_forest", "VotingForest"),
    "cost-sensitive": Row("supervised", "cost_sensitive", "CostSensitive"),
    "regret-ensemble": Row("supervised", "regret_ensemble", "RegretEnsemble"),
    "tried-ensemble": Row(
        "supervised",
        "with_tries",
        "WithTries",
        base=("regret_ensemble", "RegretEnsemble"),
        looks="tries",
    ),
    "ucb1": Row("bandit", "ucb1", "UCB1"),
    "thompson": Row("bandit", "thompson", "Thompson"),
    "exp3": Row("bandit", "exp3", "EXP3"),
    "epsilon-greedy": Row("bandit", "epsilon_greedy", "EpsilonGreedy"),
    "linucb": Row("bandit", "linucb", "LinUCB"),
    "linear-thompson": Row("bandit", "linear_thompson", "LinearThompson"),
    "reinforce": _reinforced("reinforce", "Reinforce"),
    "q-learning": _reinforced("temporal", "TemporalDifference"),
    "q-linear": _reinforced("temporal", "TemporalDifference", cells=0),
    "sarsa": _reinforced("temporal", "TemporalDifference", method="sarsa"),
    "ppo": _reinforced("ppo", "PPO"),
    "reinforce-search": _searching("reinforce", "Reinforce"),
    "q-linear-search": _searching("temporal", "TemporalDifference", cells=0),
    "ppo-search": _searching("ppo", "PPO"),
    "recurrent": Row("reinforced", "recurrent", "Recurrent"),
    "reader": Row("reinforced", "reader", "Reader", looks="examples"),
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
    watching = {"watch": watch} if row.group == "reinforced" else {}
    try:
        if row.base is None:
            return _made(row.file, row.kind, **row.training, **watching)
        base = _made(*row.base, **row.training)
        return _made(row.file, row.kind, base, **row.options, **watching)
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
    """Names of the table, each once; the virtual best needs no asking for.

    Args:
        names: Which; none: all.

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
    base = {} if row.base is None else {"base": row.base[1]}
    return {"policy": row.kind, **base, **row.training, **row.options}


def _made(file: str, kind: str, *built: Any, **chosen: Any) -> Any:
    return getattr(import_module(f"metalearn.selection.{file}"), kind)(*built, **chosen)
