"""A folder of files is a family of tasks: each has classes of its own, splits are of tasks."""

import csv
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from tasks.audit import leak_problems, shared
from tasks.episode import EpisodeShape, TaskError, TaskStream
from tasks.sources.folder import FolderFamily, count_problems, read_folder

CLASSES = {
    "colour": ("red", "green"),
    "mood": ("good", "bad", "so so"),
    "size": ("big", "small"),
    "taste": ("sweet", "sour"),
    "topic": ("sport", "art", "law", "money"),
}


def write(path: Path, rows: list[tuple[str, ...]], header: tuple[str, ...] = ("text", "label")):
    path.parent.mkdir(exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])


@pytest.fixture
def folder(tmp_path) -> Path:
    for name, labels in CLASSES.items():
        rows = [(f"{name} {label} {i}", label) for label in labels for i in range(6)]
        write(tmp_path / f"{name}.csv", rows)
    (tmp_path / "README.md").write_text("no task")
    return tmp_path


def family(folder: Path, **options) -> FolderFamily:
    return FolderFamily("mine", *read_folder(folder, **options))


def test_every_task_is_in_one_split_and_has_its_own_classes(folder):
    mine = family(folder)
    assert sorted(name for names in mine.splits.values() for name in names) == sorted(CLASSES)
    assert [len(mine.splits[split]) for split in ("train", "valid", "test")] == [3, 1, 1]
    assert mine.all_classes == tuple(
        f"{name}/{label}" for name in sorted(CLASSES) for label in sorted(CLASSES[name])
    )
    ids = [example.id for task in mine.tasks for example in task.examples]
    assert ids == list(range(6 * 13))


def test_an_episode_has_classes_of_one_task_and_all_of_a_small_one(folder):
    mine = family(folder)
    stream = TaskStream(mine, "train", EpisodeShape(3, 1, 2), seed=0)
    seen = Counter()
    for task in stream.tasks(range(60)):
        owner = {mine.all_classes[index].split("/")[0] for index in task.class_ids}
        assert len(owner) == 1
        (name,) = owner
        seen[name] += 1
        assert [mine.all_classes[i] for i in task.class_ids] == [
            f"{name}/{label}" for label in task.label_names
        ]
        assert len(task.label_names) == min(3, len(CLASSES[name]))
        assert {e.text.split()[0] for e in (*task.support, *task.query)} == {name}
        assert task.source == "mine"
    assert set(seen) == set(mine.splits["train"]) and min(seen.values()) > 8
    assert stream.task(7) == stream.task(7)


def test_all_ways_are_all_classes_of_the_task(folder):
    mine = family(folder)
    drawn = mine.draw("test", EpisodeShape(0, 1, 1), np.random.default_rng(0))
    assert len(drawn.label_names) == len(CLASSES[mine.splits["test"][0]])


def test_splits_come_from_folders_from_a_file_or_from_a_seed(folder, tmp_path):
    assert family(folder, seed=0).splits != family(folder, seed=1).splits
    parts = {"train": ["mood", "size"], "valid": ["taste"], "test": ["colour", "topic"]}
    folds = folder / "folds.json"
    folds.write_text(json.dumps({"a": parts}))
    given = {split: tuple(names) for split, names in parts.items()}
    assert family(folder, folds=str(folds), fold="a").splits == given
    for split, names in parts.items():
        (folder / split).mkdir()
        for name in names:
            (folder / f"{name}.csv").rename(folder / split / f"{name}.csv")
    assert family(folder).splits == given
    (folder / "train" / "mood.csv").rename(folder / "mood.csv")
    with pytest.raises(TaskError, match=r"mood.csv lies beside train, valid and test; move it"):
        read_folder(folder)


def test_what_is_no_folder_of_tasks_is_refused(folder):
    with pytest.raises(TaskError, match="is a file; name the folder"):
        read_folder(folder / "mood.csv")
    with pytest.raises(TaskError, match="no file 'none' here or in the data folder"):
        read_folder("none")
    (folder / "mood.jsonl").write_text('{"text": "a", "label": "b"}\n')
    with pytest.raises(TaskError, match=r"mood.jsonl and .*mood.csv are both task 'mood'; rename"):
        read_folder(folder)
    for name in ("mood.jsonl", "mood.csv", "size.csv", "taste.csv"):
        (folder / name).unlink()
    with pytest.raises(TaskError, match="has 2 tasks, and meta-splits need one each; add files"):
        read_folder(folder)
    for name in ("colour.csv", "topic.csv"):
        (folder / name).unlink()
    with pytest.raises(TaskError, match=r"holds no file that ends in \.jsonl, .*add one a task"):
        read_folder(folder)


