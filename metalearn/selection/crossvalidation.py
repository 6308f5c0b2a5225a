"""A policy judged on tasks of sources that it was not fitted on.

Of every fold the policy is fitted on the tasks of the others, then goes over the fold's tasks, one
after the other.  The outcome of choice a on task t is its utility over all parts of the queries
less what was spent on tries,

    s_t = u_ta - lambda sum_{b tried on t} cost_tb.

No source is on both sides: tasks of one data set know each other's outcome.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from metalearn.selection.policy import Answers, Policy
from metalearn.selection.problem import Problem


@dataclass(frozen=True)
class Judged:
    """What a policy chose and got, in each of R repetitions of a cross-validation.

    Attributes:
        problem: On which.
        choices: Learner of every task `[R, T]`.
        utilities: What it brought, less what was spent on tries `[R, T]`.
        order: Tasks in the order in which they were met `[R, T]`.
        tried: In which place a learner was tried before, see `Answers` `[R, T, A]`.
    """

    problem: Problem
    choices: np.ndarray
    utilities: np.ndarray
    order: np.ndarray
    tried: np.ndarray

    @property
    def spent(self) -> np.ndarray:
        """Cost of all that was tried `[R, T]`."""
        return np.where(self.tried > 0, self.problem.costs, 0.0).sum(2)


def folds_by_source(problem: Problem, count: int, seed: int) -> np.ndarray:
    """A fold for each task `[T]`, the same for all tasks of a source.

    Sources go, the largest first and equal ones in random order, to the fold that is smallest.

    Args:
        problem: The tasks.
        count: Number of folds.
        seed: Of the order.

    Raises:
        ValueError: If there are fewer sources than folds.

    Example:
        >>> none = np.zeros((5, 0)), np.zeros((1, 5, 1)), np.zeros((5, 1))
        >>> problem = Problem(tuple("abcde"), tuple("sstuu"), ("one",), (), *none)
        >>> folds = folds_by_source(problem, 3, seed=0)
        >>> bool(folds[0] == folds[1]), bool(folds[3] == folds[4]), len(set(folds))
        (True, True, 3)
    """
    sources, counts = np.unique(np.array(problem.sources, dtype=object), return_counts=True)
    if not 2 <= count <= len(sources):
        raise ValueError(f"{count} folds of {len(sources)} sources; give 2 to {len(sources)} folds")
    shuffled = np.random.default_rng(seed).permutation(len(sources))
    size, fold = np.zeros(count), {}
    for place in sorted(shuffled, key=lambda place: -counts[place]):
        smallest = int(size.argmin())
        fold[sources[place]] = smallest
        size[smallest] += counts[place]
    return np.array([fold[source] for source in problem.sources])


def judge(
    make: Callable[[], Policy],
    problem: Problem,
    folds: np.ndarray,
    *,
    seed: int = 0,
    learning: bool = False,
) -> Judged:
    """Cross-validate a policy.

    Args:
        make: Makes the policy, anew for every fold.
        problem: Tasks and outcomes.
        folds: Fold of each task `[T]`, or in each of R repetitions `[R, T]`.
        seed: Fold k of repetition r is fitted, and its tasks are put in order, with seeds of their
            own that follow from it.
        learning: Whether the policy goes on learning from the outcomes of its choices on the tasks
            it is judged on; only an online policy does.

    Raises:
        ValueError: If folds do not fit the tasks, there is only one, or a source is in two.
    """
    folds = np.atleast_2d(folds)
    if folds.shape[1] != len(problem.tasks):
        raise ValueError(f"folds of {folds.shape[1]} tasks, but there are {len(problem.tasks)}")
    choices = np.zeros(folds.shape, dtype=np.int64)
    tried = np.zeros((*folds.shape, len(problem.learners)), dtype=np.int64)
    orders = []
    for repetition, fold in enumerate(folds):
        _check(problem, fold)
        met = []
        for number in np.unique(fold):
            fitting, streaming = np.random.SeedSequence([seed, repetition, number]).spawn(2)
            policy = make()
            policy.fit(
                problem.select(np.flatnonzero(fold != number)),
                int(fitting.generate_state(1)[0]),
            )
            rows = np.random.default_rng(streaming).permutation(np.flatnonzero(fold == number))
            answers = stream(policy, problem.select(rows), learning)
            choices[repetition, rows], tried[repetition, rows] = answers.choices, answers.tried
            met.append(rows)
        orders.append(np.concatenate(met))
    return judged(problem, choices, np.stack(orders), tried)


def stream(policy: Policy, problem: Problem, learning: bool) -> Answers:
    """Answers of a fitted policy to the tasks of a problem, in their order."""
    if not (learning and policy.online):
        return policy.answer(problem.asked())
    choices = []
    for features, able, utilities in zip(problem.features, problem.able, problem.mean, strict=True):
        choices.append(policy.choose(features, able))
        policy.learn(features, choices[-1], float(utilities[choices[-1]]))
    return Answers(np.array(choices), np.zeros(problem.able.shape, np.int64))


def judged(
    problem: Problem,
    choices: np.ndarray,
    order: np.ndarray | None = None,
    tried: np.ndarray | None = None,
) -> Judged:
    """What choices bring.

    Args:
        problem: On which tasks.
        choices: `[R, T]`.
        order: `[R, T]`; None: that of the tasks.
        tried: `[R, T, A]`; None: nothing was.

    Raises:
        ValueError: If a choice is not able on its task.

    Example:
        >>> problem = Problem(
        ...     ("one", "two"), ("s", "s"), ("cheap", "dear"), (), np.zeros((2, 0)),
        ...     np.array([[[0.5, 0.9], [0.8, 0.6]]]), np.ones((2, 2)),
        ... )
        >>> judged(problem, np.array([[1, 1]])).utilities
        array([[0.9, 0.6]])
    """
    rows = np.arange(len(problem.tasks))
    lost = np.argwhere(~problem.able[rows, choices])
    if len(lost):
        learner = problem.learners[choices[tuple(lost[0])]]
        raise ValueError(f"{learner} was chosen for {problem.tasks[lost[0][1]]}, but is not able")
    order = np.broadcast_to(rows, choices.shape) if order is None else order
    tried = np.zeros((*choices.shape, len(problem.learners)), np.int64) if tried is None else tried
    found = Judged(problem, choices, problem.mean[rows, choices], order, tried)
    # u_ta - lambda sum_{b tried} cost_tb
    return replace(found, utilities=found.utilities - problem.price * found.spent)


def single_best(problem: Problem) -> Judged:
    """The learner that is best over all tasks: no policy, for it has seen those it is judged on."""
    return judged(problem, np.full((1, len(problem.tasks)), problem.single_best))


def virtual_best(problem: Problem) -> Judged:
    """The best learner of each task, cross-fitted: no policy, for it knows the outcomes.

    Choices are those on all parts of the queries; utilities are `Problem.virtual_best`.
    """
    choices = np.where(problem.able, problem.mean, -np.inf).argmax(1)[None]
    return replace(judged(problem, choices), utilities=problem.virtual_best()[None])


def _check(problem: Problem, fold: np.ndarray) -> None:
    if len(np.unique(fold)) < 2:
        raise ValueError("one fold; a policy needs tasks to learn from and others to be judged on")
    seen: dict[str, int] = {}
    for source, number in zip(problem.sources, fold, strict=True):
        if seen.setdefault(source, number) != number:
            raise ValueError(f"source {source} is in two folds; see folds_by_source")
