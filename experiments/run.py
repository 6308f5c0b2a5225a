"""Running an experiment: choose on validation classes, train, then read the test classes.

A run is a sequence of cells (learner, fold, shots, seed, trial).  A cell's training is resumed from
its checkpoint, its judgement is a file that exists or does not; so a run that is killed at any
moment goes on where it was, and ends with the files of a run that was not.

    choose   every trial of a learner's grid, trained with the first seed, scored on validation
    train    the chosen settings with the other seeds
    test     all learners on the same test tasks, only now

Several processes (`torchrun`) go through the same cells and share the tasks of each; the first one
alone reads and writes the folder, and tells the others what they need from it.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from experiments import checkpoint, outcome, stopping
from experiments.build import Workshop, seeded
from experiments.cells import (
    CHOICES,
    Cell,
    choice,
    first_cells,
    trials,
    validation_episodes,
    variant,
)
from experiments.checks import check, check_processes
from experiments.config import Experiment
from experiments.errors import Diverged, Stopped
from experiments.families import judged_on, placed_on
from experiments.files import read_json, write_json
from experiments.folder import CHECKPOINTS, RunFolder, opened, refuse_used
from experiments.judging import SILENT, judge
from experiments.metrics import read_metrics
from experiments.passes import tasks_per_pass
from experiments.prefetch import Prefetch
from experiments.progress import Progress
from experiments.ranks import joined
from experiments.records import Records
from experiments.sampling import build_curriculum
from experiments.sinks import Findings, Sinks, best_checkpoint
from experiments.tables import result_table
from experiments.trained import best_state
from meta_models.params import Params
from metalearn.distributed import World, agree
from metalearn.evaluation import validation_score
from metalearn.learner import Learner
from metalearn.training import MetaTraining, NonFiniteLoss

REPORT = "report.html"


@stopping.deferred()
def run(
    experiment: Experiment,
    run_dir: Path | None = None,
    resume: bool = False,
    watch: Callable[[dict[str, Any]], None] | None = None,
) -> Path:
    """Run or resume an experiment.

    Args:
        experiment: The settings.
        run_dir: The run folder; None: a new one below `runs/`.
        resume: Go on with the folder as it was left.
        watch: Is given every training record, once it is in `metrics.jsonl`.

    Returns:
        The run folder.

    Raises:
        UserError: If the folder cannot be used; `Diverged` if training met a non-finite loss.
        LostRank: If another process of the same run has died.
        Stopped: If a signal asked for it; the same call with `resume` goes on.
    """
    with joined(experiment.threads, experiment.timeout) as world, ExitStack() as stack:
        return _run(experiment, run_dir, resume, watch, world, stack)


def _run(
    experiment: Experiment,
    run_dir: Path | None,
    resume: bool,
    watch: Callable[[dict[str, Any]], None] | None,
    world: World,
    stack: ExitStack,
) -> Path:
    kept: dict[str, Any] = {}
    if not resume:
        if run_dir is not None:
            world.from_first(partial(refuse_used, run_dir))
        check(experiment, kept)  # before there is a folder: a mistake leaves nothing behind
    check_processes(experiment, kept, world)
    stopping.check(world)  # there is nothing to go on with yet
    folder: RunFolder | None = None

    def take_up() -> tuple[Path, Experiment, bool]:
        nonlocal folder
        folder = stack.enter_context(opened(experiment, run_dir, resume))
        return folder.path, folder.experiment, (folder.path / outcome.RESULT).exists()

    path, settings, done = world.from_first(take_up)
    if not done:
        records = Records(folder, resume, watch) if folder else None
        _Run(path, settings, folder, records, kept, world).complete()
    elif folder and not (path / REPORT).exists():  # it was removed since
        from experiments.report import write_report

        write_report([path])
    if folder:
        show(folder)
    return path


class _Run:
    """A run in progress, as one of its processes sees it: the first one has the folder."""

    def __init__(
        self,
        path: Path,
        experiment: Experiment,
        folder: RunFolder | None,
        records: Records | None,
        kept: dict[str, Any],
        world: World,
    ) -> None:
        self.path = path
        self.checkpoints = path / CHECKPOINTS
        self.experiment = experiment
        self.folder = folder
        self.records = records
        self.kept = kept
        self.world = world
        self.choices: dict[str, Any] = world.from_first(self._choices)

    def _choices(self) -> dict[str, Any]:
        return read_json(self.path / CHOICES) if (self.path / CHOICES).exists() else {}

    def complete(self) -> None:
        """Everything that is not done yet."""
        failed = True
        try:
            # What is trained comes first: its curves are waited for, and can show a mistake.
            for cell in sorted(first_cells(self.experiment), key=lambda c: not self._trains(c)):
                self._choose(cell)
            for cell in self._all_cells():
                if cell.seed != self.experiment.seeds[0]:
                    self._train(cell, must=True)
            for cell in self._all_cells():
                for settings in judged_on(variant(self.experiment, cell)):
                    self._test(cell, Workshop(settings, self.kept))
            if self.folder and self.records:
                choices = [self.choices[cell.slug] for cell in first_cells(self.experiment)]
                conclude(self.folder, self.records.tracker, choices)
            failed = False
        except Stopped as stopped:
            if self.records:
                self.records.tracker.preempted()
            raise Stopped(stopped.name, str(self.path)) from None
        finally:
            if self.records:
                self.records.close(failed)

    def _all_cells(self) -> list[Cell]:
        return [
            cell._replace(seed=seed, trial=self.choices[cell.slug]["trial"])
            for cell in first_cells(self.experiment)
            for seed in (
                self.experiment.seeds
                if self._workshop(cell).learner(cell.learner).random
                else self.experiment.seeds[:1]
            )
        ]

    def _workshop(self, cell: Cell) -> Workshop:
        return Workshop(variant(self.experiment, cell), self.kept)

    def _trains(self, cell: Cell) -> bool:
        return self._workshop(cell).learner(cell.learner).trains

    def _choose(self, first: Cell) -> None:
        """Score every trial on validation classes and keep the best."""
        if first.slug in self.choices:
            return
        scores = []
        tried = trials(self.experiment, first.learner)
        for trial in range(len(tried)):
            stopping.check(self.world)
            cell = first._replace(trial=trial)
            workshop = self._workshop(cell)
            learner = workshop.learner(first.learner)
            if learner.trains:
                scores.append(self._train(cell, must=len(tried) == 1))
            elif len(tried) == 1:
                scores.append(None)  # nothing to choose
            else:
                state = learner.init(seeded(cell.seed))
                scores.append(self._validation(workshop, learner, cell)(state))
        self.choices[first.slug] = choice(first, tried, scores)
        if self.world.first:
            write_json(self.path / CHOICES, self.choices)

    def _validation(
        self, workshop: Workshop, learner: Learner, cell: Cell
    ) -> Callable[[Params], float]:
        episodes = validation_episodes(workshop, cell.shots)
        return validation_score(learner, episodes, workshop.judges(self.world))

    def _train(self, cell: Cell, must: bool) -> float | None:
        """Meta-train a cell, or what is left of it.

        Returns:
            The best validation score; None if the loss became non-finite and `must` is false.
        """
        workshop = self._workshop(cell)
        learner = workshop.learner(cell.learner)
        if not learner.trains:
            return None
        place = self.checkpoints / cell.slug
        saved = self.world.from_first(partial(checkpoint.load, place))
        if saved is not None and saved[1]["ended"]:
            return saved[1]["best_score"]
        stream = workshop.training_stream(cell.shots, cell.seed)
        curriculum = build_curriculum(workshop.experiment, stream)
        make = workshop.training_episodes(cell.shots, cell.seed, curriculum)
        # What a curriculum chooses is not known ahead; numbers are drawn faster than handed on.
        ahead = 2 if curriculum is None and workshop.family.kind != "value" else 0
        episodes = Prefetch(make, workshop.outer_loop().steps, ahead)
        learner.tasks_per_pass = tasks_per_pass(
            workshop.experiment, cell.learner, learner, make(0), workshop.device
        )
        training = MetaTraining(
            learner,
            episodes,
            self._validation(workshop, learner, cell),
            workshop.outer_loop(),
            seeded(cell.seed),
            curriculum,
            self.world,
        )
        seconds = 0.0
        if saved is not None:
            training.restore(*saved)
            seconds = saved[1]["seconds"]
        total, every = training.loop.steps, workshop.experiment.outer.checkpoint_every
        console = None if self.world.first else SILENT
        shown = Progress(total, cell.slug, start=training.step, console=console)
        with episodes, shown as progress:
            while not training.done:
                try:
                    figures = training.take_step()
                except NonFiniteLoss as error:
                    # Without it the run cannot go on: a resumed one tries the step again.
                    self._save(place, training, seconds, ended=not must, score=None)
                    if must:
                        raise Diverged(f"{cell.slug}: {error}") from None
                    return None
                seconds += figures["seconds"]
                record = cell._asdict() | {"step": training.step} | figures
                if self.records:
                    self.records.append(record)
                shown = {n: figures[n] for n in ("loss", "validation", "best") if n in figures}
                progress.update(training.step, shown)
                stop = stopping.asked(self.world)
                if stop or training.step % every == 0 or training.done:
                    self._save(place, training, seconds, training.done, training.best_score)
                if stop:
                    stopping.check(self.world)
        return training.best_score

    def _save(
        self, place: Path, training: MetaTraining, seconds: float, ended: bool, score: float | None
    ) -> None:
        tensors, numbers = training.snapshot()
        agree(tensors, self.world)
        if self.records is None:
            return
        records = self.records.sync()
        numbers |= {"seconds": seconds, "ended": ended, "records": records}
        if ended:
            numbers["best_score"] = score
        checkpoint.save(place, tensors, numbers)

    def _test(self, cell: Cell, workshop: Workshop) -> None:
        """Judge a cell on the test tasks of a family, for every number of shots it was trained for.

        One learner serves all of them, so that its kept features do; what a batch computes depends
        in the last bits on what was kept before it, so an interrupted cell is judged anew.
        """
        wanted = self.experiment.episodes.shots if cell.shots == 0 else (cell.shots,)
        slug = placed_on(cell.slug, workshop.experiment)
        parts = {shots: outcome.part(self.path, slug, shots) for shots in wanted}
        if self.world.from_first(lambda: all(part.exists() for part in parts.values())):
            return
        learner = workshop.learner(cell.learner)
        read = partial(best_state, self.checkpoints, learner, cell)
        # What is not trained is not read: all make it, where the layers are divided together.
        state, seconds = self.world.from_first(read) if learner.trains else read()
        for shots, part in parts.items():
            place = {"learner": cell.learner, "fold": cell.fold, "shots": shots, "seed": cell.seed}
            here = workshop.placed(state)
            judge(part, workshop, learner, here, place, seconds, self.world)


def conclude(folder: RunFolder, tracker: Sinks, choices: list[dict[str, Any]]) -> None:
    """Tables, figures and the report of a run folder, from its parts."""
    # Here: matplotlib is not what a run should wait for at its start.
    from experiments.analysis.figures import drawn
    from experiments.analysis.tables import write_tables
    from experiments.figures import training_curves
    from experiments.report import write_report

    path, experiment = folder.path, folder.experiment
    result = outcome.merge(path, experiment, choices)
    title = f"{experiment.name}: {experiment.description}"
    write_tables(path, result)
    figures = drawn(result, folder.figures, title)
    records = read_metrics(folder.metrics)
    if records:
        figures.append(training_curves(records, folder.figures / "training.png"))
    report = write_report(path, result=result)
    best = best_checkpoint(path)
    tracker.conclude(Findings(result["curves"], result["rows"], figures, report, best))
    tracker.finish()  # before the result: with it the run counts as done
    write_json(path / outcome.RESULT, result)


def show(folder: RunFolder) -> None:
    """Print the result's table and the paths of the figures."""
    Console().print(result_table(read_json(folder.path / outcome.RESULT)))
    for figure in sorted(folder.figures.glob("*.png")):
        print(figure)
