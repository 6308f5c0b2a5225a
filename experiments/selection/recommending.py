"""`metalearn select recommend`: which learner for a user's examples, and why.

What is known of the task comes from the examples alone.  The answer has the learner that the policy
chooses, the one it would choose without it, what both can be expected to bring, the features that
decided, or what was tried and found, and the command that adapts the learner.
"""

from __future__ import annotations

import shlex
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from experiments.adapted import batch_of
from experiments.build import Workshop
from experiments.errors import UserError
from experiments.files import write_json
from experiments.selection import portfolio, readings
from experiments.selection.asking import Question
from experiments.selection.fitting import LEEP, Fitted, read
from experiments.selection.instruments import anchors_of, build_instruments
from experiments.selection.matrix import FOLDS
from experiments.selection.policies import row_named
from meta_models.features import FeatureStore
from metalearn.selection.explanation import deciding, expected
from metalearn.selection.features import describe
from metalearn.selection.portfolio import Portfolio
from metalearn.selection.readings import Readings
from metalearn.selection.trial import validate
from tasks.episode import Task
from tasks.sources.files import read_examples

SHOWN = 5
"""Features that are named."""


def recommend(folder: Path, support: Path, output: Path | None = None) -> dict[str, Any]:
    """Choose a learner, and say so.

    Args:
        folder: Of a policy that `fit` wrote.
        support: Examples with columns text and label.
        output: JSON file for the answer.

    Raises:
        UserError: If the policy or the examples cannot be used.
    """
    answer = recommendation(folder, support)
    _show(answer)
    if output is not None:
        write_json(output, answer)
        print(output)
    return answer


def recommendation(folder: Path, support: Path) -> dict[str, Any]:
    """What is recommended, for JSON; see `recommend`."""
    fitted = read(folder)
    examples = read_examples(support)
    count = Counter(str(example.label) for example in examples)
    if len(count) < 2:
        raise UserError(f"{support} has a single class, {next(iter(count))}; give at least two")
    problem = fitted.problem
    kept: dict[str, Any] = {}
    stores: dict[str, FeatureStore] = {}
    built = portfolio.build(problem.learners, fitted.trained, kept, stores)
    able = _able(built, problem.learners, support, len(count))
    base = Workshop(portfolio.TRAINED, kept)
    base.stores = stores
    groups = list(dict.fromkeys(name.partition(".")[0] for name in problem.feature_names))
    batch = batch_of(base.collator, examples, sorted(count))
    anchors = anchors_of(base, folder) if LEEP in problem.feature_names else None
    try:
        known, seconds = describe(batch, build_instruments(base, anchors), groups)
        features = np.array([known[name] for name in problem.feature_names])
    except (ValueError, KeyError) as error:
        raise UserError(f"{support}: {error}; the policy cannot choose for it") from None
    looks = row_named(fitted.wanted.policy).looks
    seen = None
    if looks == "examples":
        embeddings, classes = readings.read(base, batch)
        seen = Readings.of([embeddings], [classes.tolist()])
    labels, ids = tuple(sorted(count)), tuple(range(len(count)))
    task = Task("examples", "class", tuple(examples), (), labels, ids)

    def score(learner: int) -> float:
        member = built[problem.learners[learner]]
        return validate(member, task, lambda part: base.collator.collate([part], [0]), FOLDS)

    question = Question(fitted, features, seen, score)
    choice = question.choice(able)
    second = question.runner_up(able, choice)
    worth = expected(problem, features, fitted.wanted.seed)
    name = problem.learners[choice]
    target = shlex.quote(f"{support.stem}-{name}")
    command = (
        f"metalearn adapt {shlex.quote(str(folder))} --support {shlex.quote(str(support))} "
        f"--learner {name} --output {target}"
    )
    return {
        "learner": name,
        "expected": _expected(fitted, worth, choice),
        "runner_up": None
        if second is None
        else {"learner": problem.learners[second], "expected": _expected(fitted, worth, second)},
        "policy": fitted.wanted.policy,
        "weight": fitted.wanted.weight,
        "cost": {"unit": fitted.wanted.cost, "mean": float(np.nanmean(problem.costs[:, choice]))},
        "looks": looks,
        "deciding": _deciding(fitted, features, able) if looks == "features" else None,
        "tried": {problem.learners[place]: found for place, found in question.scores.items()},
        "spent": float(sum(np.nanmean(problem.costs[:, place]) for place in question.scores)),
        "outside": _outside(fitted, features),
        "features": dict(zip(problem.feature_names, features.tolist(), strict=True)),
        "feature_seconds": seconds,
        "command": command,
    }


