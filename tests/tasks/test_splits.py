"""Meta-splits are disjoint, and a task that leaks is refused."""

import json

import numpy as np
import pytest

from tasks.episode import EpisodeShape, Example, Task, TaskError
from tasks.sources import records
from tasks.sources.records import RecordFamily
from tasks.splits import check_disjoint, check_task, draw_record_splits, draw_splits, read_folds

FOLD = {"train": ["a", "b"], "valid": ["c"], "test": ["d"], "rows": [1, 2]}


def write(tmp_path, content):
    path = tmp_path / "folds.json"
    path.write_text(json.dumps(content))
    return path


def test_drawn_splits_cover_everything_once_and_follow_the_seed():
    classes = [f"c{i}" for i in range(77)]
    splits = draw_splits(classes, seed=1)
    assert [len(splits[s]) for s in ("train", "valid", "test")] == [47, 15, 15]
    assert sorted(c for part in splits.values() for c in part) == sorted(classes)
    assert splits == draw_splits(classes[::-1], seed=1)
    assert splits != draw_splits(classes, seed=2)


@pytest.mark.parametrize("count", [3, 4, 5, 6])
def test_few_classes_still_fill_every_split(count):
    assert all(draw_splits(range(count), seed=0).values())


def test_too_few_classes_and_bad_shares_are_refused():
    with pytest.raises(TaskError, match="2 classes are too few"):
        draw_splits(["a", "b"], seed=0)
    with pytest.raises(TaskError, match="sum to 1"):
        draw_splits("abcdef", seed=0, fractions=(0.6, 0.6, 0.2))
    assert draw_splits("ab", seed=0, fractions=(0.0, 0.0, 1.0))["train"] == ()


def test_record_splits_keep_equal_texts_together():
    examples = [Example(i, "Text" if i % 2 else f"text {i}") for i in range(30)]
    splits = draw_record_splits(examples, seed=0)
    assert sorted(i for part in splits.values() for i in part) == list(range(30))
    assert sum(any(i % 2 for i in part) for part in splits.values()) == 1


def test_folds_are_read_and_other_keys_ignored(tmp_path):
    path = write(tmp_path, {"01": FOLD, "group": {"02": FOLD}})
    expected = {"train": ("a", "b"), "valid": ("c",), "test": ("d",)}
    assert read_folds(path, "01", "abcd") == expected
    assert read_folds(path, "group/02", "abcd") == expected


@pytest.mark.parametrize(
    ("content", "fold", "message"),
    [
        ({"fold1": FOLD}, "fold2", r"no fold 'fold2' \(did you mean 'fold1'\?\); its folds are"),
        ({"01": {"train": ["a"], "test": ["b"]}}, "01", "no list of classes 'valid'"),
        ({"01": {**FOLD, "test": ["bb"]}}, "01", r"class 'bb' of fold '01' is not in the data"),
        ({"01": {**FOLD, "test": ["a"]}}, "01", "'a' is in both 'train' and 'test'"),
        ([1], "01", "its folds are: none"),
    ],
)
def test_bad_folds_are_refused_in_one_line(tmp_path, content, fold, message):
    with pytest.raises(TaskError, match=message) as error:
        read_folds(write(tmp_path, content), fold, "abcd")
    assert "\n" not in str(error.value)


def test_folds_file_missing_or_broken(tmp_path):
    with pytest.raises(TaskError, match=r"no file '.*nothing\.json'.*METALEARN_DATA"):
        read_folds(tmp_path / "nothing.json", "01", "abcd")
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(TaskError, match="no JSON file of folds"):
        read_folds(tmp_path / "broken.json", "01", "abcd")


def test_overlapping_splits_are_refused_by_the_family(family):
    with pytest.raises(TaskError, match="'class_0' is in both 'train' and 'test'"):
        RecordFamily("x", "class", family.examples, {"train": ["class_0"], "test": ["class_0"]})
    check_disjoint({"train": ("a", "a"), "test": ("b",)})


def test_same_record_or_text_in_support_and_query_is_refused():
    one = Example(1, "Where is my card?", label="a")
    ok = Task("source", "class", (one,), (Example(2, "Where is it?", label="a"),))
    check_task(ok)
    with pytest.raises(TaskError, match="record 1 of 'source' is in support and query"):
        check_task(Task("source", "class", (one,), (one,)))
    copy = Example(3, "where is  MY card?", label="b")
    with pytest.raises(TaskError, match="'where is my card\\?' of 'source' is in support and"):
        check_task(Task("source", "class", (one,), (copy,)))


def test_pairs_leak_only_when_both_texts_agree():
    first, second = Example(1, "premise", "one"), Example(2, "premise", "two")
    check_task(Task("s", "class", (first,), (second,)))
    with pytest.raises(TaskError, match="'premise / one'"):
        check_task(Task("s", "class", (first,), (Example(3, "Premise", "One"),)))


def test_drawing_calls_the_leakage_check(family, monkeypatch):
    # A sampler that leaked would be stopped by the family.
    def leak(pools, ways, shots, queries, random):
        example = pools["class_0"].examples[0]
        return (example,), (example,), ("class_0",)

    monkeypatch.setattr(records, "n_way_k_shot", leak)
    with pytest.raises(TaskError, match="in support and query"):
        family.draw("train", EpisodeShape(1, 1, 1), np.random.default_rng(0))
