"""The recurrent reader: what it reads, and what it does not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from metalearn.selection.problem import Problem
from metalearn.selection.reader import Reader
from metalearn.selection.readings import Readings


def tasks(count: int, seed: int) -> tuple[Readings, np.ndarray]:
    """The first learner is best where the first number of the embeddings is large on the whole."""
    random = np.random.default_rng(seed)
    lean = random.choice([-1.0, 1.0], count)
    lengths = random.integers(4, 9, count)
    embeddings = [
        np.column_stack([lean[t] + random.standard_normal(n), random.standard_normal(n)])
        for t, n in enumerate(lengths)
    ]
    labels = [list(random.integers(0, 3, n)) for n in lengths]
    utilities = np.stack([0.5 + 0.3 * lean, 0.5 - 0.3 * lean, np.full(count, 0.4)], 1)
    utilities[: count // 4, 2] = np.nan
    return Readings.of(embeddings, labels), utilities


def problem(count: int, seed: int) -> Problem:
    """The same without any feature: only who reads can choose."""
    readings, utilities = tasks(count, seed)
    names = tuple(map(str, range(count)))
    none = np.zeros((count, 0))
    return Problem(
        names, names, ("up", "down", "same"), (), none, utilities[None], np.ones((count, 3)),
        readings=readings,
    )  # fmt: skip


def test_it_learns_from_examples_which_learner_is_best() -> None:
    told: list = []
    reader = Reader(updates=60, tasks=64, width=16, rate=0.02, watch=told.append)
    reader.fit(problem(256, seed=0), seed=0)
    new = problem(200, seed=1)
    answers = reader.answer(new.asked())
    assert (answers.choices == np.nanargmax(new.mean, 1)).mean() > 0.85
    assert not answers.tried.any()
    assert told[-1]["outcome"] > told[0]["outcome"]
    lone = np.where([False, False, True], 0.0, np.nan) * np.ones((1, 200, 3))
    assert (reader.answer(replace(new, utilities=lone)).choices == 2).all()


def test_what_was_kept_of_it_chooses_the_same() -> None:
    known, new = problem(32, seed=0), problem(40, seed=1)
    reader, again = (Reader(updates=3, tasks=16, width=8) for _ in range(2))
    reader.fit(known, seed=5)
    # The examples it was trained on are not needed any more.
    again.restore(replace(known, readings=None), 5, reader.trained())
    for one in (new, new.select([3])):
        np.testing.assert_array_equal(again.answer(one).choices, reader.answer(one).choices)


def test_padding_is_never_read() -> None:
    reader = Reader(updates=3, tasks=16, width=8)
    readings = tasks(32, seed=0)[0]
    reader.fit(problem(32, seed=0), seed=0)
    able = np.ones((32, 3), bool)
    embeddings, labels = readings.embeddings.copy(), readings.labels.copy()
    beyond = np.arange(embeddings.shape[1]) >= readings.lengths[:, None]
    embeddings[beyond], labels[beyond] = np.nan, 99
    changed = Readings(np.where(np.isnan(embeddings), 1e3, embeddings), labels, readings.lengths)
    np.testing.assert_allclose(
        reader.chances(readings, able), reader.chances(changed, able), rtol=1e-5
    )


def test_shuffling_keeps_every_example_with_its_class() -> None:
    readings, _ = tasks(10, seed=2)
    mixed = readings.shuffled(3, np.random.default_rng(0))
    for t, length in enumerate(readings.lengths):
        before = {
            tuple(e): y
            for e, y in zip(readings.embeddings[t, :length], readings.labels[t], strict=False)
        }
        after = {
            tuple(e): y for e, y in zip(mixed.embeddings[t, :length], mixed.labels[t], strict=False)
        }
        assert before.keys() == after.keys()
        # One new number for each old one.
        assert len({(before[e], after[e]) for e in before}) == len(set(before.values()))


def test_more_classes_than_in_training_share_numbers() -> None:
    reader = Reader(updates=1, tasks=8, width=4)
    reader.fit(problem(8, seed=0), seed=0)  # of three classes
    more = Readings.of([np.zeros((6, 2))], [[0, 1, 2, 3, 4, 5]])
    assert set(more.shuffled(3, np.random.default_rng(0)).labels[0]) == {0, 1, 2}
    chances = reader.chances(more, np.ones((1, 3), bool))
    assert chances.sum() == pytest.approx(1)


def test_mistakes_are_named() -> None:
    reader = Reader(updates=1, tasks=8, width=4)
    blind = replace(problem(8, seed=0), readings=None)
    with pytest.raises(ValueError, match="no readings"):
        reader.fit(blind, seed=0)
    reader.fit(problem(8, seed=0), seed=0)
    with pytest.raises(ValueError, match="no readings"):
        reader.answer(blind)
    with pytest.raises(ValueError, match=r"readings have shape \(7,\), expected \(8,\)"):
        replace(blind, readings=tasks(7, seed=0)[0])
    with pytest.raises(ValueError, match="looks at more than features: it has to `answer`"):
        reader.choose(np.zeros(0), np.ones(3, bool))
    with pytest.raises(ValueError, match="not finite"):
        Readings.of([np.full((2, 2), np.nan)], [[0, 1]])
    with pytest.raises(ValueError, match="lengths"):
        Readings(np.zeros((1, 2, 3)), np.zeros((1, 2), int), np.array([3]))
    with pytest.raises(ValueError, match="do not fit"):
        Readings(np.zeros((1, 2, 3)), np.zeros((1, 3), int), np.array([2]))
    with pytest.raises(ValueError, match="negative"):
        Readings.of([np.zeros((2, 2))], [[0, -1]])
