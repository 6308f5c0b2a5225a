"""The tidy tables of a finished run, as parquet and CSV.

    table       one row a family, learner and number of shots: scores with intervals, ECE, costs
    pairs       one row a pair of learners: their paired difference over tasks
    confusion   one row a pair of classes: how often one was taken for the other

One row a task are `scores.parquet`, one row an example `predictions.parquet`.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pandas as pd

from experiments.analysis.calibration import calibration_error
from experiments.analysis.comparisons import pairwise
from experiments.analysis.confusion import confusion_table
from experiments.analysis.curves import COSTS
from experiments.analysis.predictions import CELL, final_predictions, final_scores
from experiments.files import write_bytes

SCORES = ("accuracy", "macro_f1", "loss")


def result_table(result: dict[str, Any], predictions: pd.DataFrame | None = None) -> pd.DataFrame:
    """One row a family, learner and number of shots.

    Args:
        result: Content of a `result.json`.
        predictions: See `experiments.analysis.predictions.final_predictions`; None: no calibration.

    Returns:
        Columns family, learner, shots, step, tasks, folds, seeds; accuracy, macro_f1 and loss (a
        share, not %), each with `_low` and `_high` of its 95% interval; ece; passes (forward and
        backward, over the support set), adapt_flops (operations), adapt_bytes,
        adapt_seconds_per_task, train_seconds.  What a run does not know is missing (NaN).

    Example:
        >>> row = {"family": "f", "learner": "maml", "shots": 1, "passes": 6.0}
        >>> row["accuracy"] = {"mean": 0.5, "low": 0.4, "high": 0.6}
        >>> result_table({"rows": [row]})[["learner", "accuracy_low", "passes"]].values.tolist()
        [['maml', 0.4, 6.0]]
    """
    rows = []
    for row in result["rows"]:
        flat = {name: row.get(name) for name in (*CELL, "step", "tasks", "folds", "seeds")}
        for name in SCORES:
            interval = row.get(name) or {}
            ends = (("", "mean"), ("_low", "low"), ("_high", "high"))
            flat |= {f"{name}{end}": interval.get(part) for end, part in ends}
        flat["ece"] = None
        flat |= {name: row.get(name) for name in (*COSTS, "train_seconds")}
        rows.append(flat)
    table = pd.DataFrame(rows)
    if predictions is not None and len(predictions):
        errors = calibration_error(predictions)
        errors["learner"] = errors["learner"].astype(str)
        errors["family"] = errors["family"].astype(str)
        table = table.drop(columns="ece").merge(errors, on=CELL, how="left")
    order = [name for name in table if name not in (*COSTS, "train_seconds", "ece")]
    return table.reindex(columns=[*order, "ece", *COSTS, "train_seconds"])


def write_tables(run: Path, result: dict[str, Any]) -> list[Path]:
    """Write `table`, `pairs` and `confusion` into a run folder, each as parquet and as CSV.

    Args:
        run: A run folder with `scores.parquet`.
        result: What its `result.json` holds, or will.

    Returns:
        The files.
    """
    predictions = final_predictions(run)
    resamples = result["settings"]["evaluation"]["resamples"]
    tables = {
        "table": result_table(result, predictions),
        "pairs": pairwise(final_scores(run), resamples),
    }
    if len(predictions):
        tables["confusion"] = confusion_table(predictions)
    files = []
    for name, table in tables.items():
        content = io.BytesIO()
        table.to_parquet(content, index=False)
        files += [run / f"{name}.parquet", run / f"{name}.csv"]
        write_bytes(files[-2], content.getvalue())
        write_bytes(files[-1], table.to_csv(index=False).encode())
    return files
