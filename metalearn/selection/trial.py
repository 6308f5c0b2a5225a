"""Trying a learner on a task: what it says of the queries, and what it is worth on the support.

The score that may be seen before the queries are is that of stratified cross-validation: example j
of a class is held out in fold j mod F,

    try = (1/n) sum_f sum_{i in S_f} [ y(x_i; adapted to S without S_f) = y_i ].

A class with one example is never held out, since no learner could know it.  Where no class has two,
nothing can be held out at all, and the score is that of guessing, 1/N.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from meta_models import clock
from metalearn.selection.portfolio import Member
from tasks.episode import Episode, Task

Collate = Callable[[Task], Episode]
"""Makes a task an episode of one."""


@dataclass(frozen=True)
class Trial:
    """What a learner said of the queries of a task.

    Attributes:
        predictions: Class of each query `[Q]`.
        seconds: Of adapting to the support and predicting the queries, kept features included.
    """

    predictions: np.ndarray
    seconds: float


def judge(member: Member, episode: Episode) -> Trial:
    """Adapt a member to the support of a task and ask it for the queries.

    Args:
        member: The member.
        episode: One task.

    Raises:
        ValueError: If there are several; or whatever the learner raises that cannot work on it.
    """
    if episode.tasks != 1:
        raise ValueError(f"a learner is tried on one task at a time, not on {episode.tasks}")
    began = clock.now()
    adapted = member.learner.adapt(member.state, episode.support)[-1]
    logits = member.learner.predict(adapted, episode.query)
    predictions = logits[0].argmax(-1).cpu().numpy()
    return Trial(predictions, clock.now() - began)


def folds(task: Task, count: int) -> list[Task]:
    """Tasks whose queries are the examples of the support that are held out.

    Args:
        task: Its support is divided; its queries are in none of the folds.
        count: F, at most; there are no more than the largest class has examples.

    Returns:
        Folds that hold something out: none where every class has one example.

    Raises:
        ValueError: If there are fewer than two folds.

    Example:
        >>> from tasks.episode import Example
        >>> support = tuple(Example(i, f"text {i}", label="ab"[i % 2]) for i in range(5))
        >>> task = Task("source", "class", support, (), ("a", "b"), (0, 1))
        >>> [[example.id for example in fold.query] for fold in folds(task, 2)]
        [[0, 1, 4], [2, 3]]
    """
    if count < 2:
        raise ValueError(f"{count} folds cannot hold out and keep; give 2 or more")
    groups = defaultdict(list)
    for example in task.support:
        groups[example.label].append(example)
    fold = {
        example.id: place % count
        for group in groups.values()
        for place, example in enumerate(group)
        if len(group) > 1
    }
    return [
        replace(
            task,
            support=tuple(e for e in task.support if fold.get(e.id) != held),
            query=tuple(e for e in task.support if fold.get(e.id) == held),
        )
        for held in sorted(set(fold.values()))
    ]


def validate(member: Member, task: Task, collate: Collate, count: int) -> float:
    """Cross-validated accuracy of a member on the support of a task; 1/N where there is none.

    Args:
        member: The member.
        task: The task; its queries are not read.
        collate: Makes a task an episode.
        count: F, folds.
    """
    right = seen = 0
    for part in folds(task, count):
        episode = collate(part)
        assert episode.query.labels is not None
        found = judge(member, episode).predictions == episode.query.labels[0].numpy()
        right, seen = right + int(found.sum()), seen + len(found)
    return right / seen if seen else 1 / len(task.label_names)
