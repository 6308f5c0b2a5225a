"""Where tasks are judged: the portfolio and the instruments of one process, built once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from experiments.build import Workshop
from experiments.selection import portfolio, sources
from experiments.selection.instruments import anchors_of, build_instruments
from experiments.selection.sources import Planned
from meta_models.errors import ModelError
from meta_models.features import FeatureStore
from meta_models.model import AdaptedModel
from metalearn.selection import features
from metalearn.selection.portfolio import Member
from metalearn.selection.trial import judge, validate
from tasks.episode import Episode, Task


class Bench:
    """Judges tasks.

    Args:
        learners: Members of the portfolio.
        trained: Run folder of those that are meta-trained.
        folder: The matrix's folder.
    """

    def __init__(self, learners: tuple[str, ...], trained: Path, folder: Path) -> None:
        self._learners = learners
        self._trained = trained
        self._kept: dict[str, Any] = {}
        self._anchors = anchors_of(self._base(), folder)

    def judge(self, planned: Planned, folds: int) -> dict[str, Any]:
        """Everything that is measured on a task, for JSON.

        What is kept of the texts of a task is dropped after it, so that a task does not depend on
        those before.

        Args:
            planned: The task.
            folds: Folds of the cross-validation on the first support set.
        """
        stores: dict[str, FeatureStore] = {}
        built = portfolio.build(self._learners, self._trained, self._kept, stores)
        built.refuse([planned.source])
        instruments = build_instruments(self._base(stores), self._anchors)
        tasks = [sources.draw(planned, index) for index in range(planned.sets)]
        found, seconds = features.describe(self._episode(tasks[0]).support, instruments)
        record = {
            "task": planned.name,
            "source": planned.source,
            "seed": sources.stream(planned).seed,
            "features": found,
            "feature_seconds": seconds,
            "sets": [self._set(planned, task) for task in tasks],
            "learners": {
                member.name: self._member(member, tasks, folds) for member in built.members
            },
        }
        for model in self._kept.values():
            if isinstance(model, AdaptedModel) and model.trunk is not None:
                model.trunk.forget()
        return record

    def _set(self, planned: Planned, task: Task) -> dict[str, list[int]]:
        """Queries of a support set: record, class, and the half they are in."""
        place = {name: c for c, name in enumerate(task.label_names)}
        return {
            "support": [example.id for example in task.support],
            "example": [example.id for example in task.query],
            "label": [place[example.label or ""] for example in task.query],
            "part": [sources.part(planned, example) for example in task.query],
        }

    def _member(self, member: Member, tasks: list[Task], folds: int) -> dict[str, Any]:
        """What a member says of the queries of every support set, and its score on the first."""
        try:
            trials = [judge(member, self._episode(task)) for task in tasks]
        except ModelError as error:  # more classes than a head has rows, say
            return {"passes": member.passes, "unable": str(error)}
        return {
            "passes": member.passes,
            "unable": None,
            "try": validate(member, tasks[0], self._episode, folds),
            "predictions": [trial.predictions.tolist() for trial in trials],
            "seconds": [trial.seconds for trial in trials],
        }

    def _episode(self, task: Task) -> Episode:
        return self._base().collator.collate([task], [0])

    def _base(self, stores: dict[str, FeatureStore] | None = None) -> Workshop:
        workshop = Workshop(portfolio.TRAINED, self._kept)
        workshop.stores = stores
        return workshop
