"""The embedded family: size, splits, fixed texts, and templates that fill completely."""

import hashlib
import re
from collections import Counter
from itertools import combinations

import numpy as np
import pytest

from tasks.episode import EpisodeShape
from tasks.sources import builtin


def test_there_are_enough_domains_and_intents():
    intents = [intent for members in builtin.DOMAINS.values() for intent in members]
    assert len(builtin.DOMAINS) >= 10
    assert len(intents) == len(set(intents)) >= 60


def test_every_intent_has_its_texts():
    counts = Counter(example.label for example in builtin.records())
    assert set(counts) == {intent for members in builtin.DOMAINS.values() for intent in members}
    assert min(counts.values()) >= 40


def test_ids_are_positions():
    assert [example.id for example in builtin.records()] == list(range(len(builtin.records())))


def test_no_text_occurs_twice_in_any_spelling():
    spellings = [re.sub(r"\W+", " ", example.text.lower()) for example in builtin.records()]
    repeated = [text for text, count in Counter(spellings).items() if count > 1]
    assert repeated == []


def test_texts_are_filled_and_short():
    texts = [example.text for example in builtin.records()]
    words = np.array([len(text.split()) for text in texts])
    assert not [text for text in texts if set(text) & set("(){}|")]
    assert not [text for text in texts if text != text.strip() or "  " in text]
    assert words.min() >= 5
    assert words.max() <= 25
    assert 10 <= words.mean() <= 14


def test_texts_are_the_same_everywhere():
    lines = "".join(f"{example.label}\t{example.text}\n" for example in builtin.records())
    assert hashlib.sha256(lines.encode()).hexdigest() == (
        "3f7973126c63d7ef4a5be5d8babfaa7411faf0d3aa9ad8287265e241728ceac2"
    )


def test_another_seed_gives_other_texts_of_the_same_intents():
    first, second = builtin.records(), builtin.records(seed=1)
    assert [example.label for example in first] == [example.label for example in second]
    shared = {example.text for example in first} & {example.text for example in second}
    assert len(shared) < 0.2 * len(first)


def test_meta_splits_hold_whole_domains_once():
    domains = [domain for part in builtin.SPLIT_DOMAINS.values() for domain in part]
    assert sorted(domains) == sorted(builtin.DOMAINS)
    splits = builtin.splits()
    for one, other in combinations(splits.values(), 2):
        assert not set(one) & set(other)
    assert {split: len(intents) >= 10 for split, intents in splits.items()} == {
        "train": True,
        "valid": True,
        "test": True,
    }
    assert len(splits["test"]) >= 15


@pytest.mark.parametrize("split", ["train", "valid", "test"])
def test_the_family_draws_tasks_of_its_own_split(split):
    task = builtin.builtin().draw(split, EpisodeShape(5, 5, 5), np.random.default_rng(0))
    assert len(task.support) == len(task.query) == 25
    assert set(task.label_names) <= set(builtin.splits()[split])
