"""Learners of a run against each other, over the tasks that they have all met."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from experiments.analysis.predictions import cells, final_scores, where
from metalearn.ranking import rank_learners
from metalearn.statistics import paired

COLUMNS = (
    *("family", "shots", "learner", "other", "metric", "difference", "low", "high"),
    *("better", "equal", "worse", "tasks"),
)


def pairwise(run: Path | pd.DataFrame, resamples: int = 2000) -> pd.DataFrame:
    """Every two learners by the paired bootstrap over the tasks of a family.

    Folds are drawn first, then the trainings of each and its tasks (`metalearn.statistics`).

    Args:
        run: A finished run folder, or its `final_scores`.
        resamples: Bootstrap resamples.

    Returns:
        Columns family, shots, learner, other, metric (accuracy; loss where tasks hold numbers),
        `difference` of learner minus other with its 95% interval `low`, `high`, the shares of tasks
        on which the learner is better, equal and worse, and the number of tasks.
    """
    rows = []
    for family, shots, metric, scores in _common(run):
        for one, other in combinations(scores, 2):
            ours, theirs = scores[one], scores[other]
            interval = paired(ours, theirs, resamples=resamples)
            gaps = np.concatenate(
                [(a.mean(0) - b.mean(0)) for a, b in zip(ours, theirs, strict=True)]
            )
            gaps = -gaps if metric == "loss" else gaps
            rows.append(
                {
                    "family": family,
                    "shots": shots,
                    "learner": one,
                    "other": other,
                    "metric": metric,
                    "difference": interval.mean,
                    "low": interval.low,
                    "high": interval.high,
                    "better": float(np.mean(gaps > 0)),
                    "equal": float(np.mean(gaps == 0)),
                    "worse": float(np.mean(gaps < 0)),
                    "tasks": len(gaps),
                }
            )
    return pd.DataFrame(rows, columns=pd.Index(COLUMNS))


def task_ranks(run: Path | pd.DataFrame, family: str = "") -> list[dict[str, Any]]:
    """Average ranks over the tasks of one family: the unit is the task.

    Tasks of one family share classes and training, so the ranks say who comes before whom on
    another task of the same family, and nothing about other families.

    Args:
        run: A finished run folder, or its `final_scores`.
        family: Which family; empty: the first one.

    Returns:
        Entries for `experiments.analysis.ranks.critical_difference`, one a number of shots; none
        where there are fewer than two learners or tasks.
    """
    found = []
    for name, shots, metric, scores in _common(run):
        family = family or name
        tasks = sum(group.shape[1] for group in next(iter(scores.values())))
        if name != family or len(scores) < 2 or tasks < 2:
            continue
        table = np.stack([np.concatenate([g.mean(0) for g in s]) for s in scores.values()], axis=1)
        ranking = rank_learners(-table if metric == "loss" else table)
        found.append(ranking.entry(list(scores)) | {"shots": shots, "metric": metric})
    return found


def _common(
    run: Path | pd.DataFrame,
) -> Iterator[tuple[str, int, str, dict[str, list[np.ndarray]]]]:
    """Family, shots, metric, and `[trainings, episodes]` of each learner and fold."""
    frame = final_scores(run) if isinstance(run, Path) else run
    metric = "accuracy" if np.isfinite(frame["accuracy"]).all() else "loss"
    for (family, shots), here in cells(frame, ["family", "shots"]):
        learners = list(here["learner"].unique())
        tables = {
            name: where(here, learner=name).pivot_table(
                index=["fold", "seed"], columns="episode", values=metric, observed=True
            )
            for name in learners
        }
        # Learners may have met the first tasks only; one training serves all of a fold.
        episodes = set.intersection(*(set(table.columns) for table in tables.values()))
        folds = dict.fromkeys(fold for table in tables.values() for fold, _ in table.index)
        most = {f: max(len(t.loc[[f]]) for t in tables.values()) for f in folds}
        scores = {
            name: [_rows(t.loc[[fold], sorted(episodes)], most[fold]) for fold in folds]
            for name, t in tables.items()
        }
        yield str(family), int(shots), metric, scores


def _rows(table: pd.DataFrame, count: int) -> np.ndarray:
    values = table.to_numpy()
    return np.repeat(values, count, axis=0) if len(values) == 1 else values
