"""The recurrent reader: what it reads, and what it does not."""

from __future__ import annotations

import numpy as np
import pytest

from metalearn.selection.reader import Reader, Readings


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


def test_it_learns_from_examples_which_learner_is_best() -> None:
    told: list = []
    reader = Reader(updates=60, tasks=64, width=16, rate=0.02, watch=told.append)
    reader.fit(*tasks(256, seed=0), seed=0)
    readings, utilities = tasks(200, seed=1)
    choices = reader.choose(readings, np.isfinite(utilities))
    assert (choices == np.nanargmax(utilities, 1)).mean() > 0.85
    assert told[-1]["outcome"] > told[0]["outcome"]
    none = np.tile([False, False, True], (200, 1))
    assert (reader.choose(readings, none) == 2).all()


def test_padding_is_never_read() -> None:
    reader = Reader(updates=3, tasks=16, width=8)
    readings, utilities = tasks(32, seed=0)
    reader.fit(readings, utilities, seed=0)
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


def test_mistakes_are_named() -> None:
    readings, utilities = tasks(8, seed=0)
    reader = Reader(updates=1, tasks=8, width=4)
    with pytest.raises(ValueError, match="8 readings, 7 utilities"):
        reader.fit(readings, utilities[:7], seed=0)
    reader.fit(readings, utilities, seed=0)
    more = Readings.of([np.zeros((2, 2))], [[0, 5]])
    with pytest.raises(ValueError, match="6 classes, more than the 3"):
        reader.choose(more, np.ones((1, 3), bool))
    with pytest.raises(ValueError, match="not finite"):
        Readings.of([np.full((2, 2), np.nan)], [[0, 1]])
    with pytest.raises(ValueError, match="lengths"):
        Readings(np.zeros((1, 2, 3)), np.zeros((1, 2), int), np.array([3]))
    with pytest.raises(ValueError, match="do not fit"):
        Readings(np.zeros((1, 2, 3)), np.zeros((1, 3), int), np.array([2]))
    with pytest.raises(ValueError, match="negative"):
        Readings.of([np.zeros((2, 2))], [[0, -1]])
