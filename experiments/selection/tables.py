"""The matrix on disk: three tables, from the records of the tasks, and back."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from experiments.errors import UserError
from experiments.files import write_bytes
from metalearn.selection.matrix import Matrix

CELLS, PREDICTIONS, TASKS = "matrix.parquet", "predictions.parquet", "tasks.parquet"
PARTS = 2  # halves of the queries


def store(folder: Path, records: Sequence[dict[str, Any]]) -> Path:
    """Write the tables of some judged tasks.

    Args:
        folder: The matrix's folder, with its settings.
        records: What was measured on each task.

    Returns:
        The table of cells.
    """
    about = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
    learners = list(about["wanted"]["learners"])
    cells, queries, tasks = [], [], []
    for record in records:
        one = {name: record[name] for name in ("task", "source", "seed")}
        seconds = {f"seconds.{name}": value for name, value in record["feature_seconds"].items()}
        tasks.append(one | record["features"] | seconds)
        for number, drawn in enumerate(record["sets"]):
            where = {"task": record["task"], "set": number}
            cells += [_cell(record, name, number) | where for name in learners]
            said = {n: _said(record["learners"][n], number, len(drawn["label"])) for n in learners}
            rows = {name: drawn[name] for name in ("example", "label", "part")} | said
            queries += [
                where | dict(zip(rows, row, strict=True))
                for row in zip(*rows.values(), strict=True)
            ]
    for name, rows in ((CELLS, cells), (PREDICTIONS, queries), (TASKS, tasks)):
        table = pa.Table.from_pylist(rows)
        metadata = {part: json.dumps(value) for part, value in about.items()}
        sink = pa.BufferOutputStream()
        pq.write_table(table.replace_schema_metadata(metadata), sink)
        write_bytes(folder / name, sink.getvalue().to_pybytes())
    return folder / CELLS


def _cell(record: dict[str, Any], learner: str, number: int) -> dict[str, Any]:
    found = record["learners"][learner]
    able, drawn = found["unable"] is None, record["sets"][number]
    cell = {"learner": learner, "passes": found["passes"], "unable": found["unable"]}
    cell["seconds"] = found["seconds"][number] if able else None
    # The score on the support is measured for the first one, which stands for a user's own.
    cell["try"] = found["try"] if able and not number else None
    part, label = np.array(drawn["part"]), np.array(drawn["label"])
    right = np.array(found["predictions"][number]) == label if able else np.zeros(len(label))
    for half in range(PARTS):
        cell[f"right_{half}"] = int(right[part == half].sum()) if able else None
        cell[f"queries_{half}"] = int((part == half).sum())
    return cell


def _said(found: dict[str, Any], number: int, count: int) -> list[int | None]:
    return found["predictions"][number] if found["unable"] is None else [None] * count


def read_matrix(folder: Path) -> Matrix:
    """The matrix of a folder.

    Raises:
        UserError: If it has none, or a table of it is damaged.
    """
    make = f"make it with metalearn select matrix --output {folder}"
    if not (folder / CELLS).exists() or not (folder / TASKS).exists():
        raise UserError(f"{folder} holds no matrix; {make}")
    try:
        return _matrix(pq.read_table(folder / CELLS), pq.read_table(folder / TASKS))
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"the matrix of {folder} is damaged ({reason}); {make}") from None


def _matrix(table: pa.Table, about: pa.Table) -> Matrix:
    cells = table.to_pandas()
    tasks = about.column("task").to_pylist()
    features = [name for name in about.column_names if "." in name and name[:8] != "seconds."]
    passes = cells.groupby("learner")["passes"].max()
    order = {name: place for place, name in enumerate(cells["learner"].unique())}
    learners = sorted(order, key=lambda name: (passes[name], order[name]))
    grouped = cells.groupby(["task", "learner"], sort=False)

    def grid(column: str, how: str) -> np.ndarray:
        values = grouped[column].agg(how).unstack()
        return values.reindex(index=tasks, columns=learners).to_numpy(np.float64)

    with np.errstate(invalid="ignore"):
        accuracy = [grid(f"right_{h}", "sum") / grid(f"queries_{h}", "sum") for h in range(PARTS)]
    unable = np.nan_to_num(grid("unable", "count")) > 0
    return Matrix(
        tuple(tasks),
        tuple(about.column("source").to_pylist()),
        tuple(learners),
        np.where(unable, np.nan, np.stack(accuracy)),
        grid("passes", "max"),
        grid("seconds", "mean"),
        grid("try", "max"),
        unable,
        tuple(features),
        np.stack([about.column(name).to_numpy() for name in features], 1),
    )
