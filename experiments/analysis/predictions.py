"""The predictions and scores of a finished run, as pandas frames."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pandas as pd
import pyarrow.parquet as pq

from experiments.errors import UserError
from experiments.folder import load_experiment

CELL = ["family", "learner", "shots"]
"""What a row of a table is about."""
TRAINED = [*CELL, "fold", "seed"]
"""What was judged at once."""
WORDS = ("family", "learner", "fold", "split", "label", "prediction")


def final_predictions(run: Path) -> pd.DataFrame:
    """The query predictions after the last step, one row an example of a task.

    Args:
        run: A finished run folder.

    Returns:
        Columns family, learner, shots, fold, seed, episode, example, label, prediction,
        probability; empty where tasks hold numbers.

    Raises:
        UserError: If the run is not finished.
    """
    return _final(run, "predictions.parquet")


def final_scores(run: Path) -> pd.DataFrame:
    """The query scores after the last step, one row a task.

    Args:
        run: A finished run folder.

    Returns:
        Columns family, learner, shots, fold, seed, episode, loss, accuracy, macro_f1.

    Raises:
        UserError: If the run is not finished.
    """
    return _final(run, "scores.parquet")


def cells(frame: pd.DataFrame, by: list[str]) -> Iterator[tuple[Any, pd.DataFrame]]:
    """The rows of each combination of values, in the order in which these first appear."""
    for values, rows in frame.groupby(by, observed=True, sort=False):
        yield values, cast(pd.DataFrame, rows)


def where(frame: pd.DataFrame, **values: Any) -> pd.DataFrame:
    """The rows that have these values.

    Example:
        >>> where(pd.DataFrame({"shots": [1, 5], "ece": [0.2, 0.1]}), shots=5)["ece"].tolist()
        [0.1]
    """
    for name, value in values.items():
        frame = cast(pd.DataFrame, frame[frame[name] == value])
    return frame


def _final(run: Path, name: str) -> pd.DataFrame:
    if not (run / "scores.parquet").exists():
        raise UserError(f"{run} has no scores.parquet; finish the run with --resume")
    if not (run / name).exists():
        return pd.DataFrame(columns=pd.Index([*TRAINED, "episode"]))
    # Words as dictionaries: there are millions of rows and few words.
    words = [word for word in WORDS if word in pq.read_schema(run / name).names]
    table = pq.read_table(run / name, filters=[("split", "=", "query")], read_dictionary=words)
    frame: pd.DataFrame = table.to_pandas()
    if "family" not in frame:  # of a run before there could be several
        frame.insert(0, "family", load_experiment(run).family.name)
    last = frame.groupby(TRAINED, observed=True)["step"].transform("max")
    frame = cast(pd.DataFrame, frame[frame["step"] == last])
    return frame.drop(columns=["split", "step"]).reset_index(drop=True)