def _able(built: Portfolio, names: tuple[str, ...], support: Path, ways: int) -> np.ndarray:
    """Which members can work on so many classes `[A]`."""
    most = np.array([built[name].most_ways for name in names])
    if not (ways <= most).any():
        raise UserError(
            f"{support} has {ways} classes, and no learner of the portfolio handles more than "
            f"{int(most.max())}; divide them"
        )
    return ways <= most


def _expected(fitted: Fitted, worth: np.ndarray, learner: int) -> dict[str, float] | None:
    """Utility with the interval of a new task; None of a learner that was never able.

    No accuracy is above 1, and so no utility above 1 - lambda x cost.
    """
    errors = fitted.errors[fitted.problem.learners[learner]]
    if errors is None or not np.isfinite(worth[learner]):
        return None
    mean = float(worth[learner])
    most = 1 - fitted.wanted.weight * float(np.nanmean(fitted.problem.costs[:, learner]))
    return {"mean": mean, "low": mean + errors[0], "high": min(mean + errors[1], most)}


def _deciding(
    fitted: Fitted, features: np.ndarray, able: np.ndarray
) -> list[dict[str, Any]] | None:
    """The features without which the choice might be another, the first ones first."""
    share = deciding(fitted.policy, fitted.problem, features, able)
    if share is None:
        return None
    order = [place for place in np.argsort(-share, kind="stable") if share[place] > 0]
    return [
        {
            "feature": fitted.problem.feature_names[place],
            "value": float(features[place]),
            "quantile": float((fitted.problem.features[:, place] < features[place]).mean()),
            "changes": float(share[place]),
        }
        for place in order
    ]


def _outside(fitted: Fitted, features: np.ndarray) -> list[str]:
    """Features beyond those of every training task."""
    low, high = fitted.problem.features.min(0), fitted.problem.features.max(0)
    beyond = np.flatnonzero((features < low) | (features > high))
    return [fitted.problem.feature_names[place] for place in beyond]


def _show(answer: dict[str, Any]) -> None:
    console = Console(highlight=False)
    second, weight, cost = answer["runner_up"], answer["weight"], answer["cost"]
    mean = f"{cost['mean']:.2f} {cost['unit']}"
    lines = {
        "learner": f"{answer['learner']}, by {answer['policy']}",
        "expected": f"{_interval(answer['expected'])} (accuracy - {weight:g} x {mean})",
        "runner-up": "none"
        if second is None
        else f"{second['learner']}, {_interval(second['expected'])}",
    }
    for name, line in lines.items():
        console.print(f"{name:<12} {line}", markup=False, soft_wrap=True)
    found = answer["deciding"]
    if found:
        table = Table(box=SIMPLE_HEAD, show_edge=False, padding=(0, 1))
        for header in ("feature that decided", "value", "above tasks", "changes the choice"):
            table.add_column(header, justify="left" if header[0] == "f" else "right")
        for row in found[:SHOWN]:
            shares = [f"{100 * row[name]:.0f}%" for name in ("quantile", "changes")]
            table.add_row(row["feature"], f"{row['value']:.3g}", *shares)
        console.print(table)
    else:
        console.print(f"{'decided by':<12} {_reason(answer)}", markup=False, soft_wrap=True)
    if answer["outside"]:
        line = f"{'beware':<12} beyond all training tasks: {', '.join(answer['outside'])}"
        console.print(line, markup=False, soft_wrap=True)
    console.print(f"{'adapt it':<12} {answer['command']}", markup=False, soft_wrap=True)


def _reason(answer: dict[str, Any]) -> str:
    """What decided where it was no single feature."""
    if answer["looks"] == "examples":
        return "the examples, which it reads"
    if answer["tried"]:
        scores = ", ".join(f"{name} {100 * score:.1f}" for name, score in answer["tried"].items())
        paid = f"{answer['spent']:.2f} {answer['cost']['unit']}"
        return f"tries on the examples for {paid}, cross-validated accuracy of 100: {scores}"
    if answer["looks"] == "tries":
        return "the features: nothing was worth a try"
    by_chance = answer["deciding"] is None
    why = "it chooses by chance" if by_chance else "another value of any keeps the choice"
    return f"no single feature: {why}"


def _interval(value: dict[str, float] | None) -> str:
    if value is None:
        return "nothing is known"
    mean, low, high = (100 * value[name] for name in ("mean", "low", "high"))
    return f"utility {mean:.1f} [{low:.1f}, {high:.1f}] of 100 on a new task, 95%"
