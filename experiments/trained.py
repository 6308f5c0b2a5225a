"""A finished run, read: which learners it trained, with which settings, and their best states."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments import checkpoint, outcome
from experiments.build import Workshop, seeded
from experiments.cells import CHOICES, Cell, first_cells, variant
from experiments.errors import UserError, nearest
from experiments.files import read_json
from experiments.folder import CONFIG, load_experiment
from meta_models.params import Params
from metalearn.learner import Learner


class TrainedRun:
    """The learners of a finished run.

    Args:
        path: A run folder of `metalearn train`.
        kept: Objects shared with other runs, see `Workshop`.

    Attributes:
        path: The folder.
        name: Its name.
        experiment: Its settings.
        result: What its `result.json` holds.

    Raises:
        UserError: If it is no run folder, or the run is not finished.
    """

    def __init__(self, path: Path, kept: dict[str, Any] | None = None) -> None:
        if not (path / CONFIG).exists():
            raise UserError(f"{path} is no run folder (it has no {CONFIG}); see runs/")
        self.path = path
        self.name = path.resolve().name
        self.experiment = load_experiment(path)
        if not (path / outcome.RESULT).exists():
            raise UserError(
                f"run {path} is not finished; "
                f"finish it with metalearn train {self.experiment.name} --resume {path}"
            )
        if not (path / CHOICES).exists():
            raise UserError(f"{path} holds an evaluation, not a training; name the run it judged")
        self.result = read_json(path / outcome.RESULT)
        self._choices = read_json(path / CHOICES)
        self._kept = {} if kept is None else kept

    def learners(self) -> dict[str, bool]:
        """Its learners by name, and whether each was trained."""
        first = {cell.learner: cell for cell in reversed(first_cells(self.experiment))}
        return {
            name: self.workshop(first[name]).learner(name).trains
            for name in self.experiment.learners
        }

    def cell(self, learner: str, fold: str | None = None, shots: float = 0) -> Cell:
        """What was chosen for a learner, with the first seed.

        Args:
            learner: Its name.
            fold: The fold; None, or one that the run did not train on: its first.
            shots: K; of the trainings for several K the nearest one is taken.

        Raises:
            UserError: If the run has no such learner.
        """
        names = self.experiment.learners
        if learner not in names:
            hint = nearest(learner, names) or f"; it has {', '.join(names)}"
            raise UserError(f"run {self.path} has no learner {learner}{hint}")
        cells = [cell for cell in first_cells(self.experiment) if cell.learner == learner]
        same_fold = [cell for cell in cells if cell.fold == fold]
        cells = same_fold or [cell for cell in cells if cell.fold == cells[0].fold]
        best = min(cells, key=lambda cell: abs(cell.shots - shots))
        return best._replace(trial=self.choice(best)["trial"])

    def choice(self, cell: Cell) -> dict[str, Any]:
        """What was chosen for a cell on validation classes, and how every trial scored."""
        return self._choices[cell._replace(seed=self.experiment.seeds[0], trial=0).slug]

    def workshop(self, cell: Cell, settings: Mapping[str, Any] | None = None) -> Workshop:
        """Objects with the settings of a cell, some of them replaced."""
        experiment = variant(self.experiment, cell).override(dict(settings or {}))
        return Workshop(experiment, self._kept)

    def state(self, learner: Learner, cell: Cell) -> tuple[Params, float]:
        """The best state of a cell, see `best_state`."""
        state, seconds = best_state(self.path / "checkpoints", learner, cell)
        return self.workshop(cell).placed(state), seconds


def best_state(checkpoints: Path, learner: Learner, cell: Cell) -> tuple[Params, float]:
    """The state of a cell with the best validation score; a fresh one where nothing is trained.

    Args:
        checkpoints: Folder of the run's checkpoints.
        learner: The learner of the cell.
        cell: The cell.

    Returns:
        The state, and the seconds that its training took.

    Raises:
        UserError: If the checkpoint is missing or damaged.
    """
    if not learner.trains:
        return learner.init(seeded(cell.seed)), 0.0
    found = checkpoint.load(checkpoints / cell.slug)
    if found is None:
        raise UserError(f"no whole checkpoint in {checkpoints / cell.slug}; train the run again")
    return outcome.best_state(found[0]), found[1]["seconds"]
