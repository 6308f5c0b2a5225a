"""What a policy reads that looks at examples: their embeddings by the plain backbone.

Those of the first support set of every task of a matrix, from which its features and tries are too,
are made when they are asked for and kept beside it, `NAME.embeddings` `[I, D]` and `NAME.labels`
`[I]` of each task; what a killed run has kept is not made again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from experiments.build import Workshop, seeded
from experiments.errors import UserError
from experiments.files import read_json, write_bytes
from experiments.progress import Progress
from experiments.selection import portfolio, sources
from experiments.selection.policies import row_named
from experiments.selection.sources import Planned
from metalearn.selection.problem import Problem
from metalearn.selection.readings import Readings
from tasks.episode import Batch

READINGS = "readings.safetensors"
EVERY = 20
"""Tasks after which what was read is kept."""


def told(problem: Problem, policy: str, matrix: Path) -> Problem:
    """The problem of a matrix with all that a policy looks at.

    Args:
        problem: Its problem.
        policy: Name of the policy; readings are made for one that looks at examples.
        matrix: Folder of the matrix.

    Raises:
        UserError: If there is no such policy, or the readings that are kept are damaged.
        TaskError: If readings have to be made and a data set is missing.
    """
    if row_named(policy).looks != "examples":
        return problem
    return replace(problem, readings=readings_of(matrix, problem.tasks))


def readings_of(matrix: Path, tasks: Sequence[str]) -> Readings:
    """Readings of tasks of a matrix, in this order; what is not kept is made and kept.

    Raises:
        UserError: If what is kept is damaged.
        TaskError: If some have to be made and a data set is missing.
    """
    path = matrix / READINGS
    found = _kept(path)
    about = read_json(matrix / "settings.json")["wanted"]["tasks"]
    planned = {task["name"]: Planned.model_validate(task) for task in about}
    wanted = [planned[name] for name in tasks if f"{name}.labels" not in found]
    if wanted:
        base = Workshop(portfolio.TRAINED)
        with Progress(len(wanted), "tasks read") as progress:
            for number, task in enumerate(wanted, 1):
                support = base.collator.collate([sources.draw(task, 0)], [0]).support
                embeddings, labels = read(base, support)
                found |= {f"{task.name}.embeddings": embeddings, f"{task.name}.labels": labels}
                if number % EVERY == 0 or number == len(wanted):
                    write_bytes(path, save(found))
                progress.update(number, {})
    return Readings.of(
        [found[f"{name}.embeddings"] for name in tasks],
        [found[f"{name}.labels"].tolist() for name in tasks],
    )


def read(base: Workshop, support: Batch) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings `[I, D]` and classes `[I]` of the support set of one task.

    Args:
        base: Objects with the settings of the portfolio's trained learners.
        support: The examples.
    """
    store = base.frozen_features
    assert support.labels is not None
    embeddings = store.features(store.model.init(seeded(0)), support)[0]
    return embeddings.cpu().numpy().astype(np.float32), support.labels[0].cpu().numpy()


def _kept(path: Path) -> dict[str, np.ndarray]:
    if not path.exists():
        return {}
    try:
        return load(path.read_bytes())
    except SafetensorError:
        raise UserError(f"{path} is damaged; remove it, and it is made again") from None
