"""A judged run, read: the final score of every learner on every test task, and which tasks.

Reads `scores.parquet` and `predictions.parquet` of a finished run folder (`metalearn train` or
`metalearn evaluate`); no model is loaded.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from experiments.errors import UserError
from experiments.files import read_json
from experiments.folder import CONFIG, ENVIRONMENT, flatten

RESULT = "result.json"
SCORES = "scores.parquet"
PREDICTIONS = "predictions.parquet"
METRICS = ("accuracy", "macro_f1", "loss")
Place = tuple[str, int]
"""Fold (with its family, where there are several) and seed."""
Task = tuple[str, int, int]
"""Fold, shots and number of the episode."""


class JudgedRun:
    """What a finished run says about test tasks.

    Args:
        path: Its folder.

    Attributes:
        path: The folder.
        name: Its name.
        settings: `config.json` under dotted names.
        environment: `environment.json` under dotted names.
        result: `result.json`.

    Raises:
        UserError: If it is no run folder, or the run is not finished.
    """

    def __init__(self, path: Path) -> None:
        if not (path / CONFIG).exists():
            raise UserError(f"{path} is no run folder (it has no {CONFIG}); see runs/")
        self.path = path
        self.name = path.resolve().name
        self.settings = flatten(read_json(path / CONFIG))
        self.environment = flatten(read_json(path / ENVIRONMENT))
        for name in (RESULT, SCORES):
            if not (path / name).exists():
                raise UserError(
                    f"run {path} is not finished (it has no {name}); "
                    f"finish it with metalearn train {self.settings['name']} --resume {path}"
                )
        self.result: dict[str, Any] = read_json(path / RESULT)

    @property
    def learners(self) -> list[str]:
        """Its learners, in the order of its table."""
        return list(dict.fromkeys(row["learner"] for row in self.result["rows"]))

    @property
    def shots(self) -> list[int]:
        """The numbers of shots K that it judged, ascending."""
        return sorted({row["shots"] for row in self.result["rows"]})

    @property
    def metric(self) -> str:
        """What its learners are judged by: accuracy, or the loss where tasks hold numbers."""
        return "accuracy" if any("accuracy" in row for row in self.result["rows"]) else "loss"

    def row(self, learner: str, shots: int) -> dict[str, Any]:
        """The row of its table for a learner and a number of shots."""
        rows = self.result["rows"]
        return next(r for r in rows if (r["learner"], r["shots"]) == (learner, shots))

    def scores(self, learner: str, shots: int, metric: str) -> dict[Place, dict[int, float]]:
        """Query scores after the last step, by fold and seed, then by number of the episode."""
        wanted = [("learner", "==", learner), ("shots", "==", shots), ("split", "==", "query")]
        columns = ["fold", "seed", "episode", "step", metric]
        table = _read(self.path / SCORES, columns, wanted)
        found: dict[Place, dict[int, float]] = {}
        # Of a task the last step stays: it is read last.
        for row in table.sort_by("step").to_pylist():
            place = found.setdefault((row["fold"], row["seed"]), {})
            place[row["episode"]] = row[metric]
        return found

    @cached_property
    def tasks(self) -> dict[Task, frozenset[tuple[str, int, str]]]:
        """The records of every test task: split, number and label; empty where labels are values.

        All learners of a run are judged on the same tasks: those of the first one are read.
        """
        path = self.path / PREDICTIONS
        if not path.exists():
            return {}
        columns = ["fold", "seed", "shots", "episode", "split", "example", "label"]
        wanted = [("learner", "==", self.learners[0]), ("step", "==", 0)]
        table = _read(path, columns, wanted)
        seeds = table["seed"].unique().to_pylist()
        table = table.filter(pc.field("seed") == min(seeds, default=0))
        records: dict[Task, set[tuple[str, int, str]]] = {}
        for row in table.to_pylist():
            task = (row["fold"], row["shots"], row["episode"])
            records.setdefault(task, set()).add((row["split"], row["example"], row["label"]))
        return {task: frozenset(content) for task, content in records.items()}


def _read(path: Path, columns: list[str], wanted: list[tuple[str, str, Any]]) -> pa.Table:
    """Some columns of some rows; of several families each fold has the family in its name."""
    families = "family" in pq.read_schema(path).names
    names = [*columns, "family"] if families else columns
    table = pq.read_table(path, columns=names, filters=wanted)
    folds = [fold or "" for fold in table["fold"].to_pylist()]
    if families and len(table["family"].unique()) > 1:
        several = zip(table["family"].to_pylist(), folds, strict=True)
        folds = [f"{family} {fold}".strip() for family, fold in several]
    place = table.schema.get_field_index("fold")
    return table.set_column(place, "fold", pa.array(folds, pa.string()))
