"""From measured cells to a problem: costs, holes, and learners that cannot."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from metalearn.selection.matrix import Matrix

RANDOM = np.random.default_rng(0)
TASK = np.array([0.1, 0.3, 0.5, 0.7])[:, None]
LEARNER = np.array([-0.1, 0.0, 0.1])


@pytest.fixture
def matrix() -> Matrix:
    """A task's ease plus a learner's strength: with margins alone, every cell is known."""
    additive = TASK + LEARNER
    return Matrix(
        ("t0", "t1", "t2", "t3"),
        ("s0", "s0", "s1", "s1"),
        ("cheap", "middle", "dear"),
        np.stack([additive, additive + 0.02]),
        np.tile([0.0, 1.0, 5.0], (4, 1)),
        np.tile([0.1, 0.2, 0.4], (4, 1)),
        additive - 0.05,
        np.zeros((4, 3), bool),
        ("ways",),
        np.arange(4.0)[:, None],
    )


def test_utility_is_accuracy_minus_weighted_cost(matrix) -> None:
    found = matrix.problem(0.01)
    np.testing.assert_allclose(found.utilities, matrix.accuracy - [[[0.0, 0.01, 0.05]]])
    np.testing.assert_allclose(found.tries, matrix.tries)
    by_time = matrix.problem(0.1, "seconds")
    np.testing.assert_allclose(by_time.utilities, matrix.accuracy - [[[0.01, 0.02, 0.04]]])
    assert found.sources == matrix.sources
    assert (found.price, by_time.price) == (0.01, 0.1)  # of a try, too


def hole(matrix: Matrix, task: int, learner: int) -> Matrix:
    names = ("passes", "seconds", "tries")
    changed = {name: getattr(matrix, name).copy() for name in names}
    for values in changed.values():
        values[task, learner] = np.nan
    accuracy = matrix.accuracy.copy()
    accuracy[:, task, learner] = np.nan
    return replace(matrix, accuracy=accuracy, **changed)


def test_a_missing_cell_is_refused_by_name(matrix) -> None:
    with pytest.raises(ValueError, match="no cell of learner dear on task t1, and 0 more"):
        hole(matrix, 1, 2).problem(0.01)


def test_a_missing_cell_is_marginalized_when_asked(matrix) -> None:
    """Where ease and strength add up, no hole is lost: it is neither zero nor the mean."""
    holed = hole(matrix, 1, 2).problem(0.0, missing="marginalize")
    # The mean of the task is over its other cells, and what a learner is above it is elsewhere.
    task = (TASK[1, 0] + LEARNER[:2]).mean()
    above = LEARNER[2] - LEARNER.mean()
    assert holed.utilities[0, 1, 2] == pytest.approx(task + above)
    assert holed.able.all()
    untouched = np.ones((4, 3), bool)
    untouched[1, 2] = False
    np.testing.assert_array_equal(
        holed.utilities[:, untouched], matrix.problem(0.0).utilities[:, untouched]
    )


def test_a_learner_without_any_cell_cannot_be_marginalized(matrix) -> None:
    for task in range(4):
        matrix = hole(matrix, task, 0)
    with pytest.raises(ValueError, match="no cell of cheap is measured"):
        matrix.problem(0.0, missing="marginalize")


def test_a_learner_that_cannot_is_no_missing_cell(matrix) -> None:
    holed = hole(matrix, 3, 0)
    unable = holed.unable.copy()
    unable[3, 0] = True
    found = replace(holed, unable=unable).problem(0.05)

    assert found.able.tolist() == [[True] * 3] * 3 + [[False, True, True]]
    assert found.learners[found.single_best] == "middle"
