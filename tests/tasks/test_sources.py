"""Sources: what they read, what they refuse, and real data."""

import csv
import dataclasses
import gzip
import json
import math

import datasets
import huggingface_hub.constants
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from tasks.collate import Collator
from tasks.episode import Batch, EpisodeShape, Example, TaskError, TaskStream
from tasks.sources.files import data_folder, find, read_examples
from tasks.sources.hub import load_examples
from tasks.sources.records import RecordFamily
from tasks.sources.sinusoid import Sinusoid
from tasks.splits import draw_record_splits, read_folds

RECORDS = [{"text": "Where is it?", "label": "card"}, {"text": "Pay, please", "label": "pay"}]
EXPECTED = [Example(0, "Where is it?", label="card"), Example(1, "Pay, please", label="pay")]


def write_jsonl(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def write_all(folder, records):
    """The same records in every format."""
    lines = "".join(json.dumps(record) + "\n\n" for record in records)  # blank lines do not count
    (folder / "a.jsonl").write_text(lines)
    with gzip.open(folder / "a.jsonl.gz", "wt") as file:
        file.write(lines)
    with open(folder / "a.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, list(records[0]))
        writer.writeheader()
        writer.writerows(records)
    pq.write_table(pa.Table.from_pylist(records), folder / "a.parquet")
    return [folder / name for name in ("a.jsonl", "a.jsonl.gz", "a.csv", "a.parquet")]


def test_every_format_gives_the_same_examples(tmp_path):
    for path in write_all(tmp_path, RECORDS):
        assert read_examples(path) == EXPECTED


def test_without_labels_a_record_needs_only_its_text(tmp_path):
    (tmp_path / "a.txt").write_text("my card\n\n  pay, the bill\n")
    write_jsonl(tmp_path / "a.jsonl", [{"text": "my card"}, {"text": "pay", "label": "x"}])
    expected = [Example(0, "my card"), Example(1, "  pay, the bill")]
    assert read_examples(tmp_path / "a.txt", labeled=False) == expected
    expected = [Example(0, "my card"), Example(1, "pay", label="x")]
    assert read_examples(tmp_path / "a.jsonl", labeled=False) == expected
    with pytest.raises(TaskError, match="ends in"):
        read_examples(tmp_path / "a.txt")
    with pytest.raises(TaskError, match=r"line 1: no column 'label'"):
        read_examples(tmp_path / "a.jsonl")
    with pytest.raises(TaskError, match=r"a.jsonl, line 1: no column 'txt'"):
        read_examples(tmp_path / "a.jsonl", text="txt", labeled=False)


def test_columns_are_named_and_numbers_become_label_names(tmp_path):
    records = [{"q": "one", "p": "two", "y": 3}]
    for path in write_all(tmp_path, records):
        examples = read_examples(path, text="q", text_b="p", label="y")
        assert examples == [Example(0, "one", "two", label="3")]


def test_relative_paths_are_looked_up_here_then_in_the_data_folder(tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    (tmp_path / "here").mkdir()
    write_jsonl(tmp_path / "data" / "a.jsonl", RECORDS)
    monkeypatch.setenv("METALEARN_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path / "here")
    assert data_folder() == tmp_path / "data"
    assert find("a.jsonl") == tmp_path / "data" / "a.jsonl"
    write_jsonl(tmp_path / "here" / "a.jsonl", RECORDS[:1])
    assert len(read_examples("a.jsonl")) == 1
    monkeypatch.delenv("METALEARN_DATA")
    assert data_folder().parts[-2:] == ("shared", "data")


def test_missing_file_names_the_remedy(tmp_path):
    with pytest.raises(TaskError, match=r"no file 'nothing\.jsonl'.*METALEARN_DATA"):
        read_examples("nothing.jsonl")
    with pytest.raises(TaskError, match="no file ''"):
        read_examples("")


@pytest.mark.parametrize("column", ["text", "label"])
def test_missing_column_names_those_present_and_the_nearest(tmp_path, column):
    for path in write_all(tmp_path, RECORDS):
        with pytest.raises(TaskError, match=rf"no column '{column}s' \(did you mean '{column}'"):
            read_examples(path, **{column: column + "s"})
        with pytest.raises(TaskError, match=r"no column 'second'.*name one of: text, label"):
            read_examples(path, text_b="second")


@pytest.mark.parametrize(
    ("lines", "options", "message"),
    [
        (['{"text": "a", "label": "b"}', "{"], {}, "line 2: not JSON"),
        (['{"text": "a", "label": "b"}', "", "[1]"], {}, "line 3: not a JSON object"),
        (['{"text": "a", "label": "b"}', '{"text": " ", "label": "b"}'], {}, "line 2: the text is"),
        (['{"text": null, "label": "b"}'], {}, "line 1: the text is empty"),
        (['{"text": "a", "label": ""}'], {}, "line 1: the label is missing"),
        (['{"text": "a", "label": null}'], {}, "line 1: the label is missing"),
        (['{"text": "a", "label": ["b"]}'], {}, "line 1: the label is a list"),
        (['{"text": ["a"], "label": "b"}'], {}, "line 1: the text is no string"),
        (['{"text": "a", "label": {"x": 1}}'], {}, "line 1: the label is neither"),
        (['{"text": "a b", "label": "O"}'], {"kind": "token"}, "line 1: 1 tags for 2 words"),
        (['{"text": "a b", "label": []}'], {"kind": "sequence"}, "line 1: the label is missing"),
        ([""], {}, "has no records"),
        (['{"text": "a", "label": "b"}'], {"kind": "value"}, "no kind 'value'"),
    ],
)
def test_bad_records_are_refused_with_their_line(tmp_path, lines, options, message):
    path = tmp_path / "bad.jsonl"
    path.write_text("\n".join(lines))
    with pytest.raises(TaskError, match=f"bad.jsonl.*{message}") as error:
        read_examples(path, **options)
    assert "\n" not in str(error.value)


def test_empty_text_in_csv_and_parquet_has_its_place(tmp_path):
    (tmp_path / "a.csv").write_text('text,label\n"two\nlines",a\n,b\n')
    with pytest.raises(TaskError, match="line 4: the text is empty"):
        read_examples(tmp_path / "a.csv")
    pq.write_table(pa.table({"text": ["a", None], "label": ["x", "y"]}), tmp_path / "a.parquet")
    with pytest.raises(TaskError, match="row 2: the text is empty"):
        read_examples(tmp_path / "a.parquet")


@pytest.mark.parametrize("name", ["a.txt", "a.json", "folder"])
def test_unknown_endings_name_the_known_ones(tmp_path, name):
    (tmp_path / name).mkdir()
    with pytest.raises(TaskError, match=r"ends in \.jsonl, \.jsonl\.gz, \.csv, \.parquet"):
        read_examples(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("a.jsonl.gz", r"cannot read .*a.jsonl.gz: .*; the file is damaged"),
        ("a.parquet", r"cannot read .*a.parquet: .*; the file is damaged"),
        ("a.jsonl", r"a.jsonl, line 1: byte 0xff is not UTF-8; save the file as UTF-8"),
    ],
)
def test_damaged_files_are_refused_in_one_line(tmp_path, name, said):
    (tmp_path / name).write_bytes(b"\xff\xfe not what it says \x00")
    with pytest.raises(TaskError, match=said) as error:
        read_examples(tmp_path / name)
    assert "\n" not in str(error.value)


def test_truncated_gzip_is_refused(tmp_path):
    whole = gzip.compress(b'{"text": "a", "label": "b"}\n' * 1000)
    (tmp_path / "a.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(TaskError, match=r"cannot read .*damaged"):
        read_examples(tmp_path / "a.jsonl.gz")


@pytest.mark.parametrize("label", ["O B-x", ["O B-x"], ["O", "B-x"]])
@pytest.mark.parametrize("text", ["my  card", ["my", "card"]])
def test_tags_in_every_spelling(tmp_path, text, label):
    path = write_jsonl(tmp_path / "a.jsonl", [{"text": text, "label": label}])
    expected = Example(0, "my card", token_labels=("O", "B-x"))
    assert read_examples(path, kind="token") == [expected]


@pytest.mark.parametrize(
    ("label", "targets"), [("one", ("one",)), (["one", "two"], ("one", "two"))]
)
def test_targets_are_one_or_several(tmp_path, label, targets):
    path = write_jsonl(tmp_path / "a.jsonl", [{"text": "x", "label": label}])
    assert read_examples(path, kind="sequence") == [Example(0, "x", targets=targets)]


# Families over records


def test_family_gives_classes_ids_and_names(family):
    assert family.classes("valid") == ("class_3", "class_4", "class_5")
    task = TaskStream(family, "test", EpisodeShape(2, 1, 3), seed=0).task(0)
    assert task.source == "family" and task.kind == "class"
    assert set(task.label_names) < set(family.classes("test"))
    assert [family.all_classes[i] for i in task.class_ids] == list(task.label_names)
    assert {e.label for e in task.query} == set(task.label_names)


@pytest.mark.parametrize(
    ("kind", "examples", "splits", "message"),
    [
        ("class", [Example(7, " ", label="a")], {}, "record 7: the text is empty"),
        ("class", [Example(7, "x")], {}, "record 7: the label is missing"),
        ("class", [Example(7, "x", label="a")] * 2, {}, "record 7: the id names two records"),
        ("token", [Example(7, "x y", token_labels=("O",))], {}, "record 7: 1 tags for 2 words"),
        ("sequence", [Example(7, "x")], {}, "record 7: the target is missing"),
        ("value", [], {}, "no kind 'value'"),
        ("class", [Example(7, "x", label="card")], {"train": ["cards"]}, "did you mean 'card'"),
        ("sequence", [Example(7, "x", targets=("y",))], {"train": [8]}, "names record 8"),
        (
            "sequence",
            [Example(0, "Same", targets=("y",)), Example(1, "same", targets=("y",))],
            {"train": [0], "test": [1]},
            "'same'.*in both 'train' and 'test'",
        ),
    ],
)
def test_incomplete_families_are_refused(kind, examples, splits, message):
    with pytest.raises(TaskError, match=f"'mine'.*{message}") as error:
        RecordFamily("mine", kind, examples, splits)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("split", "shape", "message"),
    [
        ("train", EpisodeShape(4, 1, 1), "'family', split 'train': 4 ways.*3 classes"),
        ("train", EpisodeShape(2, 8, 5), "class 'class_0' has 12 distinct.*need 13"),
    ],
)
def test_impossible_tasks_name_family_and_split(family, split, shape, message):
    with pytest.raises(TaskError, match=message):
        family.draw(split, shape, np.random.default_rng(0))


def test_empty_split_is_named(family):
    part = RecordFamily("part", "class", family.examples, {"train": ["class_0"], "valid": []})
    for split in ("valid", "test"):
        with pytest.raises(TaskError, match=f"nothing in its split '{split}'.*are: train"):
            part.draw(split, EpisodeShape(1, 1, 1), np.random.default_rng(0))
    assert part.classes("test") == ()


# Sinusoid


def test_sinusoid_points_lie_on_one_curve_within_the_ranges():
    family = Sinusoid(frequency=(0.5, 2.0))
    assert family.classes("train") == ()
    task = TaskStream(family, "train", EpisodeShape(shots=10, queries=20), seed=0).task(0)
    assert (len(task.support), len(task.query)) == (10, 20)
    random = np.random.default_rng((0, 0, 0))
    amplitude, phase, frequency = (
        random.uniform(low, high) for low, high in ((0.1, 5.0), (0, math.pi), (0.5, 2.0))
    )
    for point in (*task.support, *task.query):
        (x,), (y,) = point.inputs, point.values
        assert -5 <= x <= 5
        assert y == pytest.approx(amplitude * math.sin(frequency * x - phase), abs=1e-12)


@pytest.mark.parametrize(("shots", "queries"), [(10, 10), (5, 100), (1, 1), (7, 3)])
@pytest.mark.parametrize("frequency", [(1.0, 1.0), (0.8, 1.2)])
def test_sinusoids_drawn_at_once_are_those_drawn_one_by_one(shots, queries, frequency):
    family = Sinusoid(frequency=frequency)
    stream = TaskStream(family, "train", EpisodeShape(shots=shots, queries=queries), seed=3)
    indices = range(40, 65)
    drawn = stream.episode(indices)
    collated = Collator(None).collate(stream.tasks(indices), indices)
    assert drawn is not None and drawn.index == collated.index
    for split in ("support", "query"):
        for field in dataclasses.fields(Batch):
            one, other = (getattr(getattr(e, split), field.name) for e in (drawn, collated))
            if isinstance(other, torch.Tensor):
                assert one.dtype == other.dtype and torch.equal(one, other), field.name
            else:
                assert one == other, field.name


@pytest.mark.parametrize(
    "shape", [EpisodeShape(shots=(3, 8)), EpisodeShape(shots=0), EpisodeShape(ways=(2, 3))]
)
def test_sinusoids_of_other_sizes_are_left_to_the_collator(shape):
    assert TaskStream(Sinusoid(), "train", shape, seed=0).episode(range(3)) is None


def test_texts_are_left_to_the_collator(family):
    assert TaskStream(family, "train", EpisodeShape(2, 1, 1), seed=0).episode(range(3)) is None


def test_sinusoid_refuses_turned_ranges_and_empty_tasks():
    with pytest.raises(TaskError, match="amplitude"):
        Sinusoid(amplitude=(5.0, 0.1))
    with pytest.raises(TaskError, match="make no task"):
        Sinusoid().draw("train", EpisodeShape(5, 0, 0), np.random.default_rng(0))


# Hugging Face data sets


@pytest.fixture
def hub_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()


def labelled():
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["card", "pay"])}
    )
    rows = {"text": [r["text"] for r in RECORDS], "label": [0, 1]}
    return datasets.Dataset.from_dict(rows, features=features)


