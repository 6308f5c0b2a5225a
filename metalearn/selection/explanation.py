"""Why a policy chose as it did, and what its choice can be expected to bring.

Which features decided: the share of training tasks whose value of a feature, put in place of the
task's own, changes the choice (permutation importance, Breiman 2001, "Random Forests", section 10,
of one choice in place of an error),

    I_j = mean_t 1[ pi(x with x_j = x_tj) != pi(x) ].

What a learner a is expected to bring to a task of another source, and how far off that can be:

    u_a(x) = a regression forest on {(x_t, u_ta)},    e_ta = u_ta - u_a^{-s(t)}(x_t)
    interval = u_a(x) + [2.5%, 97.5%] quantiles of e_a

with u_a^{-s} the forest of tasks that are of none of the sources left out together with s.  The
interval is one for the utility on a new task, not for a mean (Vovk, Gammerman and Shafer 2005,
"Algorithmic Learning in a Random World", on cross-validated residuals).
"""

from __future__ import annotations

import numpy as np

from metalearn.selection.crossvalidation import folds_by_source
from metalearn.selection.policy import Policy
from metalearn.selection.problem import Problem
from metalearn.selection.regression_forest import RegressionForest

FOLDS = 5  # of the residuals: each takes a forest a learner
TIMES = 8  # that a choice is repeated to see whether chance is in it


def deciding(
    policy: Policy, problem: Problem, features: np.ndarray, able: np.ndarray
) -> np.ndarray | None:
    """I of every feature `[F]`; None for a policy that does not choose the same twice.

    Args:
        policy: A fitted one.
        problem: What it was fitted on.
        features: Of the task `[F]`.
        able: Which learners can work on it `[A]`.

    Example:
        >>> from metalearn.selection.nearest_tasks import NearestTasks
        >>> features = np.stack([np.linspace(-1, 1, 20), np.ones(20)], 1)
        >>> up = features[:, :1]
        >>> names = tuple(map(str, range(20)))
        >>> problem = Problem(
        ...     names, names, ("up", "down"), ("x", "one"), features,
        ...     np.concatenate([up, -up], 1)[None], np.ones((20, 2)),
        ... )
        >>> policy = NearestTasks(k=1)
        >>> policy.fit(problem, seed=0)
        >>> deciding(policy, problem, np.array([0.9, 1.0]), np.array([True, True]))
        array([0.5, 0. ])
    """
    count, size = problem.features.shape
    same = np.repeat(features[None], TIMES, 0)
    choices = policy.choose_all(same, np.repeat(able[None], TIMES, 0))
    if len(set(choices.tolist())) > 1:
        return None
    # x with x_j = x_tj
    changed = np.repeat(features[None], count * size, 0).reshape(size, count, size)
    place = np.arange(size)
    changed[place, :, place] = problem.features.T
    found = policy.choose_all(
        changed.reshape(-1, size), np.repeat(able[None], count * size, 0)
    ).reshape(size, count)
    # I_j = mean_t 1[ pi(x with x_j = x_tj) != pi(x) ]
    return (found != choices[0]).mean(1)


def residuals(problem: Problem, seed: int) -> np.ndarray:
    """The quantiles of e_a `[A, 2]`; not a number where a learner is able on no task.

    Args:
        problem: Training tasks.
        seed: Of the forests and the folds.

    Raises:
        ValueError: If all tasks are of one source.
    """
    sources = len(set(problem.sources))
    if sources < 2:
        raise ValueError("all tasks are of one source; what to expect on others cannot be known")
    fold = folds_by_source(problem, min(FOLDS, sources), seed)
    errors = np.full(problem.mean.shape, np.nan)
    for number in np.unique(fold):
        held = np.flatnonzero(fold == number)
        forest = RegressionForest()
        forest.fit(problem.select(np.flatnonzero(fold != number)), seed)
        predicted = forest.scores(problem.features[held], problem.able[held])
        # e_ta = u_ta - u_a^{-s(t)}(x_t)
        errors[held] = problem.mean[held] - predicted
    known = np.where(np.isfinite(errors), errors, np.nan)
    return np.array(
        [
            np.nanquantile(column, (0.025, 0.975)) if np.isfinite(column).any() else [np.nan] * 2
            for column in known.T
        ]
    )


def expected(problem: Problem, features: np.ndarray, seed: int) -> np.ndarray:
    """u_a(x) `[A]` of a task with features `[F]`; -inf where a learner was able on no task."""
    forest = RegressionForest()
    forest.fit(problem, seed)
    return forest.scores(features[None], np.ones((1, len(problem.learners)), bool))[0]
