"""How well a policy chooses: utility, regret, closed gap, and what it chose.

With s_t the utility that a policy got on task t, SBS_t that of the single best learner and VBS_t
that of the virtual best (`metalearn.selection.problem`):

    regret      r_t = VBS_t - s_t,    R_n = sum_{t <= n} r_t, in the order of the tasks
    closed gap  (mean_t s_t - mean_t SBS_t) / (mean_t VBS_t - mean_t SBS_t)

Which single best: that of the training tasks of each fold (`judge(SingleBest, ...)`), which a user
could have had, or that over all tasks (`crossvalidation.single_best`), as in ASlib's tables.
Intervals are those of a bootstrap over sources, then tasks, in which all of a ratio is drawn alike;
the repetitions of a cross-validation share their tasks.  Bischl et al. 2016, "ASlib: A Benchmark
Library for Algorithm Selection", section 4; Lindauer, van Rijn and Kotthoff 2019, "The Algorithm
Selection Competitions 2015 and 2017", section 3.2, for the gap.
"""

from __future__ import annotations

import numpy as np

from metalearn.selection.crossvalidation import Judged
from metalearn.selection.problem import Problem
from metalearn.statistics import Interval, resampled_means


def regret(judged: Judged) -> np.ndarray:
    """Of every task `[R, T]`; below 0 where the choice beat the cross-fitted best."""
    return judged.problem.virtual_best() - judged.utilities


def cumulated_regret(judged: Judged) -> np.ndarray:
    """After each task, in the order in which they were met `[R, T]`."""
    return np.cumsum(np.take_along_axis(regret(judged), judged.order, 1), 1)


def mean_utility(judged: Judged, *, resamples: int = 2000, seed: int = 0) -> Interval:
    """Over repetitions and tasks."""
    ones = np.ones_like(judged.utilities)
    return _ratio(judged.problem, judged.utilities, ones, resamples, seed)


def mean_regret(judged: Judged, *, resamples: int = 2000, seed: int = 0) -> Interval:
    """Over repetitions and tasks."""
    lost = regret(judged)
    return _ratio(judged.problem, lost, np.ones_like(lost), resamples, seed)


def mean_cost(judged: Judged, *, resamples: int = 2000, seed: int = 0) -> Interval:
    """Of the chosen learners and of all that was tried, in the unit of the problem's costs."""
    costs = judged.problem.costs[np.arange(len(judged.problem.tasks)), judged.choices]
    costs = costs + judged.spent
    return _ratio(judged.problem, costs, np.ones_like(costs), resamples, seed)


def closed_gap(judged: Judged, single: Judged, *, resamples: int = 2000, seed: int = 0) -> Interval:
    """How much of the gap between single and virtual best a policy closes; 1 is all of it.

    Args:
        judged: The policy.
        single: The single best, on the same problem, with one choice a task or with the same
            repetitions, which are then compared one by one.
        resamples: Number of resamples.
        seed: Seed of the resampling.

    Raises:
        ValueError: If the virtual best is no better than the single best: there is no gap.

    Example:
        >>> from metalearn.selection.crossvalidation import judged, single_best
        >>> utilities = np.array([[[0.5, 0.9], [0.8, 0.6], [0.9, 0.5]]])
        >>> problem = Problem(
        ...     ("a", "b", "c"), ("a", "b", "c"), ("cheap", "dear"), (), np.zeros((3, 0)),
        ...     utilities, np.ones((3, 2)),
        ... )
        >>> found = judged(problem, np.array([[1, 1, 0]]))
        >>> round(closed_gap(found, single_best(problem)).mean, 6)
        0.5
    """
    above = judged.utilities - single.utilities
    gap = np.broadcast_to(judged.problem.virtual_best() - single.utilities, above.shape)
    if not gap.mean() > 0:
        raise ValueError(
            f"the virtual best is {gap.mean():g} above the single best: nothing to choose between"
        )
    return _ratio(judged.problem, above, gap, resamples, seed)


def share_best(judged: Judged) -> float:
    """Share of the tasks whose chosen learner is as good as the best one, over all queries."""
    best = np.where(judged.problem.able, judged.problem.mean, -np.inf).max(1)
    chosen = np.take_along_axis(judged.problem.mean, judged.choices.T, 1).T
    return float((chosen >= best).mean())


def frequencies(judged: Judged) -> np.ndarray:
    """Share of the tasks on which each learner was chosen `[A]`."""
    counts = np.bincount(judged.choices.ravel(), minlength=len(judged.problem.learners))
    return counts / judged.choices.size


def _ratio(
    problem: Problem, above: np.ndarray, below: np.ndarray, resamples: int, seed: int
) -> Interval:
    """sum above / sum below over all tasks `[R, T]`, resampled by sources, then tasks."""
    # sum_g n_g mean_g: with a source's size as weight each task counts alike, not each source
    groups = [(above[:, rows] * len(rows), below[:, rows] * len(rows)) for rows in _groups(problem)]
    drawn = [
        resampled_means(list(side), np.random.default_rng(seed), resamples)
        for side in zip(*groups, strict=True)
    ]
    # A resample may have no gap at all, of which nothing is a share.
    ratio = drawn[0] / np.where(drawn[1] == 0, np.nan, drawn[1])
    low, high = np.nanquantile(ratio, (0.025, 0.975))
    return Interval(float(above.mean() / below.mean()), float(low), float(high))


def _groups(problem: Problem) -> list[np.ndarray]:
    """Tasks of each source; all of them as one where each has its own, which draws the same."""
    sources = np.array(problem.sources, dtype=object)
    names = list(dict.fromkeys(problem.sources))
    if len(names) == len(sources):
        return [np.arange(len(sources))]
    return [np.flatnonzero(sources == name) for name in names]