def test_saved_data_sets_give_class_names(tmp_path, hub_cache):
    labelled().save_to_disk(tmp_path / "one")
    assert load_examples(str(tmp_path / "one")) == EXPECTED
    both = datasets.DatasetDict(train=labelled(), test=labelled())
    both.save_to_disk(tmp_path / "two")
    assert load_examples(str(tmp_path / "two"), split="test") == EXPECTED
    assert [e.id for e in load_examples(str(tmp_path / "two"))] == [0, 1, 2, 3]


def test_saved_tags_give_names(tmp_path, hub_cache):
    tags = datasets.List(datasets.ClassLabel(names=["O", "B-x"]))
    features = datasets.Features({"tokens": datasets.List(datasets.Value("string")), "tags": tags})
    rows = {"tokens": [["my", "card"]], "tags": [[0, 1]]}
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(tmp_path / "tags")
    examples = load_examples(str(tmp_path / "tags"), kind="token", text="tokens", label="tags")
    assert examples == [Example(0, "my card", token_labels=("O", "B-x"))]


def test_local_folders_and_files_are_loaded(tmp_path, hub_cache):
    (tmp_path / "set").mkdir()
    path = write_jsonl(tmp_path / "set" / "train.jsonl", RECORDS)
    assert load_examples(str(tmp_path / "set")) == EXPECTED
    assert load_examples(str(path), split="train") == EXPECTED


