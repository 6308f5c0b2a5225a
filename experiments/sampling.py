"""From settings to what is done with the tasks of meta-training: the choice and the augmentation.

Only training tasks come here: validation and test tasks are drawn by `Workshop.stream` alone.
"""

from __future__ import annotations

from typing import Any

from experiments.config import Experiment
from experiments.errors import UserError
from experiments.learning import SamplingSettings
from tasks.augment import Augmentation, AugmentedStream, WordEdits
from tasks.curriculum import Curriculum, Difficulty, Progress
from tasks.episode import TaskError, TaskStream


def build_curriculum(experiment: Experiment, stream: TaskStream) -> Curriculum | None:
    """The curriculum that the settings ask for, None where there is none.

    Args:
        experiment: The settings.
        stream: The training tasks, before any augmentation.

    Raises:
        UserError: If the tasks are such that there is nothing to choose.
    """
    settings, outer = experiment.sampling, experiment.outer
    if settings.curriculum == "none":
        return None
    rules = {"difficulty": Difficulty(*settings.quantiles), "progress": Progress(settings.floor)}
    try:
        return Curriculum(
            stream,
            rules[settings.curriculum],
            tasks=outer.tasks,
            pool=settings.pool,
            steps=outer.steps,
            fast=settings.fast,
            slow=settings.slow,
        )
    except TaskError as error:
        raise UserError(f"sampling.curriculum: {error}") from None


def augmented(
    settings: SamplingSettings, stream: TaskStream, tokenizer: Any
) -> TaskStream | AugmentedStream:
    """The training tasks with the augmentation that the settings ask for, if any.

    Args:
        settings: The settings.
        stream: The training tasks.
        tokenizer: Knows the mask token; None where tasks have no text.

    Raises:
        UserError: If the tasks cannot be augmented so, or there is no mask token.
    """
    edits = {name: getattr(settings, name) for name in ("delete", "swap", "duplicate", "mask")}
    used = [name for name, share in ({"mix": settings.mix} | edits).items() if share]
    if not used:
        return stream
    word = getattr(tokenizer, "mask_token", None)
    if settings.mask and not word:
        raise UserError("sampling.mask: the backbone's tokenizer has no mask token; leave it at 0")
    words = WordEdits(**edits, mask_word=word or "") if any(edits.values()) else None
    try:
        return AugmentedStream(stream, Augmentation(settings.mix, words, settings.sets))
    except TaskError as error:
        raise UserError(f"{', '.join(f'sampling.{name}' for name in used)}: {error}") from None