def test_all_that_is_wrong_is_found_at_once(folder):
    write(folder / "empty.csv", [])
    (folder / "nothing.csv").write_bytes(b"")
    write(folder / "header.csv", [("a", "b")], ("text", "lable"))
    (folder / "latin.csv").write_bytes("text,label\na,b\ncaf\xe9,b\n".encode("latin-1"))
    write(folder / "rows.csv", [("a", "b"), ("", "b"), ("c", ""), ("d", "b"), ("e", "f", "g")])
    problems: list[str] = []
    tasks, _ = read_folder(folder, problems=problems)
    assert [problem.removeprefix(f"{folder}/") for problem in problems] == [
        "empty.csv has no records; give a file with at least one",
        "header.csv, line 2: no column 'label' (did you mean 'lable'?); name one of: text, lable",
        "latin.csv, line 3: byte 0xe9 is not UTF-8; save the file as UTF-8",
        "nothing.csv has no records; give a file with at least one",
        "rows.csv, line 3: the text is empty; remove the record or fill it in",
        "rows.csv, line 4: the label is missing; remove the record or fill it in",
        "rows.csv, line 6: more columns than the header has; put texts in quotes",
    ]
    assert {task.name for task in tasks} == {*CLASSES, "rows"}
    with pytest.raises(TaskError, match=r"empty\.csv has no records"):  # the first one
        read_folder(folder)


def test_what_cannot_supply_an_episode_is_refused_at_the_first_one(folder):
    write(folder / "size.csv", [(f"{label} {i}", label) for label in "ab" for i in range(3)])
    mine = family(folder)
    split = next(split for split, names in mine.splits.items() if "size" in names)
    shape = EpisodeShape(2, 1, 5)
    with pytest.raises(TaskError, match=r"size.csv: class 'a' has 3 distinct texts, but 1 shots"):
        mine.draw(split, shape, np.random.default_rng(0))
    (task,) = (task for task in mine.tasks if task.name == "size")
    assert len(list(count_problems(task, shape))) == 2
    assert not list(count_problems(task, EpisodeShape(2, 1, 2)))
    write(folder / "size.csv", [(f"big {i}", "big") for i in range(9)])
    with pytest.raises(TaskError, match=r"size.csv: a single class, 'big'; a task needs two"):
        family(folder)


def test_a_labelled_text_in_two_splits_is_refused(folder):
    mine = family(folder)
    train, test = mine.splits["train"][0], mine.splits["test"][0]
    label = CLASSES[train][0]
    with open(folder / f"{test}.csv", "a") as file:
        file.write(f"{train.upper()}  {label} 3,{label}\n" * 2)
        file.write(f"{train} {label} 4,{label}\n")
    with pytest.raises(TaskError, match=r"the same class in '\w+' \(t.* and '\w+' \(t.*; remove"):
        family(folder)
    tasks, splits = read_folder(folder)
    lines = list(leak_problems(tasks, splits, most=1))
    assert len(lines) == 2
    assert "; remove it from one" in lines[0] and "1 more such texts of" in lines[1]
    # The same text with another class asks another question.
    path = folder / f"{test}.csv"
    path.write_text(path.read_text().replace(f" 3,{label}", " 3,x").replace(f" 4,{label}", " 4,x"))
    tasks, splits = read_folder(folder)
    assert not list(leak_problems(tasks, splits))
    (pair,) = shared(tasks)
    assert {pair.one, pair.other} == {train, test}
    # Without its number a text is nearly the same as the others of its class.
    assert pair.texts == 1 and not pair.near


def test_texts_that_tasks_share_are_counted_with_those_nearly_the_same(folder):
    write(folder / "mood.csv", [("I paid 10 euros!", "a"), ("one", "a"), ("two", "b")])
    write(folder / "size.csv", [("i paid 7 Euros", "x"), ("ONE", "y"), ("three", "y")])
    write(folder / "taste.csv", [("four", "x"), ("five", "y")])
    tasks, _ = read_folder(folder)
    (pair,) = shared([task for task in tasks if task.name in ("mood", "size", "taste")])
    assert (pair.one, pair.other, pair.texts, pair.near) == ("mood", "size", 2, 1)