def test_bad_data_sets_are_refused_in_one_line(tmp_path, hub_cache, monkeypatch):
    both = datasets.DatasetDict(train=labelled(), test=labelled())
    both.save_to_disk(tmp_path / "set")
    (tmp_path / "empty").mkdir()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    saved = str(tmp_path / "set")
    for name, options, message in (
        (saved, {"split": "tset"}, r"no split 'tset' \(did you mean 'test'\?\)"),
        (saved, {"label": "lable"}, r"train row 1: no column 'lable' \(did you mean 'label'"),
        (saved, {"subset": "x"}, "without subsets; leave out 'x'"),
        (str(tmp_path / "empty"), {}, "cannot load the data set"),
        ("nobody/nothing", {}, "'nobody/nothing' is neither on disk nor reachable"),
    ):
        with pytest.raises(TaskError, match=message) as error:
            load_examples(name, **options)
        assert "\n" not in str(error.value)


# Real data


def test_banking77_folds_draw_the_published_protocol(data):
    examples = read_examples("protaugment_banking77/data.jsonl.gz")
    classes = {e.label for e in examples}
    splits = read_folds("protaugment_banking77/folds.json", "01", classes)
    family = RecordFamily("banking77", "class", examples, splits)
    assert [len(family.classes(s)) for s in ("train", "valid", "test")] == [25, 25, 27]
    for task in TaskStream(family, "test", EpisodeShape(5, 5, 5), seed=0).tasks(range(20)):
        assert len(task.support) == len(task.query) == 25
        assert set(task.label_names) <= set(splits["test"])


