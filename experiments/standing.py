"""How a run stands on validation classes: the metric of a sweep, from the records of its trainings.

The score of a training (learner, fold, shots, seed; of a grid the best) is its best one so far:
the mean accuracy on the validation tasks, minus the mean loss where tasks hold numbers.  Larger is
better, and no test task is behind it.

    validation            mean over all trainings of the run
    LEARNER/validation    mean over those of one learner

A learner that is not trained (prototypes, finetune) has none.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Self

VALIDATION = "validation"
Training = tuple[str, str, int, int]
"""Learner, fold, shots and seed."""


class Standing:
    """The scores of a run so far.

    Attributes:
        count: Validations so far.

    Example:
        >>> first = {"learner": "maml", "fold": "", "shots": 1, "seed": 0, "validation": 0.5}
        >>> Standing.of([first, first | {"validation": 0.25}, first | {"seed": 1}]).metrics()
        {'validation': 0.5, 'maml/validation': 0.5}
    """

    def __init__(self) -> None:
        self.count = 0
        self._best: dict[Training, float] = {}

    @classmethod
    def of(cls, records: Iterable[dict[str, Any]]) -> Self:
        """The standing after these records of `metrics.jsonl`."""
        standing = cls()
        for record in records:
            standing.add(record)
        return standing

    def add(self, record: dict[str, Any]) -> bool:
        """Take up a record.

        Returns:
            Whether it was one of a validation.
        """
        score = record.get("validation")
        if score is None:
            return False
        self.count += 1
        training = (record["learner"], record["fold"], record["shots"], record["seed"])
        if score > self._best.get(training, -math.inf):
            self._best[training] = score
        return True

    def metrics(self) -> dict[str, float]:
        """Every metric by name."""
        learners = dict.fromkeys(training[0] for training in self._best)
        names = [VALIDATION, *(f"{learner}/{VALIDATION}" for learner in learners)]
        scores = {name: list(self._of(name).values()) for name in names}
        return {name: math.fsum(found) / len(found) for name, found in scores.items() if found}

    def places(self, metric: str) -> list[float]:
        """A metric for each fold and seed: what an interval of it stands on."""
        groups: dict[tuple[str, int], list[float]] = {}
        for (_, fold, _, seed), score in self._of(metric).items():
            groups.setdefault((fold, seed), []).append(score)
        return [math.fsum(group) / len(group) for group in groups.values()]

    def _of(self, metric: str) -> dict[Training, float]:
        learner = metric.removesuffix(VALIDATION).rstrip("/")
        return {key: score for key, score in self._best.items() if learner in ("", key[0])}


def scores(records: Iterable[dict[str, Any]], metric: str) -> list[float]:
    """A metric after each validation of a run.

    Example:
        >>> record = {"learner": "maml", "fold": "", "shots": 1, "seed": 0}
        >>> scores([record | {"validation": score} for score in (0.5, 0.25, 0.75)], "validation")
        [0.5, 0.5, 0.75]
    """
    standing, found = Standing(), []
    for record in records:
        if standing.add(record):
            found.append(standing.metrics().get(metric, -math.inf))
    return found
