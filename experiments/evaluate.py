"""Several runs, experiments and baselines on the same test tasks, in one table.

Tasks (family, folds, episodes, evaluation settings) come from the first run folder, or from the
first experiment; learners come from every target with what was chosen for them on validation
classes.  A trained learner is refused where a test class is one that it was trained on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from experiments import catalog, outcome, stopping
from experiments.analysis.figures import analyse
from experiments.build import Workshop, seeded
from experiments.cells import Cell, folds, trials, validation_episodes, variant
from experiments.checks import check_tasks
from experiments.config import Experiment
from experiments.errors import UserError, nearest
from experiments.families import judged_on, placed_on
from experiments.folder import CONFIG, RunFolder, differing_settings, flatten, opened, refuse_used
from experiments.judging import judge
from experiments.run import conclude, show
from experiments.settings import parse
from experiments.sinks import open_sinks
from experiments.trained import TrainedRun
from meta_models.params import Params
from metalearn.evaluation import validation_score
from metalearn.learner import Learner
from tasks.episode import SplitName, TaskFamily
from tasks.sampling import TextKey, text_key
from tasks.sources.folder import FolderFamily
from tasks.sources.records import RecordFamily

REPLACEABLE = (
    *("family", "folds", "episodes", "evaluation"),
    *("inner", "baselines", "tracking", "threads"),
)
"""Settings that may differ from those that a run was trained with."""


class Untrained:
    """Learners of an experiment that need no training; the counterpart of `TrainedRun`.

    Args:
        experiment: Its settings, on the tasks of the table.
        kept: Objects shared with other sources, see `Workshop`.
    """

    def __init__(self, experiment: Experiment, kept: dict[str, Any]) -> None:
        self.experiment = experiment
        self.name = experiment.name
        self._kept = kept
        self._choices: dict[Cell, dict[str, Any]] = {}

    def cell(self, learner: str, fold: str, shots: int) -> Cell:
        """What is chosen for a learner; its grid is tried on validation classes first."""
        first = Cell(learner, fold, shots, self.experiment.seeds[0], 0)
        if first not in self._choices:
            self._choices[first] = self._choose(first)
        return first._replace(trial=self._choices[first]["trial"])

    def choice(self, cell: Cell) -> dict[str, Any]:
        """What was chosen for a cell."""
        return self._choices[cell._replace(trial=0)]

    def state(self, learner: Learner, cell: Cell) -> tuple[Params, float]:
        """A fresh state, and no seconds of training."""
        return learner.init(seeded(cell.seed)), 0.0

    def _choose(self, first: Cell) -> dict[str, Any]:
        tried = trials(self.experiment, first.learner)
        if len(tried) == 1:
            return {"trial": 0, "settings": tried[0], "validation_accuracy": None}
        scores = []
        for trial in range(len(tried)):
            cell = first._replace(trial=trial)
            workshop = Workshop(variant(self.experiment, cell), self._kept)
            learner = workshop.learner(first.learner)
            score = validation_score(learner, validation_episodes(workshop, first.shots))
            scores.append(score(self.state(learner, cell)[0]))
        best = max(range(len(tried)), key=scores.__getitem__)
        return {"trial": best, "settings": tried[best], "validation_accuracy": scores[best]}


@dataclass(frozen=True)
class _Entrant:
    """One row of the table: a learner, and where its settings and states come from."""

    row: str
    learner: str
    source: TrainedRun | Untrained


@stopping.deferred()
def evaluate(
    targets: Sequence[str],
    overrides: Sequence[str],
    run_dir: Path | None = None,
    resume: bool = False,
) -> Path:
    """Judge learners on the same test tasks, in a run folder of its own.

    Args:
        targets: Run folders (their trained learners), experiments of the catalog and learners that
            need no training.
        overrides: Options that replace settings of the tasks.
        run_dir: The run folder to write; None: `runs/evaluate-<time>`.
        resume: Go on with the folder as it was left; what is judged is not judged again.

    Returns:
        The run folder.

    Raises:
        UserError: If a target is unknown or not trained, a setting cannot be replaced, or a test
            class is one that a learner was trained on.
    """
    if run_dir is not None and not resume:
        refuse_used(run_dir)
    kept: dict[str, Any] = {}
    found = [_target(word, kept) for word in dict.fromkeys(targets)]
    base = _base(found)
    command = f"metalearn evaluate {' '.join(targets)}"
    experiment = parse(base, overrides, command, f"On the tasks of {base.name}.")
    changed = _changed(base, experiment, any(isinstance(one, TrainedRun) for one in found))
    entrants = _entrants(found, base, experiment, kept)
    table = _table_settings(targets, entrants, base, experiment)
    if table.threads:
        torch.set_num_threads(table.threads)
    _check(entrants, table, changed, kept)
    with opened(table, run_dir, resume) as folder:
        if not (folder.path / outcome.RESULT).exists():
            _judge_all(folder, entrants, changed, kept, resume)
        analyse(folder.path)
        show(folder)
        return folder.path


def _target(word: str, kept: dict[str, Any]) -> TrainedRun | Experiment | str:
    path = Path(word)
    if (path / CONFIG).exists():
        return TrainedRun(path, kept)
    if word in catalog.EXPERIMENTS:
        return catalog.EXPERIMENTS[word]
    if word in catalog.LEARNERS:
        return word
    if path.is_dir():
        raise UserError(f"{path} is no run folder (it has no {CONFIG}); see runs/")
    hint = nearest(word, [*catalog.EXPERIMENTS, *catalog.LEARNERS]) or "; see metalearn list"
    raise UserError(f"no run folder, experiment or learner {word}{hint}")


def _base(found: Sequence[TrainedRun | Experiment | str]) -> Experiment:
    """What says the tasks: the first run, else the first experiment."""
    for one in found:
        if isinstance(one, TrainedRun):
            return one.experiment
    for one in found:
        if isinstance(one, Experiment):
            return one
    raise UserError("name a run folder or an experiment too: it says on which tasks to evaluate")


def _changed(base: Experiment, experiment: Experiment, runs: bool) -> dict[str, Any]:
    """Replaced settings that are no part of the tasks: they go to every learner."""
    names = differing_settings(base, experiment)
    kept = [name for name in names if name.split(".")[0] not in REPLACEABLE]
    if runs and kept:
        raise UserError(
            f"a run keeps the {', '.join(kept)} it was trained with; "
            f"evaluate can replace {', '.join(REPLACEABLE)}"
        )
    values = flatten(experiment.model_dump())
    return {name: values[name] for name in names if name.startswith(("inner.", "baselines."))}


def _entrants(
    found: Sequence[TrainedRun | Experiment | str],
    base: Experiment,
    experiment: Experiment,
    kept: dict[str, Any],
) -> list[_Entrant]:
    """The rows; a learner of several sources is named with its source."""
    entries: list[tuple[str, str, TrainedRun | Untrained]] = []
    for one in found:
        if isinstance(one, TrainedRun):
            trains = one.learners()
            chosen = [name for name, trained in trains.items() if trained] or list(trains)
            entries += [(name, one.name, one) for name in chosen]
        elif isinstance(one, Experiment):
            settings = experiment if one is base else _on_tasks(one, experiment)
            for name in settings.learners:
                if Workshop(settings, kept).learner(name).trains:
                    raise UserError(
                        f"{one.name} trains {name}; run metalearn train {one.name} first "
                        "and evaluate its run folder"
                    )
            entries += [(name, one.name, Untrained(settings, kept)) for name in settings.learners]
        else:
            if Workshop(experiment, kept).learner(one).trains:
                raise UserError(
                    f"{one} needs training: metalearn train NAME first, and evaluate the run folder"
                )
            runs = (r for r in found if isinstance(r, TrainedRun) and one in r.learners())
            entries.append((one, "", next(runs, None) or Untrained(experiment, kept)))
    count = Counter(name for name, _, _ in entries)
    places = Counter((name, place) for name, place, _ in entries)
    entrants = []
    for name, place, source in entries:
        if places[name, place] > 1 and isinstance(source, TrainedRun):
            place = str(source.path)  # two runs of the same name
        row = f"{name} ({place})" if place and count[name] > 1 else name
        entrants.append(_Entrant(row, name, source))
    return entrants


def _table_settings(
    targets: Sequence[str], entrants: Sequence[_Entrant], base: Experiment, experiment: Experiment
) -> Experiment:
    """The settings that the run folder of the table holds."""
    wanted = experiment.evaluation.reference
    reference = next((e.row for e in entrants if wanted in (e.row, e.learner)), "")
    if wanted != base.evaluation.reference and not reference:
        rows = ", ".join(entrant.row for entrant in entrants)
        raise UserError(f"no learner {wanted} to compare with; the table has {rows}")
    names = ", ".join(Path(word).name or word for word in targets)
    return experiment.override(
        {
            "name": "evaluate",
            "description": f"{names} on the tasks of {base.name}",
            "learners": tuple(entrant.row for entrant in entrants),
            "grids": {},
            "evaluation.reference": reference,
            "tracking.group": experiment.tracking.group or base.name,
            "tracking.job_type": "evaluate",
        }
    )


def _on_tasks(settings: Experiment, table: Experiment, fold: str = "") -> Experiment:
    """Settings of a learner on the tasks of the table."""
    family = table.family.model_copy(update={"fold": fold}) if fold else table.family
    tasks = {name: getattr(table, name) for name in ("folds", "episodes", "evaluation")}
    return settings.model_copy(update=tasks | {"family": family})


def _chosen(
    entrant: _Entrant, table: Experiment, changed: dict[str, Any], kept: dict[str, Any]
) -> Iterator[tuple[str, int, Cell, Workshop]]:
    """Fold, shots, what was chosen for them and its objects on the tasks of the table."""
    for fold in folds(table):
        for shots in table.episodes.shots:
            cell = entrant.source.cell(entrant.learner, fold, shots)
            settings = _on_tasks(variant(entrant.source.experiment, cell), table, fold)
            for one in judged_on(settings.override(changed)):
                yield fold, shots, cell, Workshop(one, kept)


def _check(
    entrants: Sequence[_Entrant],
    table: Experiment,
    changed: dict[str, Any],
    kept: dict[str, Any],
) -> None:
    """Refuse leakage and impossible tasks before anything is judged."""
    done = set()
    for entrant in entrants:
        for fold, _, cell, workshop in _chosen(entrant, table, changed, kept):
            check_tasks(workshop, ["test"], None)
            source = entrant.source
            place = (cell.fold, fold, workshop.family.name)
            if isinstance(source, TrainedRun) and (source.path, place) not in done:
                done.add((source.path, place))
                _refuse_leak(source, source.workshop(cell).family, workshop.family)


def _refuse_leak(run: TrainedRun, trained: TaskFamily, judged: TaskFamily) -> None:
    """Refuse a test class (or record) that was used in a run's training or choices.

    The same name alone is no leak: classes of two data sets may share it.  The same name and a
    text in common is.
    """
    listed = (RecordFamily, FolderFamily)
    if not isinstance(trained, listed) or not isinstance(judged, listed):
        return
    uses: tuple[tuple[SplitName, str], ...] = (("train", "trained on"), ("valid", "chosen on"))
    for split, use in uses:
        common = _records(trained, split) & _records(judged, "test")
        if common:
            label, (text, _) = min(common)
            what = f"class {label!r}" if label else f"text {text[:40]!r}"
            raise UserError(
                f"{what} is among the test tasks, but {run.path} was {use} it; "
                "evaluate on the fold or split of the run, or on another family"
            )


def _records(family: RecordFamily | FolderFamily, split: SplitName) -> set[tuple[str, TextKey]]:
    return {(e.label or "", text_key(e)) for e in family.members(split)}


def _judge_all(
    folder: RunFolder,
    entrants: Sequence[_Entrant],
    changed: dict[str, Any],
    kept: dict[str, Any],
    resume: bool,
) -> None:
    table = folder.experiment
    choices = []
    tracker = open_sinks(table, folder.path, resume)
    failed = True
    try:
        for number, entrant in enumerate(entrants):
            source = entrant.source
            for fold, shots, cell, workshop in _chosen(entrant, table, changed, kept):
                learner = workshop.learner(entrant.learner)
                seeds = source.experiment.seeds if learner.random else source.experiment.seeds[:1]
                choices.append(_choice(entrant, fold, shots, cell))
                for seed in seeds:
                    # Numbered, because two rows may differ in what a file name cannot hold.
                    slug = Cell(f"{number}-{entrant.row}", fold, 0, seed, cell.trial).slug
                    slug = placed_on(slug, workshop.experiment)
                    place = {"learner": entrant.row, "fold": fold, "shots": shots, "seed": seed}
                    part = outcome.part(folder.path, slug, shots)
                    if part.exists():
                        continue
                    state, seconds = source.state(learner, cell._replace(seed=seed))
                    judge(part, workshop, learner, state, place, seconds)
        conclude(folder, tracker, choices)
        failed = False
    finally:
        tracker.finish(exit_code=int(failed))


def _choice(entrant: _Entrant, fold: str, shots: int, cell: Cell) -> dict[str, Any]:
    """Where a row comes from, for the result."""
    source = entrant.source
    return {
        "learner": entrant.row,
        "run": str(source.path) if isinstance(source, TrainedRun) else None,
        "fold": fold,
        "shots": shots,
        "trained_fold": cell.fold,
        "trained_shots": cell.shots,
        "trial": cell.trial,
        "settings": source.choice(cell)["settings"],
        "validation_accuracy": source.choice(cell)["validation_accuracy"],
    }
