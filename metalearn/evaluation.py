"""The episode protocol: every learner on the same tasks, every prediction kept.

A learner adapts to the support set of a task and is asked, after each of its steps 0..S, for the
classes of support and query.  Nothing is aggregated here: `Judged` holds one row a prediction and
one row a (task, split, step), from which curves, intervals and comparisons are made later.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from meta_models.model import item_labels
from meta_models.params import Params
from metalearn.distributed import ALONE, World
from metalearn.learner import Learner, in_passes
from metalearn.statistics import macro_f1
from tasks.episode import IGNORE, Batch, Episode

Row = dict[str, Any]


@dataclass
class Judged:
    """What was seen of one learner on some tasks.

    Attributes:
        scores: One row a task, split and step: episode, split, step, loss, accuracy, macro_f1
            (kind "value": loss only, accuracy and macro_f1 NaN).
        predictions: One row an item, split and step: episode, split, step, example, label,
            prediction, probability (of the prediction).
        seconds: Wall-clock seconds of adaptation, without prediction.
        tasks: Tasks judged.
    """

    scores: list[Row] = field(default_factory=list)
    predictions: list[Row] = field(default_factory=list)
    seconds: float = 0.0
    tasks: int = 0

    def final(self, metric: str = "accuracy", step: int | None = None) -> np.ndarray:
        """`[E]` query scores after `step` (None: the last step), ordered by episode."""
        last = max(row["step"] for row in self.scores) if step is None else step
        chosen = [r for r in self.scores if r["split"] == "query" and r["step"] == last]
        return np.array([r[metric] for r in sorted(chosen, key=lambda r: r["episode"])])


def evaluate(
    learner: Learner,
    state: Params,
    episodes: Iterable[Episode],
    *,
    curve: bool = True,
    progress: Callable[[int], None] = lambda tasks: None,
    world: World = ALONE,
) -> Judged:
    """Judge a learner on tasks.

    Args:
        learner: The learner.
        state: Its meta-parameters.
        episodes: Tasks, some at a time.
        curve: Judge support and query after every step; else the query after the last step only.
        progress: Called with the number of tasks done.
        world: The processes that share the passes; each of them gets what all have seen.
    """
    seen = []
    done = passes = 0
    for episode in episodes:
        for part in in_passes(episode, learner.tasks_per_pass):
            # Whole passes are shared: what a task computes depends in the last bits on the others.
            if passes % world.size == world.rank:
                seen.append(_pass(learner, state, part, curve))
            passes += 1
            done += part.tasks
        progress(done)
    shares = world.gather(seen)
    judged = Judged()
    for number in range(passes):
        one = shares[number % world.size][number // world.size]
        judged.scores += one.scores
        judged.predictions += one.predictions
        judged.seconds += one.seconds
        judged.tasks += one.tasks
    return judged


def _pass(learner: Learner, state: Params, part: Episode, curve: bool) -> Judged:
    """What is seen in one pass."""
    began = time.perf_counter()
    path = learner.adapt(state, part.support)
    judged = Judged(seconds=time.perf_counter() - began, tasks=part.tasks)
    for step in range(len(path)) if curve else [len(path) - 1]:
        for split in ("support", "query") if curve else ("query",):
            batch = getattr(part, split)
            outputs = learner.predict(path[step], batch).cpu()
            batch = batch.map(lambda tensor: tensor.cpu())
            _judge(judged, part.index, split, step, outputs, batch)
    return judged


def _judge(
    judged: Judged, index: Sequence[int], split: str, step: int, outputs: Tensor, batch: Batch
) -> None:
    if batch.kind == "value":
        _judge_values(judged, index, split, step, outputs, batch)
        return
    labels = item_labels(batch)
    losses = cross_entropy(outputs.transpose(1, 2), labels, ignore_index=IGNORE, reduction="none")
    probability, said = outputs.softmax(-1).max(-1)
    examples = (
        batch.ids
        if batch.kind == "class"
        else batch.ids.repeat_interleave(labels.shape[1] // batch.ids.shape[1], dim=1)
    )
    for task, episode in enumerate(index):
        real = labels[task] != IGNORE
        true, guess = labels[task][real].numpy(), said[task][real].numpy()
        place = {"episode": episode, "split": split, "step": step}
        judged.scores.append(
            place
            | {
                "loss": losses[task][real].double().mean().item(),
                "accuracy": float(np.mean(true == guess)),
                "macro_f1": macro_f1(true, guess),
            }
        )
        names = batch.label_names[task]
        judged.predictions += [
            place | {"example": e, "label": names[t], "prediction": names[g], "probability": p}
            for e, t, g, p in zip(
                examples[task][real].tolist(),
                true.tolist(),
                guess.tolist(),
                probability[task][real].tolist(),
                strict=True,
            )
        ]


def _judge_values(
    judged: Judged, index: Sequence[int], split: str, step: int, outputs: Tensor, batch: Batch
) -> None:
    assert batch.values is not None
    errors = (outputs - batch.values).square().mean(-1)
    for task, episode in enumerate(index):
        loss = errors[task][batch.example_mask[task]].double().mean().item()
        nothing = float("nan")
        judged.scores.append(
            {
                "episode": episode,
                "split": split,
                "step": step,
                "loss": loss,
                "accuracy": nothing,
                "macro_f1": nothing,
            }
        )


def validation_score(
    learner: Learner, episodes: Sequence[Episode], world: World = ALONE
) -> Callable[[Params], float]:
    """Score of a state for early stopping: mean query accuracy (minus the loss for values).

    Args:
        learner: The learner in training.
        episodes: Tasks of the validation split, the same every time.
        world: The processes that share them; all get the same score.
    """

    def score(state: Params) -> float:
        with torch.no_grad():
            judged = evaluate(learner, state, episodes, curve=False, world=world)
        if episodes[0].query.kind == "value":
            return -float(judged.final("loss").mean())
        return float(judged.final("accuracy").mean())

    return score
