"""What a run found: every prediction and score as parquet, and the result with its intervals.

Each judged cell is a part (two parquet files, written atomically, the scores last); `merge` makes
`predictions.parquet`, `curves.parquet` and the content of `result.json` from all of them.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from torch import Tensor

from experiments.config import Experiment
from experiments.errors import UserError
from experiments.families import judged_on
from experiments.folder import environment
from experiments.groups import Finals, Groups, Training, by_fold, finite, pairs
from meta_models.params import Params
from metalearn.comparison import difference
from metalearn.evaluation import Judged
from metalearn.statistics import bootstrap, paired

RESULT = "result.json"
PARTS = "parts"
METRICS = ("accuracy", "macro_f1", "loss")
Costs = dict[tuple[str, str, int], list[dict[str, float]]]
"""By family, learner and shots."""


def best_state(tensors: dict[str, Tensor]) -> Params:
    """The meta-parameters with the best validation score, from a checkpoint's tensors."""
    prefix = "best/"
    return {n.removeprefix(prefix): v for n, v in tensors.items() if n.startswith(prefix)}


def part(folder: Path, slug: str, shots: int) -> Path:
    """File of the scores of a judged cell; it exists when the cell is done."""
    return folder / PARTS / f"{slug}-test{shots}.scores.parquet"


def write_part(path: Path, judged: Judged, place: dict[str, Any], cost: dict[str, float]) -> None:
    """Write predictions, then scores, of one judged cell."""
    path.parent.mkdir(exist_ok=True)
    _write(_predictions(path), _table(judged.predictions, place))
    scores = _table(judged.scores, place)
    _write(path, scores.replace_schema_metadata({"cost": json.dumps(cost)}))


def _predictions(path: Path) -> Path:
    return path.with_name(path.name.replace(".scores.", ".predictions."))


def _table(rows: list[dict[str, Any]], place: dict[str, Any]) -> pa.Table:
    return pa.Table.from_pylist([place | row for row in rows])


def _write(path: Path, table: pa.Table) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        pq.write_table(table, temporary)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _read(path: Path, scores: Path) -> pa.Table:
    try:
        return pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"{path} is damaged ({reason}); remove {scores} and resume: it is judged again"
        ) from None


def merge(folder: Path, experiment: Experiment, choices: list[dict[str, Any]]) -> dict[str, Any]:
    """Merge the parts of a run.

    Writes `predictions.parquet` (family, learner, fold, shots, seed, episode, split, step, example,
    label, prediction, probability), `scores.parquet` (one row a task, split and step) and
    `curves.parquet` (means and intervals over tasks, by family, learner, shots, split and step).

    Returns:
        The content of `result.json`.

    Raises:
        UserError: If a part is damaged.
    """
    parts = sorted((folder / PARTS).glob("*.scores.parquet"))
    tables = [_read(path, path) for path in parts]
    predictions = [_read(_predictions(path), path) for path in parts]
    predictions = [table for table in predictions if table.num_rows]
    if predictions:
        _write(folder / "predictions.parquet", pa.concat_tables(predictions))
    scores = pa.concat_tables([table.replace_schema_metadata(None) for table in tables])
    _write(folder / "scores.parquet", scores)
    costs: Costs = {}
    for table in tables:
        names = (table[name][0].as_py() for name in ("family", "learner", "shots"))
        costs.setdefault(tuple(names), []).append(json.loads(table.schema.metadata[b"cost"]))
    result = summarize(scores, costs, experiment)
    _write(folder / "curves.parquet", pa.Table.from_pylist(result["curves"]))
    return result | {"choices": choices, "environment": environment()}


def summarize(scores: pa.Table, costs: Costs, experiment: Experiment) -> dict[str, Any]:
    """Curves, rows and comparisons with intervals, from scores of tasks."""
    families = {settings.family.name: settings.family for settings in judged_on(experiment)}
    result: dict[str, Any] = {
        "experiment": experiment.name,
        "description": experiment.description,
        "settings": experiment.model_dump(mode="json"),
        "rows": [],
        "comparisons": [],
        "curves": [],
    }
    other, metric = bool(experiment.evaluation.families), "accuracy"
    found: dict[str, Finals] = {}
    for family in families if other else scores["family"].unique().to_pylist():
        here = scores.filter(pc.field("family") == family)
        grouped = _grouped(here, other)
        metric = _judged_by(grouped)
        part, found[family] = _summarize(family, grouped, metric, costs, experiment)
        for name, entries in part.items():
            result[name] += [{"family": family} | entry for entry in entries]
    if other:
        result["families"] = {n: f.model_dump(mode="json") for n, f in families.items()}
        from experiments.across import across  # it loads scipy's statistics

        result["across"] = across(found, experiment, metric)
    return result