def test_wnut17_draws_tagging_tasks(data):
    examples = read_examples("wnut17/data.jsonl.gz", kind="token", text="source", label="targets")
    assert len(examples) == 5690
    family = RecordFamily("wnut17", "token", examples, draw_record_splits(examples, seed=0))
    task = TaskStream(family, "test", EpisodeShape(shots=8, queries=8), seed=0).task(0)
    assert (len(task.support), len(task.query)) == (8, 8)
    assert len(task.label_names) == 13 and "O" in task.label_names
    assert task.label_names == family.classes("train")


@pytest.mark.parametrize(("name", "references"), [("jfleg", 4), ("dialogsum", 1)])
def test_generation_sets_draw_sequence_tasks(data, name, references):
    examples = read_examples(
        f"{name}/data.jsonl.gz", kind="sequence", text="source", label="targets"
    )
    assert max(len(e.targets) for e in examples) >= references
    family = RecordFamily(name, "sequence", examples, draw_record_splits(examples, seed=0))
    assert family.classes("train") == ()
    task = TaskStream(family, "valid", EpisodeShape(shots=3, queries=2), seed=0).task(0)
    assert task.label_names == () and all(e.targets for e in task.support)


def test_leopard_mixes_pairs_and_single_texts(data):
    examples = read_examples("leopard/data.jsonl.gz", text_b="text_b")
    pairs = sum(e.text_b is not None for e in examples)
    assert (len(examples), pairs) == (40353, 13514)
