"""Running an experiment: choose on validation classes, train, then read the test classes.

A run is a sequence of cells (learner, fold, shots, seed, trial).  A cell's training is resumed from
its checkpoint, its judgement is a file that exists or does not; so a run that is killed at any
moment goes on where it was, and ends with the files of a run that was not.

    choose   every trial of a learner's grid, trained with the first seed, scored on validation
    train    the chosen settings with the other seeds
    test     all learners on the same test tasks, only now
"""

from __future__ import annotations

import itertools
import logging
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rich.console import Console

from experiments import checkpoint, outcome
from experiments.build import Workshop, batches, seeded
from experiments.config import Experiment
from experiments.errors import UserError
from experiments.figures import adaptation_curves, training_curves
from experiments.files import read_json, write_json
from experiments.folder import RunFolder
from experiments.metrics import read_metrics
from experiments.progress import Progress
from experiments.report import write_report
from experiments.tables import result_table
from experiments.tracking import start
from meta_models.params import Params
from metalearn.evaluation import evaluate, validation_score
from metalearn.learner import Learner
from metalearn.training import MetaTraining, NonFiniteLoss
from tasks.episode import Episode

CHOICES = "choices.json"
log = logging.getLogger(__name__)


class Cell(NamedTuple):
    """One training or judgement of a run; `shots` 0: trained for every number of shots."""

    learner: str
    fold: str
    shots: int
    seed: int
    trial: int

    @property
    def slug(self) -> str:
        """Name of its folder."""
        fold = f"-fold{self.fold}" if self.fold else ""
        shots = f"-{self.shots}shot" if self.shots else ""
        return f"{self.learner}{fold}{shots}-seed{self.seed}-trial{self.trial}"


def run(experiment: Experiment, run_dir: Path | None = None, resume: bool = False) -> Path:
    """Run or resume an experiment.

    Args:
        experiment: The settings.
        run_dir: The run folder; None: a new one below `runs/`.
        resume: Go on with the folder as it was left.

    Returns:
        The run folder.

    Raises:
        UserError: If the folder cannot be used, or training met a non-finite loss.
    """
    if experiment.threads:
        torch.set_num_threads(experiment.threads)
    if resume and run_dir is None:
        raise UserError("--resume needs the run folder; name it with --run-dir")
    opened = (
        RunFolder.open(run_dir, experiment)
        if resume and run_dir is not None
        else RunFolder.create(experiment, run_dir)
    )
    with opened as folder:
        if not (folder.path / outcome.RESULT).exists():
            _Run(folder, resume).complete()
        Console().print(result_table(read_json(folder.path / outcome.RESULT)))
        for figure in sorted(folder.figures.glob("*.png")):
            print(figure)
        return folder.path


