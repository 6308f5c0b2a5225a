"""Augmentation keeps labels, counts and purity, and stays out of validation and test."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binomtest

from tasks.augment import MADE, Augmentation, AugmentedStream, WordEdits, mix_classes
from tasks.collate import Collator
from tasks.episode import EpisodeShape, Example, Task, TaskError, TaskStream
from tasks.sampling import text_key
from tasks.sources.builtin import builtin
from tasks.sources.sinusoid import Sinusoid
from tasks.splits import check_task

EDITS = WordEdits(delete=0.2, swap=0.2, duplicate=0.2, mask=0.2)
BOTH = Augmentation(mix=0.5, edits=EDITS, sets=("support", "query"))
RECORDS = {example.id: example for example in builtin().examples}


def stream(ways=(3, 5), shots=(1, 3), seed=0, split="train") -> TaskStream:
    return TaskStream(builtin(), split, EpisodeShape(ways, shots, 2), seed=seed)


def examples(task: Task) -> tuple[Example, ...]:
    return (*task.support, *task.query)


def test_a_task_is_a_pure_function_of_seed_and_index():
    first, again = (AugmentedStream(stream(), BOTH) for _ in range(2))
    expected = {i: again.task(i) for i in (9, 2, 5)}  # in another order, after other draws
    assert first.tasks([2, 5, 9]) == [expected[2], expected[5], expected[9]]
    assert AugmentedStream(stream(seed=1), BOTH).task(2) != first.task(2)


def test_ways_shots_queries_and_balance_stay():
    plain, made = stream(), AugmentedStream(stream(), BOTH)
    for i in range(60):
        before, after = plain.task(i), made.task(i)
        assert len(after.label_names) == len(set(after.label_names)) == len(before.label_names)
        assert len(set(after.class_ids)) == len(after.class_ids) == len(before.class_ids)
        for split in ("support", "query"):
            counts = Counter(example.label for example in getattr(after, split))
            shots = len(getattr(before, split)) // len(before.label_names)
            assert counts == dict.fromkeys(after.label_names, shots)


def test_support_and_query_share_no_text_and_no_record():
    made = AugmentedStream(stream(), BOTH)
    for i in range(100):
        task = made.task(i)
        keys = [text_key(example) for example in examples(task)]
        assert len(set(keys)) == len(keys)
        records = [
            {r for example in part for r in example.origins or (example.id,)}
            for part in (task.support, task.query)
        ]
        assert not records[0] & records[1]
        assert {RECORDS[r] for r in records[0]} == set(stream().task(i).support)


def test_the_leakage_check_sees_the_records_that_an_example_was_made_of():
    one, other = Example(1, "one", label="a"), Example(2, "two", label="a")
    mixed = Example(MADE, "two", "three", "a + b", origins=(2, 3))
    check_task(Task("s", "class", (one,), (mixed,)))
    for support, query in ((other, mixed), (mixed, other), (mixed, replace(mixed, id=MADE + 1))):
        with pytest.raises(TaskError, match="record 2 of 's' is in support and query"):
            check_task(Task("s", "class", (support,), (replace(query, text="else"),)))


def test_mixed_classes_pair_texts_of_one_class_with_those_of_the_next():
    task = stream(ways=3, shots=2).task(0)
    mixed = mix_classes(task)
    a, b, c = task.label_names
    assert mixed.label_names == (f"{a} + {b}", f"{b} + {c}", f"{c} + {a}")
    assert min(mixed.class_ids) >= MADE
    for split in ("support", "query"):
        rows, of = getattr(mixed, split), getattr(task, split)
        assert [(e.text, e.text_b, e.label) for e in rows] == [
            (of[2 * n + j].text, of[2 * (n + 1) % 6 + j].text, mixed.label_names[n])
            for n in range(3)
            for j in range(2)
        ]
        assert [e.origins for e in rows] == [
            (of[2 * n + j].id, of[2 * (n + 1) % 6 + j].id) for n in range(3) for j in range(2)
        ]


def test_the_same_pair_of_classes_is_the_same_class_in_every_task():
    names: dict[int, str] = {}
    for i in range(300):
        task = mix_classes(stream(ways=3).task(i))
        for c, name in zip(task.class_ids, task.label_names, strict=True):
            assert names.setdefault(c, name) == name
    assert len(set(names.values())) == len(names) < 900


def test_tasks_are_mixed_as_often_as_asked():
    made = AugmentedStream(stream(), Augmentation(mix=0.3))
    mixed = sum(min(made.task(i).class_ids) >= MADE for i in range(1000))
    assert binomtest(mixed, 1000, 0.3).pvalue > 0.01
    always = AugmentedStream(stream(), Augmentation(mix=1.0))
    assert all(min(task.class_ids) >= MADE for task in always.tasks(range(50)))


@pytest.mark.parametrize("name", ["delete", "swap", "duplicate", "mask"])
def test_words_are_edited_as_often_as_asked(name):
    words = [f"w{i}" for i in range(50)]
    edits, random = WordEdits(**{name: 0.2}), np.random.default_rng(0)
    hit = 0
    for _ in range(100):
        after = edits(" ".join(words), random).split()
        if name == "delete":
            assert after == [word for word in words if word in after]
            hit += 50 - len(after)
        elif name == "duplicate":
            assert list(dict.fromkeys(after)) == words
            hit += len(after) - 50
        elif name == "mask":
            assert all(new in (old, "[MASK]") for new, old in zip(after, words, strict=True))
            hit += after.count("[MASK]")
        else:
            assert sorted(after) == sorted(words)
            # A swap moves two words; later ones may move them again, or back.
            hit += sum(new != old for new, old in zip(after, words, strict=True)) / 1.8
    if name == "swap":
        assert 0.8 < hit / 1000 < 1.1
    else:
        assert binomtest(hit, 5000, 0.2).pvalue > 0.01


def test_a_swap_goes_to_any_other_word():
    found = Counter(WordEdits(swap=0.5)("a b", np.random.default_rng(i)) for i in range(400))
    # Each of two words is hit with 1/2; two swaps are none.
    assert set(found) == {"a b", "b a"} and binomtest(found["b a"], 400, 0.5).pvalue > 0.01


def test_a_text_never_becomes_empty():
    assert WordEdits(delete=1.0)("only words here", np.random.default_rng(0)) in (
        "only",
        "words",
        "here",
    )
    assert WordEdits(swap=1.0, delete=1.0)("one", np.random.default_rng(0)) == "one"


def test_nothing_to_do_leaves_examples_as_they_are():
    assert WordEdits()("two  spaces", np.random.default_rng(0)) == "two  spaces"
    made = AugmentedStream(stream(), Augmentation(edits=WordEdits()))
    assert made.tasks(range(5)) == stream().tasks(range(5))


def test_only_the_sets_asked_for_are_edited():
    for sets in (("support",), ("query",)):
        made = AugmentedStream(stream(), Augmentation(edits=WordEdits(mask=1.0), sets=sets))
        for name in ("support", "query"):
            before, after = getattr(stream().task(0), name), getattr(made.task(0), name)
            assert (before == after) == (name not in sets)
            assert [e.label for e in before] == [e.label for e in after]


def test_an_edit_may_not_become_another_text_of_the_task():
    one, other = Example(0, "my card", label="a"), Example(1, "my old card", label="a")
    task = Task("s", "class", (one,), (other,), ("a",), (0,))
    augment = Augmentation(edits=WordEdits(delete=0.5), sets=("support", "query"))
    texts = set()
    for seed in range(100):
        made = augment(task, np.random.default_rng(seed))
        texts.add(made.query[0].text)
        assert text_key(made.query[0]) != text_key(made.support[0])
    assert {"my old card", "my", "old", "old card"} <= texts
    assert "my card" not in texts  # not even when the other text has become another one


def test_made_examples_have_ids_of_their_own():
    made = AugmentedStream(stream(), BOTH)
    ids: dict[int, Example] = {}
    for i in range(200):
        for example in examples(made.task(i)):
            assert (example.id >= MADE) == bool(example.origins)
            assert example.id < 2 * MADE
            assert ids.setdefault(example.id, example) == example


def test_made_examples_collate_and_are_not_kept(tokenizer):
    collator = Collator(tokenizer)
    plain, made = stream(), AugmentedStream(stream(), BOTH)
    collator.collate(plain.tasks(range(8)), range(8))
    kept = len(collator._kept)
    tasks = made.tasks(range(8))
    episode = collator.collate(tasks, range(8))
    assert len(collator._kept) == kept
    assert episode.support.tokens.segments is not None  # some are pairs, some are not
    for t, task in enumerate(tasks):
        assert episode.support.ids[t, : len(task.support)].tolist() == [e.id for e in task.support]
        assert episode.query.class_ids[t, : len(task.class_ids)].tolist() == list(task.class_ids)
        labels = episode.support.labels[t][episode.support.example_mask[t]].tolist()
        assert [task.label_names[c] for c in labels] == [e.label for e in task.support]


@pytest.mark.parametrize("split", ["valid", "test"])
def test_validation_and_test_tasks_are_refused(split):
    with pytest.raises(TaskError, match=f"only training tasks are augmented.*{split!r}"):
        AugmentedStream(stream(split=split), BOTH)


def test_numbers_are_refused():
    numbers = TaskStream(Sinusoid(), "train", EpisodeShape(), seed=0)
    with pytest.raises(TaskError, match="only texts with a class are augmented"):
        AugmentedStream(numbers, Augmentation(edits=EDITS))


@pytest.mark.parametrize("ways", [2, (2, 5)])
def test_two_classes_cannot_be_mixed(ways):
    with pytest.raises(TaskError, match="at least 3 of them, but tasks of 'builtin' have 2"):
        AugmentedStream(stream(ways=ways), BOTH)
    AugmentedStream(stream(ways=ways), Augmentation(edits=EDITS))


def test_what_cannot_be_mixed_is_named():
    texts = [Example(i, f"text {i}", label="abc"[i % 3]) for i in range(6)]
    task = Task("s", "class", tuple(texts), (), ("a", "b", "c"), (0, 1, 2))
    mix_classes(task)
    with pytest.raises(TaskError, match="pairs of texts already"):
        mix_classes(replace(task, support=tuple(replace(e, text_b="more") for e in texts)))
    with pytest.raises(TaskError, match="fewer examples"):
        mix_classes(replace(task, support=tuple(texts[:5])))
    names = ("x + y", "z", "x", "y + z")
    four = tuple(Example(i, f"text {i}", label=name) for i, name in enumerate(names))
    alike = Task("s", "class", four, (), names, (0, 1, 2, 3))
    with pytest.raises(TaskError, match="have one name"):
        mix_classes(alike)


def test_what_is_no_probability_is_refused():
    with pytest.raises(ValueError, match=r"delete -0\.1 is no probability"):
        WordEdits(delete=-0.1)
    with pytest.raises(ValueError, match=r"mix 1\.5 is no probability"):
        Augmentation(mix=1.5)
