"""Calibration of the learners of a run: the error, the bins, and the reliability figure."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from experiments.analysis.drawing import canvas, lines, panel_grid
from experiments.analysis.predictions import CELL, cells, final_predictions, where
from metalearn.calibration import Reliability, reliability

BINS = 15
LEAST = 0.005
"""Share of the examples below which a bin of the figure would show noise."""


def calibration_error(predictions: pd.DataFrame, bins: int = BINS) -> pd.DataFrame:
    """Expected calibration error (Guo et al. 2017) of each family, learner and number of shots.

        ECE = sum_b n_b / n |acc(b) - conf(b)|      over bins of equal width

    Args:
        predictions: See `final_predictions`; the query examples of all tasks are pooled.
        bins: Number of bins.

    Returns:
        Columns family, learner, shots, ece.
    """
    rows = [
        {**dict(zip(CELL, cell, strict=True)), "ece": found.ece}
        for cell, found in _binned(predictions, bins)
    ]
    return pd.DataFrame(rows, columns=pd.Index([*CELL, "ece"]))


def reliability_table(predictions: pd.DataFrame, bins: int = BINS) -> pd.DataFrame:
    """What the error is made of: one row a family, learner, number of shots and bin with examples.

    Args:
        predictions: See `final_predictions`.
        bins: Number of bins.

    Returns:
        Columns family, learner, shots, low, high (edges of the bin), count, confidence, accuracy.
    """
    rows = []
    for cell, found in _binned(predictions, bins):
        for number in range(bins):
            if found.counts[number]:
                rows.append(
                    {
                        **dict(zip(CELL, cell, strict=True)),
                        "low": found.edges[number],
                        "high": found.edges[number + 1],
                        "count": int(found.counts[number]),
                        "confidence": found.confidence[number],
                        "accuracy": found.accuracy[number],
                    }
                )
    columns = [*CELL, "low", "high", "count", "confidence", "accuracy"]
    return pd.DataFrame(rows, columns=pd.Index(columns))


def _binned(predictions: pd.DataFrame, bins: int) -> Iterator[tuple[Any, Reliability]]:
    for cell, here in cells(predictions, CELL):
        correct = here["label"].astype(str) == here["prediction"].astype(str)
        yield cell, reliability(here["probability"].to_numpy(), correct.to_numpy(), bins)


def reliability_figure(run: Path | pd.DataFrame, title: str, family: str = "") -> Figure:
    """Accuracy over probability, a panel a number of shots; on the diagonal it is calibrated.

    Args:
        run: A finished run folder, or its `final_predictions`.
        title: Title of the figure.
        family: Which family; empty: the first one.

    Returns:
        The figure; the legend says the calibration error of each learner, in %.
    """
    predictions = final_predictions(run) if isinstance(run, Path) else run
    here = where(predictions, family=family or predictions["family"].iloc[0])
    table = calibration_error(here)
    places = zip(table["learner"], table["shots"], strict=True)
    errors = dict(zip(places, table["ece"], strict=True))
    bins = reliability_table(here)
    all_shots, learners = sorted(here["shots"].unique()), list(here["learner"].unique())
    note = (
        f"Query examples of all tasks in {BINS} bins of equal width; size: share of examples "
        f"(bins with less than {100 * LEAST:g}% are left out).\nThe legend: calibration error in %."
    )
    figure = canvas(4.3 * len(all_shots) + 2.6, 4.4, title, note)
    for shots, axes in zip(all_shots, panel_grid(figure, len(all_shots)), strict=True):
        axes.plot([0, 100], [0, 100], color="#999999", lw=1, ls=":")
        shown = where(bins, shots=shots)
        best = sorted(shown["learner"].unique(), key=lambda name: errors[name, shots])
        with lines(axes, learners, f"{shots}-shot", "probability (%)", "accuracy (%)") as draw:
            for name in best:
                one = where(shown, learner=name)
                one = where(one.assign(seen=one["count"] >= LEAST * one["count"].sum()), seen=True)
                sizes = 4 + 90 * one["count"] / one["count"].sum()
                label = f"{name}  {100 * errors[name, shots]:.1f}"
                draw(name, label, 100 * one["confidence"], 100 * one["accuracy"], sizes)
        axes.set_xlim(0, 101)
        axes.set_ylim(0, 101)
    return figure