def _summarize(
    family: str, grouped: dict, judged_by: str, costs: Costs, experiment: Experiment
) -> tuple[dict[str, list[dict[str, Any]]], Finals]:
    """Curves, rows and comparisons on one family, and the final scores."""
    resamples = experiment.evaluation.resamples
    curves, rows, comparisons = [], [], []
    finals: Finals = {}
    for shots in experiment.episodes.shots:
        final = finals[shots] = {}
        for learner in experiment.learners:
            if (family, learner, shots) not in costs:
                continue
            steps = sorted({key[3] for key in grouped if key[:2] == (learner, shots)})
            for step in steps:
                for split in ("support", "query"):
                    for metric in METRICS:
                        by_place = grouped[learner, shots, split, step, metric]
                        if not finite(by_place):
                            continue
                        interval = bootstrap(by_fold(by_place), resamples=resamples)
                        curves.append(
                            {
                                "learner": learner,
                                "shots": shots,
                                "split": split,
                                "step": step,
                                "metric": metric,
                                **interval.as_dict(),
                                "tasks": sum(len(group) for group in by_place.values()),
                            }
                        )
            final[learner] = _last(grouped, learner, shots, judged_by)
            cost = costs[family, learner, shots]
            rows.append(_row(learner, shots, grouped, judged_by, cost, steps, resamples))
        comparisons += _comparisons(final, shots, judged_by, experiment)
    return {"rows": rows, "comparisons": comparisons, "curves": curves}, finals


def _grouped(
    scores: pa.Table, together: bool = False
) -> dict[tuple[str, int, str, int, str], Groups]:
    """Scores by (learner, shots, split, step, metric), then by fold and training.

    Args:
        scores: Scores of tasks.
        together: Whether the trainings of all folds were judged on the same episodes.
    """
    frame = scores.sort_by([("episode", "ascending")]).to_pydict()
    rows: dict[tuple, dict[tuple[str, Training], list[float]]] = {}
    columns = zip(
        *(frame[n] for n in ("learner", "shots", "split", "step", "fold", "seed", *METRICS)),
        strict=True,
    )
    for learner, shots, split, step, fold, seed, *values in columns:
        for metric, value in zip(METRICS, values, strict=True):
            groups = rows.setdefault((learner, shots, split, step, metric), {})
            place = ("" if together else fold, (fold, seed))
            groups.setdefault(place, []).append(value)
    return {
        key: {place: np.array(values) for place, values in groups.items()}
        for key, groups in rows.items()
    }


def _last(grouped: dict, learner: str, shots: int, metric: str) -> Groups:
    """Final query scores of each (fold, seed): the number of steps may differ between folds."""
    final: Groups = {}
    keys = [key for key in grouped if key[:3] == (learner, shots, "query") and key[4] == metric]
    for key in sorted(keys, key=_step):
        final |= grouped[key]
    return final


def _judged_by(grouped: dict) -> str:
    """Accuracy, or the loss where labels are values."""
    known = any(
        key[4] == "accuracy" and np.isfinite(next(iter(groups.values()))).all()
        for key, groups in grouped.items()
    )
    return "accuracy" if known else "loss"


def _step(key: tuple[str, int, str, int, str]) -> int:
    return key[3]


def _row(
    learner: str,
    shots: int,
    grouped: dict,
    judged_by: str,
    cost: list[dict[str, float]],
    steps: list[int],
    resamples: int,
) -> dict[str, Any]:
    final = _last(grouped, learner, shots, judged_by)
    first = grouped[learner, shots, "query", 0, judged_by]
    row: dict[str, Any] = {
        "learner": learner,
        "shots": shots,
        "tasks": len(next(iter(final.values()))),
        "folds": len({fold for _, (fold, _) in final}),
        "seeds": len({seed for _, (_, seed) in final}),
        "step": steps[-1],
    }
    for name in METRICS:
        by_place = _last(grouped, learner, shots, name)
        if finite(by_place):
            row[name] = bootstrap(by_fold(by_place), resamples=resamples).as_dict()
    if len(steps) > 1:
        start = {place: first[place] for place in final}
        rise = paired(by_fold(final), by_fold(start), resamples=resamples)
        row["rise"] = rise.as_dict()
    for name in cost[0]:
        if all(name in entry for entry in cost):
            row[name] = float(np.mean([entry[name] for entry in cost]))
    return row


def _comparisons(
    finals: dict[str, Groups], shots: int, judged_by: str, experiment: Experiment
) -> list[dict[str, Any]]:
    """Every learner against the reference on the same episodes of the same training."""
    reference = experiment.evaluation.reference or experiment.learners[0]
    if reference not in finals:
        return []
    found = []
    for learner, groups in finals.items():
        if learner == reference:
            continue
        ours, theirs = pairs(groups, finals[reference])
        one = difference(
            by_fold(ours),
            by_fold(theirs),
            resamples=experiment.evaluation.resamples,
        )
        found.append(
            {
                "learner": learner,
                "reference": reference,
                "shots": shots,
                "metric": judged_by,
                "difference": one.interval.as_dict(),
                "p": one.p,
            }
        )
    return found
