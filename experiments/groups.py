"""Scores of tasks by fold and training, as intervals and comparisons need them."""

from __future__ import annotations

import numpy as np

Training = tuple[str, int]
"""Fold and seed."""
Groups = dict[tuple[str, Training], np.ndarray]
"""Scores of the episodes `[E]` of every fold and training.

All trainings judged on another family meet the same episodes: the fold is "" there.
"""
Finals = dict[int, dict[str, Groups]]
"""Final query scores by shots and learner."""


def finite(groups: Groups) -> bool:
    """Whether a metric is defined for these labels."""
    return bool(np.isfinite(next(iter(groups.values()))).all())


def by_fold(groups: Groups) -> list[np.ndarray]:
    """`[trainings, episodes]` of each fold: those of a fold are judged on the same episodes."""
    folds = dict.fromkeys(fold for fold, _ in groups)
    return [np.stack([groups[p] for p in sorted(groups) if p[0] == fold]) for fold in folds]


def first(groups: Groups, episodes: int) -> Groups:
    """The scores of the first episodes.

    Example:
        >>> first({("", ("01", 0)): np.array([1.0, 0.0])}, 1)
        {('', ('01', 0)): array([1.])}
    """
    return {place: scores[:episodes] for place, scores in groups.items()}


def pairs(ours: Groups, theirs: Groups) -> tuple[Groups, Groups]:
    """Groups of the same fold and seed; a side with one seed serves all seeds of the other.

    Where a side was judged on more episodes, those that both have met: the first ones.
    """
    kept: tuple[Groups, Groups] = ({}, {})
    for place in sorted(ours.keys() | theirs.keys()):
        group, (fold, _) = place
        sides = []
        for side in (ours, theirs):
            trained = [where for where in side if where[0] == group and where[1][0] == fold]
            sides.append(side.get(place, side[trained[0]] if len(trained) == 1 else None))
        if sides[0] is not None and sides[1] is not None:
            episodes = min(len(side) for side in sides)
            for side, groups in zip(sides, kept, strict=True):
                groups[place] = side[:episodes]
    return kept
