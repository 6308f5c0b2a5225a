"""Trying a learner: what it is asked, and that a try cannot see the queries."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from meta_models.backbone import load_backbone
from meta_models.features import FeatureStore
from metalearn.baselines.majority import Majority
from metalearn.baselines.nearest_prototype import NearestPrototype
from metalearn.selection.portfolio import Member
from metalearn.selection.trial import folds, judge, validate
from tasks.collate import Collator
from tasks.episode import Episode, Example, Task

TEXTS = ["open", "close", "lock", "pay", "send", "read", "write", "sing", "walk", "swim"]


def task(sizes: tuple[int, ...], queries: int = 3) -> Task:
    """Classes of the given numbers of support examples."""
    names = tuple("abcdef"[: len(sizes)])
    drawn = {
        name: [
            Example(100 * place + i, f"{TEXTS[place]} {TEXTS[i]}", label=name)
            for i in range(size + queries)
        ]
        for place, (name, size) in enumerate(zip(names, sizes, strict=True))
    }
    support = tuple(e for n, size in zip(names, sizes, strict=True) for e in drawn[n][:size])
    query = tuple(e for n, size in zip(names, sizes, strict=True) for e in drawn[n][size:])
    return Task("source", "class", support, query, names, tuple(range(len(names))))


@pytest.fixture(scope="module")
def collate():
    collator = Collator(load_backbone("tiny-bert").tokenizer)
    return lambda task: collator.collate([task], [0])


@pytest.fixture
def prototypes(language_model) -> Member:
    learner = NearestPrototype(FeatureStore(language_model(method="none")))
    state = learner.init(torch.Generator().manual_seed(0))
    return Member("prototypes", "tiny", "none", "prototypes", learner, state, 1.0)


def test_every_example_is_held_out_once_and_never_learned_from_then() -> None:
    drawn = task((5, 3, 1))
    parts = folds(drawn, 3)

    held = [example.id for part in parts for example in part.query]
    assert sorted(held) == sorted(e.id for e in drawn.support if e.label != "c")
    for part in parts:
        assert not set(part.support) & set(part.query)
        assert set(part.support) | set(part.query) == set(drawn.support)
        assert {example.label for example in part.support} == {"a", "b", "c"}


def test_a_try_reads_no_query(prototypes, collate) -> None:
    """With other queries, of the wrong class even, the score is the same."""
    drawn = task((4, 4))
    swapped = {"a": "b", "b": "a"}
    other = tuple(
        replace(e, text="another text", label=swapped[e.label or ""]) for e in drawn.query
    )

    first = validate(prototypes, drawn, collate, 2)
    assert 0 < first <= 1
    assert validate(prototypes, replace(drawn, query=other), collate, 2) == first
    assert validate(prototypes, replace(drawn, query=()), collate, 2) == first


def test_the_score_is_the_accuracy_on_what_was_held_out(prototypes, collate) -> None:
    drawn = task((4, 4))
    right = [
        judge(prototypes, collate(part)).predictions == collate(part).query.labels[0].numpy()
        for part in folds(drawn, 2)
    ]
    assert validate(prototypes, drawn, collate, 2) == np.concatenate(right).mean()


def test_one_example_a_class_leaves_nothing_to_validate_on(prototypes, collate) -> None:
    assert folds(task((1, 1, 1)), 3) == []
    assert validate(prototypes, task((1, 1, 1)), collate, 3) == pytest.approx(1 / 3)


def test_predictions_are_those_of_the_learner(prototypes, collate) -> None:
    episode = collate(task((3, 3, 3)))
    adapted = prototypes.learner.adapt(prototypes.state, episode.support)[-1]
    expected = prototypes.learner.predict(adapted, episode.query)[0].argmax(-1)

    trial = judge(prototypes, episode)
    assert trial.predictions.tolist() == expected.tolist()
    assert trial.seconds > 0


def test_mistakes_are_named(collate) -> None:
    majority = Member("majority", "none", "none", "majority", Majority(), {}, 0.0)
    both: Episode = Collator(load_backbone("tiny-bert").tokenizer).collate(
        [task((2, 2)), task((2, 2))], [0, 1]
    )
    with pytest.raises(ValueError, match="one task at a time, not on 2"):
        judge(majority, both)
    with pytest.raises(ValueError, match="1 folds cannot hold out"):
        folds(task((2, 2)), 1)
