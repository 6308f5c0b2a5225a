"""The sections of a report about a run folder; a new one is a function and a line in `SECTIONS`."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

from experiments import catalog
from experiments.analysis.confusion import confusion_table
from experiments.analysis.predictions import final_predictions, where
from experiments.files import read_json
from experiments.folder import CONFIG, ENVIRONMENT, flatten
from experiments.metrics import cell_name, read_metrics
from experiments.reports.html import (
    Section,
    Strong,
    details,
    figure,
    missing,
    paragraph,
    settings,
    table,
    text,
)
from experiments.tables import bounds, cells, headers, plain, rises, scope

RESULT = "result.json"
MOST = 8
"""Mistakes shown of a learner."""
CAPTIONS = {
    "curves": "Score and loss on the query sets of unseen classes after each inner step. Bands and "
    "bars are 95% intervals; a learner without inner steps is a dotted line.",
    "scores": "Final score of every learner with its 95% interval, and what a task costs.",
    "costs": "Score against what a task costs.",
    "shots": "Score over the number of support examples a class.",
    "differences": "Difference to the reference on each family, paired over its tasks.",
    "critical-difference": "Mean ranks over the families; learners that a bar joins are not told "
    "apart.",
    "ranks": "Mean ranks over the tasks; learners that a bar joins are not told apart.",
    "reliability": "How often predictions of a given confidence are right: on the diagonal, as "
    "often as they claim.",
    "confusion": "Which class is taken for which, as shares of the chances to do so.",
    "training": "Meta-training: loss of every meta-step, and the validation scores that chose the "
    "checkpoint.",
}
"""What the figures of a run show, by kind: the name of the file."""


class View:
    """A run folder, as far as it is there.

    Args:
        folder: The folder.
        result: What its `result.json` will hold, where that is not yet written.
    """

    def __init__(self, folder: Path, result: dict[str, Any] | None = None) -> None:
        self.folder = folder
        self.name = folder.resolve().name
        self.config = self._json(CONFIG)
        self.environment = self._json(ENVIRONMENT)
        self.result = self._json(RESULT) if result is None else result

    def _json(self, name: str) -> Any:
        return read_json(self.folder / name) if (self.folder / name).exists() else None

    @cached_property
    def figures(self) -> dict[str, Path]:
        """The figures by name."""
        return {path.stem: path for path in sorted((self.folder / "figures").glob("*.png"))}

    def figure(self, kind: str, needed: bool = False) -> str:
        """The figures of a kind with its caption: of several families, each has its own.

        Args:
            kind: Name of the file, without that of the family behind it.
            needed: Say that it is missing, where there is none.
        """
        own = [name for name in self.figures if name == kind or name.startswith(f"{kind}-")]
        if needed and not own:
            return missing(f"figures/{kind}.png", "the run has not drawn it yet")
        return "".join(figure(self.figures[name], CAPTIONS.get(kind, name)) for name in own)

    @property
    def metric(self) -> str:
        """What learners are judged by."""
        return _metric(self.result) if self.result else "accuracy"


def sections(view: View) -> list[Section]:
    """The sections of a run, in order; those with nothing to say are left out."""
    made = ((title, make(view)) for title, make in SECTIONS)
    return [Section(title, content) for title, content in made if content]


def lead(view: View) -> str:
    """What the run is and what it found, in a few sentences."""
    lines = []
    if view.config is not None and view.config.get("description"):
        lines.append(paragraph(view.config["description"]))
    if view.result is not None:
        lines += [paragraph(line, "found") for line in headlines(view.result)]
        lines.append(paragraph(f"{scope(view.result)}.", "soft"))
    return f'<div class="lead">{"".join(lines)}</div>' if lines else ""


def headlines(result: dict[str, Any]) -> list[str]:
    """The best learner of each number of shots, and how it stands to the reference.

    Example:
        >>> score = {"mean": 0.8, "low": 0.7, "high": 0.9}
        >>> rows = [{"learner": "maml", "shots": 1, "accuracy": score}]
        >>> headlines({"rows": rows, "comparisons": []})
        ['1-shot: maml has the highest accuracy, 80.0 [70.0, 90.0].']
    """
    lines = []
    metric = _metric(result)
    for tasks, best in _best(result, metric).items():
        mean, low, high = (plain(best[metric][p], metric, False) for p in ("mean", "low", "high"))
        rank = "lowest" if metric == "loss" else "highest"
        line = f"{tasks}: {best['learner']} has the {rank} {metric}, {mean} [{low}, {high}]"
        for entry in result.get("comparisons", []):
            if entry["learner"] == best["learner"] and _tasks(result, entry) == tasks:
                clear = _verdict(entry) == "better"
                words = "better than" if clear else "not clearly better than"
                amount = bounds(entry["difference"], metric)
                line += f": {words} {entry['reference']}, {amount}"
        lines.append(f"{line}.")
    return lines


def _metric(result: dict[str, Any]) -> str:
    """Accuracy, or the loss where tasks hold numbers."""
    return "accuracy" if any("accuracy" in row for row in result["rows"]) else "loss"


def _tasks(result: dict[str, Any], row: dict[str, Any]) -> str:
    """The tasks of a row, in words: the shots, and the family where there are several."""
    family = f"{row['family']}, " if "families" in result else ""
    return f"{family}{row['shots']}-shot"


def _best(result: dict[str, Any], metric: str) -> dict[str, dict[str, Any]]:
    """The row with the best mean on each kind of tasks."""
    sign = -1 if metric == "loss" else 1
    best: dict[str, dict[str, Any]] = {}
    for row in sorted(result["rows"], key=lambda row: row["shots"]):
        ahead = best.get(_tasks(result, row))
        known = row.get(metric) is not None
        if known and (ahead is None or sign * (row[metric]["mean"] - ahead[metric]["mean"]) > 0):
            best[_tasks(result, row)] = row
    return best


def _result(view: View) -> str:
    if view.result is None:
        return missing(RESULT, "the run has not finished; resume it with --resume")
    names = headers(view.result)
    strong = (names.index("learner"), names.index(view.metric))
    best = _best(view.result, view.metric)
    rows = []
    for row, words in zip(view.result["rows"], cells(view.result), strict=True):
        top = row is best.get(_tasks(view.result, row))
        rows.append([Strong(w) if top and i in strong else w for i, w in enumerate(words)])
    note = "; ".join([scope(view.result), *rises(view.result)])
    return (
        table(names, rows, "numbers")
        + paragraph(f"{note}. Times on the machine below.", "soft")
        + view.figure("scores", needed=True)
        + view.figure("costs")
    )


def _comparisons(view: View) -> str:
    if view.result is None:
        return ""
    entries = view.result.get("comparisons", [])
    if not entries:
        return paragraph("Only one learner was evaluated.")
    rows = []
    metric = entries[0].get("metric", "accuracy")
    difference = "loss difference" if metric == "loss" else "accuracy difference, points"
    for entry in entries:
        p = f"{entry['p']:.3f}" if entry.get("p") is not None else "-"
        family = [entry["family"]] if "families" in view.result else []
        pair = [*family, entry["learner"], entry["reference"], str(entry["shots"])]
        rows.append([*pair, bounds(entry["difference"], metric), p, _verdict(entry)])
    names = ["learner", "reference", "shots", difference, "p", "verdict"]
    names = ["family", *names] if "families" in view.result else names
    note = "Paired over the same tasks; better or worse: 95% interval off zero."
    kinds = ("differences", "critical-difference", "ranks")
    figures = "".join(view.figure(kind) for kind in kinds)
    return table(names, rows, "numbers") + paragraph(note, "soft") + figures


def _verdict(entry: dict[str, Any]) -> str:
    low, high = entry["difference"]["low"], entry["difference"]["high"]
    if entry.get("metric") == "loss":  # the smaller the better
        low, high = -high, -low
    return "better" if low > 0 else "worse" if high < 0 else "no clear difference"


def _adaptation(view: View) -> str:
    if view.result is None or not view.result.get("curves"):
        return ""
    metrics = dict.fromkeys(row["metric"] for row in view.result["curves"])
    folded = [
        details(f"{split} {metric} in numbers", _steps(view.result, split, metric))
        for split in ("query", "support")
        for metric in metrics
        if metric != "macro_f1" and (split, metric) != ("query", view.metric)
    ]
    shown = _steps(view.result, "query", view.metric)
    figures = view.figure("curves", needed=True) + view.figure("shots")
    return figures + f"<h3>Query {view.metric}</h3>" + shown + "".join(folded)


def _steps(result: dict[str, Any], split: str, metric: str) -> str:
    """Means with intervals: a row a learner and kind of tasks, a column an inner step."""
    rows: dict[tuple[str, str], dict[int, str]] = {}
    for row in result["curves"]:
        if (row["split"], row["metric"]) == (split, metric):
            low, high = (plain(row[part], metric, False) for part in ("low", "high"))
            shown = f"{plain(row['mean'], metric, False)} [{low}, {high}]"
            rows.setdefault((row["learner"], _tasks(result, row)), {})[row["step"]] = shown
    steps = sorted({step for found in rows.values() for step in found})
    body = [[*key, *(found.get(step, "") for step in steps)] for key, found in rows.items()]
    return table(("learner", "tasks", *(f"step {step}" for step in steps)), body, "numbers")


def _confusions(view: View) -> str:
    if view.result is None or not (view.folder / "predictions.parquet").exists():
        return ""
    note = (
        "Query sets after the last step; of all: the queries of the true class in tasks that have "
        "the other class too, so that a frequent pair of classes is not taken for a hard one."
    )
    parts = [paragraph(note, "soft")]
    best = _best(view.result, "accuracy").values()
    rows = [row for row in view.result["rows"] if row.get("accuracy")]
    said = confusion_table(final_predictions(view.folder))
    for row in sorted(rows, key=lambda r: (_tasks(view.result, r), -r["accuracy"]["mean"])):
        here = where(said, learner=row["learner"], shots=row["shots"])
        if "families" in view.result:
            here = where(here, family=row["family"])
        pairs = here.to_dict("records")
        wrong = [pair for pair in pairs if pair["label"] != pair["prediction"]]
        wrong.sort(key=lambda pair: (-pair["count"], pair["label"], pair["prediction"]))
        body = [
            [
                *(str(pair[name]) for name in ("label", "prediction", "count", "offered")),
                f"{100 * pair['share']:.0f}%",
            ]
            for pair in wrong[:MOST]
        ]
        content = table(("true class", "taken for", "times", "of all", "share"), body)
        mistakes, total = (sum(pair["count"] for pair in some) for some in (wrong, pairs))
        words = f"{mistakes} mistakes in {total} predictions"
        title = f"{row['learner']}, {_tasks(view.result, row)}: {words}"
        parts.append(details(title, content, shown=any(row is one for one in best)))
    return "".join(parts) + view.figure("confusion") if len(parts) > 1 else ""


def _calibration(view: View) -> str:
    return view.figure("reliability")


def _training(view: View) -> str:
    trainings: dict[str, list[dict[str, Any]]] = {}
    for record in read_metrics(view.folder / "metrics.jsonl"):
        trainings.setdefault(cell_name(record) or "training", []).append(record)
    if not trainings:
        return missing("metrics.jsonl", "no learner of this run was meta-trained")
    rows = []
    for name, records in trainings.items():
        losses = [record["loss"] for record in records if record.get("loss") is not None]
        scores = [r["validation"] for r in records if r.get("validation") is not None]
        seconds = sum(record.get("seconds", 0.0) for record in records)
        last = f"{losses[-1]:.3f}" if losses else "-"
        best = _score(max(scores, default=None))
        rows.append([name, str(len(records)), last, best, f"{seconds:.0f}"])
    columns = ("training", "meta-steps", "last loss", "best validation score", "seconds")
    return table(columns, rows, "numbers") + view.figure("training", needed=True)


def _score(score: float | None) -> str:
    """A validation score: an accuracy in percent, or minus a loss where tasks hold numbers."""
    if score is None:
        return "-"
    return f"{score:.3f}" if score < 0 else f"{100 * score:.1f}"


def _choices(view: View) -> str:
    if view.result is None:
        return ""
    rows = [
        [
            choice["learner"],
            str(choice.get("fold") or "-"),
            str(choice["shots"] or "all"),
            ", ".join(f"{name} {text(value)}" for name, value in choice["settings"].items()),
            _score(choice["validation_accuracy"]),
        ]
        for choice in view.result.get("choices", [])
        if choice["settings"]
    ]
    if not rows:
        return paragraph("Nothing had to be chosen.")
    return table(("learner", "fold", "shots", "settings", "validation score"), rows)


def _others(view: View) -> str:
    kinds = tuple(f"{kind}-" for kind in CAPTIONS)
    names = (name for name in view.figures if not f"{name}-".startswith(kinds))
    return "".join(figure(view.figures[name], name) for name in names)


def _configuration(view: View) -> str:
    if view.config is None:
        return missing(CONFIG, "the folder is not a run folder or was not completed")
    values = flatten(view.config)
    content = details(f"all {len(values)} settings ({CONFIG})", settings(values))
    named = catalog.EXPERIMENTS.get(view.config.get("name", ""))
    if named is None:
        return content
    default = flatten(named.model_dump(mode="json"))
    changed = {n: v for n, v in values.items() if default.get(n) != v}
    if not changed:
        return paragraph(f"As {named.name} of the catalog.") + content
    rows = [[name, text(value), text(default.get(name))] for name, value in changed.items()]
    return table(("changed setting", "here", f"in {named.name}"), rows) + content


def _environment(view: View) -> str:
    if view.environment is None:
        return missing(ENVIRONMENT, "the folder is not a run folder or was not completed")
    return settings(flatten(view.environment))


SECTIONS: tuple[tuple[str, Callable[[View], str]], ...] = (
    ("Result", _result),
    ("Comparisons", _comparisons),
    ("Adaptation", _adaptation),
    ("Confusions", _confusions),
    ("Calibration", _calibration),
    ("Other figures", _others),
    ("Meta-training", _training),
    ("Chosen on validation classes", _choices),
    ("Configuration", _configuration),
    ("Environment", _environment),
)
"""Title and content of each section; an empty content leaves the section out."""
