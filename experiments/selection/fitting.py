"""`metalearn select fit`: a policy and the portfolio it chooses from, in one folder without pickle.

    config.json, environment.json, metrics.jsonl, result.json    as every run folder has them
    problem.parquet       the tasks it was fitted on: what fits in seconds is fitted again when read
    policy.safetensors    of policies whose training is long: their networks
    trained/              the run of the meta-trained learners
    anchors.safetensors   class means that the feature LEEP goes through

`result.json` has a fingerprint of every learner, which what is read later is held against: a policy
means nothing for another portfolio.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from pydantic import ValidationError
from safetensors import SafetensorError

from experiments.build import Workshop
from experiments.cells import CHOICES
from experiments.errors import UserError, one_of
from experiments.files import read_json, write_bytes
from experiments.folder import CONFIG, ENVIRONMENT, environment
from experiments.outcome import RESULT
from experiments.selection import portfolio
from experiments.selection.folder import Folder, opened
from experiments.selection.instruments import ANCHORS, anchors_of
from experiments.selection.judging import problem_of
from experiments.selection.policies import policy, settings
from experiments.selection.problems import read_problem, write_problem
from experiments.selection.readings import told
from experiments.selection.serving import PROBLEM, is_fitted
from experiments.selection.settings import Fitting
from metalearn.selection.crossvalidation import judged
from metalearn.selection.explanation import residuals
from metalearn.selection.policy import Policy
from metalearn.selection.problem import Problem

POLICY = "policy.safetensors"
TRAINED = "trained"
LEEP = "geometry.leep"
DENSITY = 1.02
"""Records of a training are this factor apart: some hundred of twenty thousand steps."""


def fit(wanted: Fitting, output: Path, trained: Path | None = None) -> Path:
    """Fit a policy to all tasks of a matrix, and keep it.

    Args:
        wanted: What is asked for.
        output: Folder to write; it must not exist, or be empty.
        trained: Run folder of the meta-trained learners; None: that in the matrix's folder.

    Returns:
        `output`.

    Raises:
        UserError: If the matrix or the folder cannot be used, or the trained learners are missing.
    """
    problem = problem_of(wanted.matrix, wanted.weight, wanted.cost, wanted.missing)
    _check_portfolio(wanted, problem.learners)
    problem = told(problem, wanted.policy, Path(wanted.matrix))
    place = trained or Path(wanted.matrix) / TRAINED
    needs = any(portfolio.entry_named(name).trained for name in problem.learners)
    if needs and not (place / RESULT).exists():
        raise UserError(f"{place} holds no finished run of the trained learners; see --trained")
    try:
        errors = residuals(problem, wanted.seed)
    except ValueError as error:
        raise UserError(f"{wanted.matrix}: {error}") from None
    with opened(wanted, output) as folder:
        made = policy(wanted.policy, Watched(wanted.policy, folder))
        made.fit(problem, wanted.seed)
        arrays = {name: np.ascontiguousarray(value) for name, value in made.trained().items()}
        if arrays:
            write_bytes(output / POLICY, safetensors.numpy.save(arrays))
        write_problem(output / PROBLEM, problem)
        if needs:
            for name in (CONFIG, ENVIRONMENT, CHOICES, RESULT):
                (output / TRAINED).mkdir(exist_ok=True)
                shutil.copy2(place / name, output / TRAINED / name)
            shutil.copytree(place / "checkpoints", output / TRAINED / "checkpoints")
        if LEEP in problem.feature_names:
            anchors_of(Workshop(portfolio.TRAINED), Path(wanted.matrix))
            shutil.copy2(Path(wanted.matrix) / ANCHORS, output / ANCHORS)
        answers = made.answer(problem.asked())
        brought = judged(problem, answers.choices[None], tried=answers.tried[None])
        utility = float(brought.utilities.mean())
        folder.record({"learner": wanted.policy, "training_utility": utility})
        result = {
            "policy": settings(wanted.policy),
            "tasks": len(problem.tasks),
            "sources": len(set(problem.sources)),
            "portfolio": fingerprints(problem.learners, output / TRAINED),
            "errors": {
                name: pair if np.isfinite(pair).all() else None
                for name, pair in zip(problem.learners, errors.tolist(), strict=True)
            },
            "training_utility": utility,
            "environment": environment(),
        }
        folder.conclude(result, [])
    return output


class Watched:
    """Takes the figures of a training and records their means, ever more steps together.

    Args:
        name: Of the policy.
        folder: Where they are recorded.
    """

    def __init__(self, name: str, folder: Folder) -> None:
        self._name, self._folder = name, folder
        self._next = 1.0
        self._seen: list[Mapping[str, float]] = []

    def __call__(self, figures: Mapping[str, float]) -> None:
        self._seen.append(figures)
        update = figures["update"]
        if update < self._next:
            return
        self._next = max(update + 1, update * DENSITY)
        names = [name for name in figures if name != "update"]
        means = {n: float(np.mean([one[n] for one in self._seen])) for n in names}
        self._folder.record({"learner": self._name, "step": int(update), **means})
        self._seen.clear()


def _check_portfolio(wanted: Fitting, learners: tuple[str, ...]) -> None:
    """The members of the matrix must be those that this version builds."""
    about = read_json(Path(wanted.matrix) / "settings.json")["wanted"]["learners"]
    for name in learners:
        if json.loads(json.dumps(portfolio.described(name))) != about.get(name):
            raise UserError(
                f"learner {name} of {wanted.matrix} has other settings than in this version; "
                "compute the matrix again"
            )


def fingerprints(learners: tuple[str, ...], trained: Path) -> dict[str, str]:
    """A digest of all that each member's numbers depend on, besides versions.

    Args:
        learners: Members of the portfolio.
        trained: Run folder of those that are meta-trained.

    Raises:
        UserError: If there is no such member.
    """
    weights = hashlib.sha256()
    for path in sorted(trained.rglob("*.safetensors")):
        weights.update(str(path.relative_to(trained)).encode() + path.read_bytes())
    found = {}
    for name in learners:
        digest = hashlib.sha256(json.dumps(portfolio.described(name), sort_keys=True).encode())
        if portfolio.entry_named(name).trained:
            digest.update(weights.digest())
        found[name] = digest.hexdigest()[:16]
    return found


@dataclass(frozen=True)
class Fitted:
    """A policy as `fit` wrote it.

    Attributes:
        folder: Where.
        wanted: Its settings.
        policy: Ready to choose.
        problem: What it was fitted on.
        errors: How far off what is expected of a learner may be: low and high, by name.
    """

    folder: Path
    wanted: Fitting
    policy: Policy
    problem: Problem
    errors: dict[str, list[float] | None]

    @property
    def trained(self) -> Path:
        """Run folder of the meta-trained learners."""
        return self.folder / TRAINED


def read(folder: Path) -> Fitted:
    """Read a policy.

    Raises:
        UserError: If there is none, it is damaged, or was fitted on another portfolio.
    """
    learners, result = members(folder)
    problem = read_problem(folder / PROBLEM)
    if problem.learners != learners:
        raise UserError(f"{folder} is damaged ({PROBLEM} has other learners); fit it again")
    try:
        wanted = Fitting.model_validate(read_json(folder / CONFIG))
        file = folder / POLICY
        arrays = safetensors.numpy.load_file(file) if file.exists() else {}
        made = policy(wanted.policy)
        made.restore(problem, wanted.seed, arrays)
        return Fitted(folder, wanted, made, problem, result["errors"])
    except (ValidationError, SafetensorError, KeyError, RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{folder} is damaged ({reason}); fit the policy again") from None


def members(folder: Path, asked: str | None = None) -> tuple[tuple[str, ...], dict[str, Any]]:
    """The learners of a fitted policy, and what its `result.json` holds.

    Args:
        folder: Of the policy.
        asked: One that must be among them; None: none must.

    Raises:
        UserError: If there is no policy, no such learner, or its portfolio is not what the policy
            was fitted on.
    """
    if not is_fitted(folder) or not (folder / RESULT).exists():
        raise UserError(f"{folder} holds no policy; make one with metalearn select fit")
    result = read_json(folder / RESULT)
    known = result.get("portfolio") or {}
    if asked is not None and asked not in known:
        raise UserError(f"no learner {asked} in the portfolio of {folder}{one_of(asked, known)}")
    lost = [name for name in known if name not in portfolio.ENTRIES]
    now = {} if lost else fingerprints(tuple(known), folder / TRAINED)
    differing = lost or [name for name in known if now[name] != known[name]]
    if differing:
        raise UserError(
            f"the policy of {folder} was fitted on another portfolio: {', '.join(differing)} "
            f"{'are' if len(differing) > 1 else 'is'} not what it knew; fit it again"
        )
    return tuple(known), result
