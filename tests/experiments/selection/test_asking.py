"""A policy is asked about a user's task: tries are run as they are asked for, and once."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from experiments.selection.asking import Question
from experiments.selection.fitting import Fitted
from experiments.selection.settings import Fitting
from metalearn.selection.policy import Answers, Examiner
from metalearn.selection.problem import Problem


class Stepwise(Examiner):
    """Tries c; then a where c was good, else b: nobody can know which before."""

    def fit(self, problem: Problem, seed: int) -> None: ...

    def answer(self, problem: Problem) -> Answers:
        scores, able = problem.scores[0], problem.able[0]
        path = [2, 0] if scores[2] > 0.5 else [2, 1]
        tried = np.zeros((1, 3), np.int64)
        tried[0, path] = [1, 2]
        best = np.where(able & (tried[0] > 0), scores, -1.0)
        return Answers(np.array([best.argmax()]), tried * able)


def question(scores: list[float]) -> tuple[Question, list[int]]:
    problem = Problem(
        ("t",), ("s",), ("a", "b", "c"), ("x",), np.zeros((1, 1)), np.zeros((1, 1, 3)),
        np.ones((1, 3)),
    )  # fmt: skip
    policy = Stepwise()
    wanted = Fitting(matrix="none", policy="none")
    fitted = Fitted(Path("none"), wanted, policy, problem, {})
    ran: list[int] = []

    def validate(learner: int) -> float:
        ran.append(learner)
        return scores[learner]

    return Question(fitted, np.ones(1), None, validate), ran


def test_only_what_is_asked_for_is_tried_in_its_order():
    for scores, path, best in (([0.7, 0.1, 0.6], [2, 0], 0), ([0.7, 0.1, 0.4], [2, 1], 2)):
        asked, ran = question(scores)
        assert asked.choice(np.ones(3, bool)) == best
        assert ran == path
        assert asked.scores == {learner: scores[learner] for learner in path}


def test_the_runner_up_needs_no_further_try():
    asked, ran = question([0.7, 0.1, 0.6])
    able = np.ones(3, bool)
    assert asked.choice(able) == 0
    # Without a there is c, whose score is known.
    assert asked.runner_up(able, 0) == 2 and ran == [2, 0]
    # Without c something else is tried second: it would have to be run.
    only = np.array([True, False, False])
    assert asked.runner_up(only, 0) is None


def test_nothing_is_said_where_another_would_have_to_be_tried():
    asked, ran = question([0.7, 0.1, 0.6])
    assert asked.choice(np.array([True, True, True])) == 0
    asked.scores.pop(2)
    assert asked.runner_up(np.ones(3, bool), 0) is None and ran == [2, 0]
