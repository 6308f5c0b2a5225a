"""`metalearn select evaluate MATRIX`: policies judged on sources they were not fitted on.

For every value of lambda and every policy: R cross-validations by source, with folds drawn anew.
Policies that learn online go on learning, from their own choices alone, on the stream of tasks they
are judged on.  What a policy has chosen is a file of its own, so that a killed run goes on.

    regret      of the cross-fitted virtual best, mean over tasks; the curve adds it up
    closed gap  from the single best of the training tasks to the virtual best

`result.json` has everything, `table.csv` and `table.parquet` a row a lambda and policy.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from concurrent.futures import as_completed
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from experiments.errors import UserError
from experiments.files import read_json, write_json
from experiments.folder import environment
from experiments.selection.figures import draw
from experiments.selection.folder import opened
from experiments.selection.policies import VIRTUAL_BEST, policy, settings
from experiments.selection.readings import told
from experiments.selection.settings import Cost, Judging, Missing
from experiments.selection.summary import show, write_tables
from experiments.selection.tables import read_matrix
from experiments.workers import pool
from metalearn.selection import metrics
from metalearn.selection.crossvalidation import (
    Judged,
    folds_by_source,
    judge,
    judged,
    virtual_best,
)
from metalearn.selection.problem import Problem

SINGLE = "single-best"
KEPT = "judged"
POINTS = 40
"""Of a curve, at most."""


def evaluate(wanted: Judging, run_dir: Path, resume: bool = False, workers: int = 1) -> Path:
    """Judge policies, or what is left of them, and print the table.

    Args:
        wanted: What is asked for.
        run_dir: The run folder.
        resume: Whether it may be there, and is gone on with.
        workers: Processes that share the policies.

    Returns:
        The run folder.

    Raises:
        UserError: If the matrix cannot be used, or there are fewer sources than folds.
    """
    problems = {
        weight: problem_of(wanted.matrix, weight, wanted.cost, wanted.missing)
        for weight in wanted.weights
    }
    first = problems[wanted.weights[0]]
    try:
        folds_by_source(first, wanted.folds, wanted.seed)
    except ValueError as error:
        raise UserError(str(error)) from None
    with opened(wanted, run_dir, resume) as folder:
        kept = run_dir / KEPT
        kept.mkdir(exist_ok=True)
        # The single best is what all others are measured by.
        names = list(dict.fromkeys([SINGLE, *wanted.policies]))
        rows = []
        for weight, name, record in _records(wanted, names, kept, workers):
            if name == SINGLE:
                single = _read(problems[weight], record)
                rows.append(bound(problems[weight], weight, single))
            row = row_of(_read(problems[weight], record), single, name, weight) | {
                "online": record["online"],
                "seconds": record["seconds"],
            }
            rows.append(row)
            folder.record(_flat(row))
        result = {
            "selection": wanted.name,
            "settings": wanted.model_dump(mode="json", exclude={"tracking"}),
            "policies": {name: settings(name) for name in names},
            "tasks": len(first.tasks),
            "sources": len(set(first.sources)),
            "learners": list(first.learners),
            "rows": rows,
            "environment": environment(),
        }
        write_tables(run_dir, rows)
        figures = draw(result, run_dir / "figures")
        folder.conclude(result, figures)
    show(result)
    return run_dir


def problem_of(matrix: str, weight: float, cost: Cost, missing: Missing) -> Problem:
    """The problem of a matrix at a value of lambda.

    Args:
        matrix: Its folder.
        weight: lambda.
        cost: Unit of cost.
        missing: What to do about cells that were not measured.

    Raises:
        UserError: If there is no matrix, a table is damaged, a cell is missing and refused, or a
            feature is not finite.
    """
    try:
        return read_matrix(Path(matrix)).problem(weight, cost, missing)
    except UserError:
        raise
    except ValueError as error:
        raise UserError(f"{matrix}: {error}") from None


def _records(
    wanted: Judging, names: list[str], kept: Path, workers: int
) -> Iterator[tuple[float, str, dict[str, Any]]]:
    """What each policy chose at each lambda, once it is on disk."""
    cells = [(weight, name) for weight in wanted.weights for name in names]
    files = {cell: kept / f"{cell[1]}-{cell[0]:g}.json" for cell in cells}
    left = [cell for cell in cells if not files[cell].exists()]
    for weight, name in _computed(wanted, left, files, workers):
        print(f"{name}, lambda {weight:g}: judged", flush=True)
    for cell in cells:
        yield (*cell, read_json(files[cell]))


def _computed(
    wanted: Judging, left: list[tuple[float, str]], files: Mapping[Any, Path], workers: int
) -> Iterator[tuple[float, str]]:
    """Judge what is left; yields what is done."""
    if workers == 1 or len(left) < 2:
        for cell in left:
            _finish(wanted, *cell, files[cell])
            yield cell
        return
    for weight, name in left:  # readings are made once, and not by every process
        told(
            _problem(wanted.matrix, weight, wanted.cost, wanted.missing), name, Path(wanted.matrix)
        )
    with pool(min(workers, len(left)), _begin) as shared:
        # The simplest come first in the table: from its end on, no process is left alone for long.
        begun = {shared.submit(_finish, wanted, *cell, files[cell]): cell for cell in left[::-1]}
        try:
            for done in as_completed(begun):
                done.result()
                yield begun[done]
        finally:
            for future in begun:
                future.cancel()


def _begin() -> None:
    import torch

    torch.set_num_threads(1)


_problem = lru_cache(maxsize=4)(problem_of)
"""Of this process: a matrix is read once."""


def _finish(wanted: Judging, weight: float, name: str, file: Path) -> None:
    problem = _problem(wanted.matrix, weight, wanted.cost, wanted.missing)
    problem = told(problem, name, Path(wanted.matrix))
    online = policy(name).online
    folds = np.stack(
        [
            folds_by_source(problem, wanted.folds, wanted.seed + repetition)
            for repetition in range(wanted.repetitions)
        ]
    )
    began = time.process_time()
    found = judge(
        lambda: policy(name), problem, folds, seed=wanted.seed, learning=online and wanted.learning
    )
    record = {
        "policy": name,
        "weight": weight,
        "online": online and wanted.learning,
        "seconds": (time.process_time() - began) / folds.shape[0] / wanted.folds,
        "choices": found.choices.tolist(),
        "order": found.order.tolist(),
    }
    if found.tried.any():
        record |= {"tried": found.tried.tolist(), "spent": found.spent.tolist()}
    write_json(file, record)


def _read(problem: Problem, record: Mapping[str, Any]) -> Judged:
    tried = np.array(record["tried"]) if "tried" in record else None
    return judged(problem, np.array(record["choices"]), np.array(record["order"]), tried)


def row_of(found: Judged, single: Judged, name: str, weight: float) -> dict[str, Any]:
    """What is said of a policy at a lambda, for JSON; no gap where there is none to close."""
    problem = found.problem
    cost = metrics.mean_cost(found)
    utility = metrics.mean_utility(found)
    try:
        gap = metrics.closed_gap(found, single).as_dict()
    except ValueError:
        gap = None
    chosen = metrics.frequencies(found)
    return {
        "policy": name,
        "weight": weight,
        "utility": utility.as_dict(),
        "accuracy": utility.mean + weight * cost.mean,
        "regret": metrics.mean_regret(found).as_dict(),
        "gap": gap,
        "best": metrics.share_best(found),
        "cost": cost.as_dict(),
        "chosen": dict(zip(problem.learners, map(float, chosen), strict=True)),
        "curve": curve(found),
    }


def bound(problem: Problem, weight: float, single: Judged) -> dict[str, Any]:
    """The row of the virtual best, whose choices are those that were best over all queries."""
    row = row_of(virtual_best(problem), single, VIRTUAL_BEST, weight)
    return row | {"online": False, "seconds": 0.0}


def curve(found: Judged) -> dict[str, list[float]]:
    """Cumulated regret over the stream: mean over the repetitions, the least and the largest."""
    regret = metrics.cumulated_regret(found)
    count = regret.shape[1]
    places = np.unique(np.linspace(0, count - 1, min(count, POINTS)).round().astype(int))
    lines = {"mean": regret.mean(0), "low": regret.min(0), "high": regret.max(0)}
    shown = {name: [round(float(line[at]), 4) for at in places] for name, line in lines.items()}
    return {"tasks": [int(at) + 1 for at in places], **shown}


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    """The numbers of a row, as a record."""
    means = {name: row[name]["mean"] for name in ("utility", "regret", "cost")}
    gap = {} if row["gap"] is None else {"gap": row["gap"]["mean"]}
    names = ("policy", "weight", "accuracy", "best", "seconds")
    return {name: row[name] for name in names} | means | gap
