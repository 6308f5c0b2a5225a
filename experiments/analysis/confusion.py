"""Which classes a learner takes for which, by name, over all tasks in which it could.

    share(c, d) = examples of c called d / examples of c in tasks that offer d

A task offers few classes, so how often c is called d depends first on how often both are in one
task; the share does not.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from experiments.analysis.drawing import canvas
from experiments.analysis.predictions import CELL, TRAINED, cells, final_predictions, where
from experiments.errors import UserError

SHOWN = 24
"""Classes that a figure has room for."""


def confusion_table(predictions: pd.DataFrame) -> pd.DataFrame:
    """Counts and shares of each pair of classes, over all tasks, folds and seeds.

    Args:
        predictions: See `final_predictions`.

    Returns:
        Columns family, learner, shots, label, prediction, count, offered (examples of the label in
        tasks that have the class of the prediction), share; pairs that never occurred are left out.
    """
    names = sorted(set(predictions["label"].unique()) | set(predictions["prediction"].unique()))
    index = {name: number for number, name in enumerate(names)}
    rows = []
    for cell, here in cells(predictions, CELL):
        counts = np.zeros((len(names), len(names)), dtype=np.int64)
        offered = np.zeros_like(counts)
        for _, one in cells(here, TRAINED):
            true, said = (
                np.array([index[name] for name in one[part]]) for part in ("label", "prediction")
            )
            np.add.at(counts, (true, said), 1)
            episode = one["episode"].to_numpy()
            members = np.zeros((episode.max() + 1, len(names)), dtype=np.int64)
            np.add.at(members, (episode, true), 1)
            there = members > 0
            there[episode, said] = True  # a tag may be called that no word of the query has
            offered += members.T @ there
        for c, d in zip(*np.nonzero(counts), strict=True):
            pair = {"label": names[c], "prediction": names[d], "count": int(counts[c, d])}
            whole = {"offered": int(offered[c, d]), "share": counts[c, d] / offered[c, d]}
            rows.append({**dict(zip(CELL, cell, strict=True)), **pair, **whole})
    columns = [*CELL, "label", "prediction", "count", "offered", "share"]
    return pd.DataFrame(rows, columns=pd.Index(columns))


def confusion_figure(
    run: Path | pd.DataFrame, title: str, learner: str, shots: int, family: str = ""
) -> Figure:
    """The shares as a matrix; of many classes those with the most mistakes.

    Args:
        run: A finished run folder, or its `confusion_table`.
        title: Title of the figure.
        learner: Which learner.
        shots: Which number of shots.
        family: Which family; empty: the first one.

    Raises:
        UserError: If the run has no such learner or number of shots.
    """
    table = confusion_table(final_predictions(run)) if isinstance(run, Path) else run
    family = family or table["family"].iloc[0]
    here = where(table, family=family, learner=learner, shots=shots)
    if here.empty:
        raise UserError(f"no predictions of {learner}, {shots}-shot, on {family}")
    matrix = here.pivot(index="label", columns="prediction", values="share")
    names = sorted(set(matrix.index) | set(matrix.columns))
    matrix = matrix.reindex(index=names, columns=names).fillna(0.0)
    wrong = matrix.where(~np.eye(len(names), dtype=bool), 0.0)
    blame = (wrong.sum(axis=0) + wrong.sum(axis=1)).sort_values(ascending=False, kind="stable")
    shown = sorted(blame.index[:SHOWN])
    part = 100 * matrix.loc[shown, shown].to_numpy()
    note = (
        "Share of the examples of a row, in %, that were called a column where the task had both."
    )
    if len(names) > SHOWN:
        note += f"\nThe {SHOWN} of {len(names)} classes with the most mistakes."
    side = 2.2 + 0.36 * len(shown)
    figure = canvas(side + 1.5, side, f"{title}: {learner}, {shots}-shot", note)
    axes = figure.subplots()
    image = axes.imshow(part, cmap="Blues", vmin=0, vmax=100)
    for (row, column), value in np.ndenumerate(part):
        if value >= 0.5:
            color = "white" if value > 55 else "black"
            axes.text(
                column, row, f"{value:.0f}", ha="center", va="center", fontsize=7, color=color
            )
    axes.set_xticks(range(len(shown)), shown, rotation=60, ha="right", fontsize=8)
    axes.set_yticks(range(len(shown)), shown, fontsize=8)
    axes.set_xlabel("called")
    axes.set_ylabel("is")
    figure.colorbar(image, ax=axes, shrink=0.7, label="%")
    return figure
