"""`metalearn select view MATRIX`: what a matrix says before any policy is fitted.

Does choosing matter?  The virtual best is above the single best by

    gap = mean_s mean_{t in s} (VBS_t - u_{t, SBS}),

the mean over sources of their tasks, with the interval of a bootstrap over sources, then tasks.
The best learner of each task is chosen on one half of the queries and scored on the other, so that
learners which differ by nothing but noise leave no gap.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from experiments.analysis.drawing import save
from experiments.errors import UserError
from experiments.files import write_json
from experiments.selection.matrix_figures import accuracy, gaps
from experiments.selection.settings import Viewing
from experiments.selection.tables import CELLS, read_matrix
from experiments.tables import markdown as joined
from metalearn.selection.matrix import Matrix
from metalearn.selection.problem import Problem
from metalearn.statistics import Interval, bootstrap

HEADERS = ("learner", "accuracy", "passes", "seconds", "best on")
Record = dict[str, Any]


def view(wanted: Viewing) -> None:
    """Print what a matrix says, and draw it into `figures/` of its folder.

    Args:
        wanted: What is asked for.

    Raises:
        UserError: If there is no matrix, a table is damaged, or a cell is missing and refused.
    """
    matrix, found = record(wanted)
    rows = [list(HEADERS), *cells(found)]
    width = max(len(row[0]) for row in rows)
    print(f"{found['tasks']} tasks of {found['sources']} sources")
    for name, *numbers in rows:
        print(f"{name:<{width}}" + "".join(f"{number:>10}" for number in numbers))
    print("\n".join(bounds(found)))
    for file in _draw(matrix, found, Path(wanted.matrix) / "figures"):
        print(file)


def keep(folder: Path, path: Path) -> Path:
    """Keep what a matrix says as JSON, with its figures beside it.

    Args:
        folder: Of the matrix.
        path: The JSON file.

    Raises:
        UserError: As `view`.
    """
    matrix, found = record(Viewing(matrix=str(folder)))
    write_json(path, found)
    _draw(matrix, found, path.parent, f"{path.stem}-")
    return path


def _draw(matrix: Matrix, found: Record, folder: Path, prefix: str = "") -> list[Path]:
    figures = {"accuracy": accuracy(matrix, found["single"]), "gap": gaps(found)}
    return [save(figure, folder / f"{prefix}{name}.png") for name, figure in figures.items()]


def record(wanted: Viewing) -> tuple[Matrix, Record]:
    """A matrix and what is said of it, for JSON: a row a learner, and the bounds at every lambda.

    Raises:
        UserError: As `view`.
    """
    folder = Path(wanted.matrix)
    matrix = read_matrix(folder)
    weights = (0.0, *wanted.weights)
    try:
        free, *problems = (matrix.problem(w, wanted.cost, wanted.missing) for w in weights)
    except ValueError as error:
        raise UserError(f"{folder}: {error}") from None
    columns = {
        # A learner that cannot work on a task has no accuracy there.
        "accuracy": np.nanmean(free.mean, 0),
        "passes": matrix.passes.mean(0),
        "seconds": np.nanmean(matrix.seconds, 0),
        "best": _best(free),
    }
    about = pq.read_schema(folder / CELLS).metadata or {}
    return matrix, {
        "matrix": folder.resolve().name,
        "tasks": len(matrix.tasks),
        "sources": len(set(matrix.sources)),
        "cost": wanted.cost,
        "missing": wanted.missing,
        "single": free.learners[free.single_best],
        "learners": [
            {"learner": name} | {key: column[at].item() for key, column in columns.items()}
            for at, name in enumerate(matrix.learners)
        ],
        "bounds": [
            {"weight": weight, **_bounds(problem)}
            for weight, problem in zip(wanted.weights, problems, strict=True)
        ],
        "environment": json.loads(about.get(b"environment", b"{}")),
    }


def _bounds(problem: Problem) -> Record:
    interval, above = gap(problem)
    single = problem.single_best
    return {
        "single": problem.learners[single],
        "single_utility": problem.mean[:, single].mean().item(),
        "virtual_utility": problem.virtual_best().mean().item(),
        "gap": interval.as_dict(),
        "above": sorted(above.round(5).tolist(), reverse=True),
        "best": dict(zip(problem.learners, _best(problem).tolist(), strict=True)),
    }


def _best(problem: Problem) -> np.ndarray:
    """On how many tasks each learner is the best on all queries; of equal ones the cheapest."""
    best = np.where(problem.able, problem.mean, -np.inf).argmax(1)
    return np.bincount(best, minlength=len(problem.learners))


def gap(problem: Problem) -> tuple[Interval, np.ndarray]:
    """The virtual best above the single best: over sources, and for each task `[T]`.

    Example:
        >>> utilities = np.array([[[0.9, 0.5], [0.4, 0.8], [0.9, 0.5]]] * 2)
        >>> problem = Problem(
        ...     ("a", "b", "c"), ("s", "t", "u"), ("one", "two"), (), np.zeros((3, 0)), utilities,
        ...     np.ones((3, 2)),
        ... )
        >>> gap(problem)[1].round(2)
        array([0. , 0.4, 0. ])
    """
    # gap = VBS - u_SBS of every task; then the mean over sources of their tasks
    above = problem.virtual_best() - problem.mean[:, problem.single_best]
    source = np.array(problem.sources)
    groups = [above[source == name] for name in sorted(set(problem.sources))]
    return bootstrap(groups), above


def cells(found: Record) -> list[list[str]]:
    """The learners as text, the best first; accuracy in percent."""
    ordered = sorted(found["learners"], key=lambda row: -row["accuracy"])
    return [
        [
            row["learner"],
            f"{100 * row['accuracy']:.1f}",
            f"{row['passes']:.2f}",
            f"{row['seconds']:.2f}",
            str(row["best"]),
        ]
        for row in ordered
    ]


def bounds(found: Record) -> list[str]:
    """A line a lambda: single and virtual best, and the gap between them."""
    unit = {"passes": "pass", "seconds": "second"}[found["cost"]]
    lines = []
    for row in found["bounds"]:
        mean, low, high = (f"{100 * row['gap'][end]:.2f}" for end in ("mean", "low", "high"))
        lines.append(
            f"lambda {row['weight']:g} a {unit}: "
            f"SBS {row['single']} {100 * row['single_utility']:.1f}, "
            f"VBS {100 * row['virtual_utility']:.1f}; gap over sources {mean} [{low}, {high}], "
            f"over tasks {100 * np.mean(row['above']):.2f}"
        )
    return lines


def markdown(found: Record) -> str:
    """The table of the learners and what it stands on, as the README shows them."""
    revision = (found["environment"].get("git") or {}).get("revision") or "unknown"
    parts = [
        f"{found['tasks']} tasks of {found['sources']} sources",
        *bounds(found),
        f"revision {revision[:9]}",
    ]
    if found["missing"] != "refuse":
        parts.insert(1, "cells that were not measured marginalized")
    return f"{joined([list(HEADERS), *cells(found)])}\n{'; '.join(parts)}.\n"
