"""`metalearn select matrix`: every learner of the portfolio on every task.

    train    the members that are meta-trained, on a data set of their own
    judge    a task at a time: all members on the same episodes, one file a task
    store    the files of all tasks as three tables

A killed run goes on with the first task that has no file; a task is a function of the plan and of
the trained members alone, so that nobody can tell from the tables, but for seconds.

`matrix.parquet` has a row a task, support set and learner; `predictions.parquet` a row a query with
a column a learner; `tasks.parquet` a row a task with its features.  Each carries the settings and
the versions and revision that it was made with, in its metadata.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from experiments.errors import UserError
from experiments.files import read_json, write_json
from experiments.folder import environment
from experiments.selection import portfolio, sources
from experiments.selection.bench import Bench
from experiments.selection.sources import Planned
from experiments.selection.tables import store
from experiments.workers import pool

SETTINGS = "settings.json"
FOLDS = 3  # of the cross-validation on a support set


def tasks_of(folder: Path, plan: Path | None = None) -> list[Planned]:
    """The tasks of a matrix.

    Args:
        folder: Of the matrix; one that is begun has its own.
        plan: JSON file of tasks; None: those of the folder, or those of all sources at hand.

    Raises:
        UserError: If there is no such file, or it holds something else.
        TaskError: If data are missing.
    """
    if plan is not None:
        if not plan.is_file():
            raise UserError(f"--plan {plan} is no file")
        tasks = read_json(plan)
    elif (folder / SETTINGS).exists():
        tasks = read_json(folder / SETTINGS)["wanted"]["tasks"]
    else:
        return sources.plan()
    try:
        return TypeAdapter(list[Planned]).validate_python(tasks)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "its root"
        raise UserError(f"{plan or folder / SETTINGS}: {place}: {first['msg'].lower()}") from None


def compute(
    folder: Path,
    planned: Sequence[Planned],
    learners: tuple[str, ...] = tuple(portfolio.ENTRIES),
    workers: int = 1,
    trained: Path | None = None,
) -> Path:
    """Compute a matrix, or what is left of it.

    Args:
        folder: Where it is kept; one that holds another matrix is refused.
        planned: The tasks.
        learners: Members of the portfolio.
        workers: Processes that share the tasks, of one thread each.
        trained: Run folder of the trained members; None: `trained` in the folder.

    Raises:
        UserError: If there is no such member, one was trained on a source of the plan, or the
            folder holds another matrix.
    """
    wanted = _settings(planned, learners)
    _refuse_trained(planned, learners)
    folder.mkdir(parents=True, exist_ok=True)
    known = read_json(folder / SETTINGS) if (folder / SETTINGS).exists() else None
    if known is not None and known["wanted"] != wanted:
        differing = next(name for name in wanted if known["wanted"].get(name) != wanted[name])
        raise UserError(f"{folder} holds a matrix with other {differing}; choose another --output")
    if known is None:
        write_json(folder / SETTINGS, {"wanted": wanted, "environment": environment()})
    place = trained or folder / "trained"
    if any(portfolio.ENTRIES[name].trained for name in learners):
        portfolio.train(place)
    cells = folder / "cells"
    cells.mkdir(exist_ok=True)
    left = [task for task in planned if not (cells / f"{task.name}.json").exists()]
    began = time.perf_counter()
    for number, name in enumerate(_judged(left, learners, place, cells, workers), 1):
        minutes = (time.perf_counter() - began) / 60
        print(f"{number}/{len(left)} {name}, {minutes:.1f} min", flush=True)
    return store(folder, [read_json(cells / f"{task.name}.json") for task in planned])


def _judged(
    left: Sequence[Planned], learners: tuple[str, ...], trained: Path, cells: Path, workers: int
) -> Iterator[str]:
    """Names of the tasks, once their files are written."""
    if workers == 1 or len(left) < 2:
        _begin(learners, trained, cells.parent)
        yield from (_finish(task, cells) for task in left)
        return
    with pool(min(workers, len(left)), _begin, learners, trained, cells.parent) as shared:
        yield from shared.map(_finish, left, [cells] * len(left))


_bench: Bench | None = None
"""Of this process: models are loaded once."""


def _begin(learners: tuple[str, ...], trained: Path, folder: Path) -> None:
    import torch

    global _bench
    torch.set_num_threads(1)
    _bench = Bench(learners, trained, folder)


def _finish(task: Planned, cells: Path) -> str:
    assert _bench is not None
    cell = cells / f"{task.name}.json"
    if not cell.exists():  # another process at the same matrix may have been there by now
        write_json(cell, _bench.judge(task, FOLDS))
    return task.name


def _settings(planned: Sequence[Planned], learners: Sequence[str]) -> dict[str, Any]:
    """All that the numbers depend on, besides versions."""
    names = [task.name for task in planned]
    twice = [name for name in names if names.count(name) > 1]
    if twice or not names:
        raise UserError(f"two tasks are named {twice[0]}" if twice else "the plan has no tasks")
    return {
        "tasks": [task.model_dump(mode="json") for task in planned],
        "learners": {name: portfolio.described(name) for name in learners},
        "folds": FOLDS,
    }


def _refuse_trained(planned: Sequence[Planned], learners: Sequence[str]) -> None:
    """Before anything is trained; the built portfolio says the same of its members."""
    for name in learners:
        known = set(portfolio.trained_on(portfolio.ENTRIES[name])) & set(sources.names(planned))
        if known:
            raise UserError(
                f"learner {name} was meta-trained on {min(known)}, which is among the sources of "
                "the plan; leave out one of them"
            )