class _Run:
    """A run in progress."""

    def __init__(self, folder: RunFolder, resume: bool) -> None:
        self.folder = folder
        self.experiment = folder.experiment
        self.metrics = folder.open_metrics()
        # Records past the last checkpoint belong to steps that will be taken again.
        self.metrics.truncate_to(self._records_saved())
        self.tracker = start(self.experiment, folder.path, resume)
        self.kept: dict[str, Any] = {}
        self.choices: dict[str, Any] = {}
        if (folder.path / CHOICES).exists():
            self.choices = read_json(folder.path / CHOICES)

    def complete(self) -> None:
        """Everything that is not done yet."""
        failed = True
        try:
            for cell in self._first_cells():
                self._choose(cell)
            for cell in self._other_cells():
                self._train(cell, must=True)
            for cell in self._all_cells():
                for shots in self.experiment.episodes.shots:
                    if cell.shots in (0, shots):
                        self._test(cell, shots)
            self._conclude()
            failed = False
        finally:
            self.metrics.close()
            self.tracker.finish(exit_code=int(failed))

    def _first_cells(self) -> list[Cell]:
        """What is chosen for: each learner, fold and number of shots, with the first seed."""
        experiment = self.experiment
        shared = experiment.episodes.train_shots is not None
        shots = (0,) if shared else experiment.episodes.shots
        return [
            Cell(learner, fold, k, experiment.seeds[0], 0)
            for learner in experiment.learners
            for fold in experiment.folds or (experiment.family.fold,)
            for k in shots
        ]

    def _all_cells(self) -> list[Cell]:
        return [
            cell._replace(seed=seed, trial=self.choices[cell.slug]["trial"])
            for cell in self._first_cells()
            for seed in (
                self.experiment.seeds
                if self._workshop(cell).learner(cell.learner).random
                else self.experiment.seeds[:1]
            )
        ]

    def _other_cells(self) -> list[Cell]:
        return [cell for cell in self._all_cells() if cell.seed != self.experiment.seeds[0]]

    def trials(self, learner: str) -> list[dict[str, Any]]:
        """The settings that a learner's grid tries."""
        grid = self.experiment.grids.get(learner, {})
        return [
            dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())
        ]

    def _workshop(self, cell: Cell) -> Workshop:
        settings = self.trials(cell.learner)[cell.trial]
        if cell.fold:
            settings = settings | {"family.fold": cell.fold}
        return Workshop(self.experiment.override(settings), self.kept)

    def _validation(self, workshop: Workshop, cell: Cell) -> list[Episode]:
        """Validation tasks: the same for all learners, shared between the numbers of shots."""
        shots = (cell.shots,) if cell.shots else self.experiment.episodes.shots
        tasks = max(1, workshop.experiment.outer.validation_tasks // len(shots))
        seed = self.experiment.evaluation.seed
        return [
            episode
            for k in shots
            for episode in batches(workshop, workshop.stream("valid", k, seed), tasks)
        ]

    def _choose(self, first: Cell) -> None:
        """Score every trial on validation classes and keep the best."""
        if first.slug in self.choices:
            return
        scores = []
        trials = self.trials(first.learner)
        for trial in range(len(trials)):
            cell = first._replace(trial=trial)
            workshop = self._workshop(cell)
            learner = workshop.learner(first.learner)
            if learner.trains:
                scores.append(self._train(cell, must=len(trials) == 1))
            elif len(trials) == 1:
                scores.append(None)  # nothing to choose
            else:
                state = learner.init(seeded(cell.seed))
                scores.append(validation_score(learner, self._validation(workshop, cell))(state))
        known = [-1.0 if score is None else score for score in scores]
        if any(score is None for score in scores) and len(trials) > 1:
            log.warning("%s: some trials ended in a non-finite loss", first.slug)
        if len(trials) > 1 and all(score is None for score in scores):
            raise UserError(
                f"{first.slug}: every trial ended in a non-finite loss; lower the rates"
            )
        best = max(range(len(trials)), key=known.__getitem__)
        self.choices[first.slug] = {
            "learner": first.learner,
            "fold": first.fold,
            "shots": first.shots,
            "trial": best,
            "settings": trials[best],
            "validation_accuracy": scores[best],
            "trials": [
                {"settings": settings, "validation_accuracy": score}
                for settings, score in zip(trials, scores, strict=True)
            ],
        }
        write_json(self.folder.path / CHOICES, self.choices)

    def _train(self, cell: Cell, must: bool) -> float | None:
        """Meta-train a cell, or what is left of it.

        Returns:
            The best validation score; None if the loss became non-finite and `must` is false.
        """
        workshop = self._workshop(cell)
        learner = workshop.learner(cell.learner)
        if not learner.trains:
            return None
        place = self.folder.checkpoints / cell.slug
        saved = checkpoint.load(place)
        if saved is not None and saved[1]["ended"]:
            return saved[1]["best_score"]
        training = MetaTraining(
            learner,
            workshop.training_episodes(cell.shots, cell.seed),
            validation_score(learner, self._validation(workshop, cell)),
            workshop.outer_loop(),
            seeded(cell.seed),
        )
        seconds = 0.0
        if saved is not None:
            training.restore(*saved)
            seconds = saved[1]["seconds"]
        total, every = training.loop.steps, workshop.experiment.outer.checkpoint_every
        with Progress(total, cell.slug, start=training.step) as progress:
            while not training.done:
                try:
                    figures = training.take_step()
                except NonFiniteLoss as error:
                    self._save(place, training, seconds, ended=True, score=None)
                    if must:
                        raise UserError(f"{cell.slug}: {error}") from None
                    return None
                seconds += figures["seconds"]
                record = cell._asdict() | {"step": training.step} | figures
                self.metrics.append(record)
                self.tracker.log(record, self.metrics.count - 1)
                shown = {n: figures[n] for n in ("loss", "validation", "best") if n in figures}
                progress.update(training.step, shown)
                if training.step % every == 0 or training.done:
                    self._save(place, training, seconds, training.done, training.best_score)
        return training.best_score

    def _save(
        self, place: Path, training: MetaTraining, seconds: float, ended: bool, score: float | None
    ) -> None:
        tensors, numbers = training.snapshot()
        records = self.metrics.sync()
        numbers |= {"seconds": seconds, "ended": ended, "records": records}
        if ended:
            numbers["best_score"] = score
        checkpoint.save(place, tensors, numbers)

    def _records_saved(self) -> int:
        """Records of `metrics.jsonl` that the newest checkpoint counts."""
        places = sorted(path for path in self.folder.checkpoints.iterdir() if path.is_dir())
        saved = [found[1]["records"] for p in places if (found := checkpoint.load(p)) is not None]
        return max(saved, default=0)

    def _state(self, learner: Learner, cell: Cell) -> Params:
        """The trained state of a cell with the best validation score, or a fresh one."""
        if not learner.trains:
            return learner.init(seeded(cell.seed))
        found = checkpoint.load(self.folder.checkpoints / cell.slug)
        assert found is not None
        return outcome.best_state(found[0])

    def _test(self, cell: Cell, shots: int) -> None:
        """Judge a cell on the test tasks of a number of shots."""
        part = outcome.part(self.folder.path, cell.slug, shots)
        if part.exists():
            return
        workshop = self._workshop(cell)
        learner = workshop.learner(cell.learner)
        workshop.frozen = True
        settings = self.experiment.evaluation
        stream = workshop.stream("test", shots, settings.seed)
        episodes = batches(workshop, stream, settings.tasks)
        state = self._state(learner, cell)
        with Progress(settings.tasks, f"{cell.slug} test {shots}-shot") as progress:
            judged = evaluate(
                learner, state, episodes, progress=lambda tasks: progress.update(tasks, {})
            )
        place = {"learner": cell.learner, "fold": cell.fold, "shots": shots, "seed": cell.seed}
        trained = checkpoint.load(self.folder.checkpoints / cell.slug)
        cost = {
            "adapt_seconds_per_task": judged.seconds / judged.tasks,
            "passes": learner.passes(),
            "train_seconds": trained[1]["seconds"] if trained else 0.0,
        }
        outcome.write_part(part, judged, place, cost)

    def _conclude(self) -> None:
        """Tables, figures and the report, from the parts."""
        path = self.folder.path
        result = outcome.merge(path, self.experiment, list(self.choices.values()))
        title = f"{self.experiment.name}: {self.experiment.description}"
        figures = [
            adaptation_curves(result["curves"], self.folder.figures / "curves.png", title=title)
        ]
        records = read_metrics(self.folder.metrics)
        if records:
            figures.append(training_curves(records, self.folder.figures / "training.png"))
        self.tracker.log_curves(result["curves"], figures)
        write_json(path / outcome.RESULT, result)
        write_report([path])
