"""A problem as one parquet table: a row a task, and a column a number."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from experiments.errors import UserError
from experiments.files import write_bytes
from metalearn.selection.problem import Problem


def write_problem(path: Path, problem: Problem) -> None:
    """Write a problem without its readings; names and their order are in the file's metadata."""
    columns = {"task": list(problem.tasks), "source": list(problem.sources)}
    groups = {"feature": (problem.feature_names, problem.features)}
    for part, utilities in enumerate(problem.utilities):
        groups[f"utility.{part}"] = (problem.learners, utilities)
    groups["cost"] = (problem.learners, problem.costs)
    if problem.tries is not None:
        groups["try"] = (problem.learners, problem.tries)
    for group, (names, values) in groups.items():
        columns |= {f"{group}.{name}": values[:, place] for place, name in enumerate(names)}
    about = {
        "learners": list(problem.learners),
        "features": list(problem.feature_names),
        "parts": len(problem.utilities),
        "tries": problem.tries is not None,
        "price": problem.price,
    }
    sink = pa.BufferOutputStream()
    table = pa.table(columns).replace_schema_metadata({"problem": json.dumps(about)})
    pq.write_table(table, sink)
    write_bytes(path, sink.getvalue().to_pybytes())


def read_problem(path: Path) -> Problem:
    """Read a problem.

    Raises:
        UserError: If there is none, or it is damaged.
    """
    try:
        table = pq.read_table(path)
        about = json.loads((table.schema.metadata or {})[b"problem"])

        def grid(group: str, names: list[str]) -> np.ndarray:
            columns = [table.column(f"{group}.{name}").to_numpy() for name in names]
            return np.stack(columns, 1) if columns else np.zeros((len(table), 0))

        learners = about["learners"]
        return Problem(
            tuple(table.column("task").to_pylist()),
            tuple(table.column("source").to_pylist()),
            tuple(learners),
            tuple(about["features"]),
            grid("feature", about["features"]),
            np.stack([grid(f"utility.{part}", learners) for part in range(about["parts"])]),
            grid("cost", learners),
            grid("try", learners) if about["tries"] else None,
            price=about["price"],
        )
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path} is damaged ({reason}); fit the policy again") from None
