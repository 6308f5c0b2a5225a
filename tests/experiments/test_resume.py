"""A run that dies at any moment and is resumed ends like one that was left alone, bit for bit."""

import random
import shutil
from pathlib import Path

import pytest
import torch

from experiments.bitwise import differences
from experiments.checkpoint import load, save
from experiments.faults import Moment, Template, small_experiment
from experiments.files import read_json
from experiments.metrics import read_metrics
from experiments.wandb_offline import read_history, run_directories

EXPERIMENT = small_experiment()


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    with Template(tmp_path_factory.mktemp("template")) as template:
        yield template


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, template) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "undisturbed"
    counts = template.go(folder, EXPERIMENT)
    # What is patched is still what the run goes through.
    assert counts is not None and min(counts[kind] for kind in LATEST) > 10, counts
    return folder


LATEST = {"step": 9, "record": 9, "checkpoint": 40, "file": 20}
"""Moments that every process of a run that was killed a few times still reaches."""


def test_a_process_killed_at_five_moments_is_resumed_exactly(tmp_path, template, undisturbed):
    chance = random.Random(0)
    kinds = ["step", "checkpoint", "record", "step", "file"]
    moments = [Moment(kind, chance.randint(2, LATEST[kind])) for kind in kinds]
    met = template.survive(tmp_path / "run", EXPERIMENT, iter([*moments, None]).__next__)
    assert met == moments
    assert differences(undisturbed, tmp_path / "run") == []


def test_the_comparison_sees_what_differs(tmp_path, undisturbed):
    folder = shutil.copytree(undisturbed, tmp_path / "run")
    assert differences(undisturbed, folder) == []
    path = folder / "metrics.jsonl"
    path.write_text(path.read_text().replace('"loss": ', '"loss": 1', 1))
    path = folder / "result.json"
    path.write_text(path.read_text().replace('"mean": ', '"mean": 1', 1))
    shutil.copy(folder / "curves.parquet", folder / "scores.parquet")
    place, *_ = sorted((folder / "checkpoints").iterdir())
    tensors, meta = load(place)
    name = next(name for name in tensors if name.startswith("optimizer/"))
    tensors[name] = torch.nextafter(tensors[name], tensors[name] + 1)
    save(place, tensors, meta)
    (folder / "report.html").unlink()
    found = differences(undisturbed, folder)
    assert found == [
        "files ['report.html']",
        "scores.parquet",
        "metrics.jsonl",
        "result.json: rows",
        f"checkpoint of {place.name}",
    ]


def test_after_a_kill_wandb_holds_every_step_once(tmp_path, template, undisturbed):
    tracked = EXPERIMENT.override({"tracking.mode": "offline"})
    folder = tmp_path / "run"
    moments = [Moment("tracking", 15), None]
    assert len(template.survive(folder, tracked, iter(moments).__next__)) == 1
    # The run id is in the name of the files that are found.
    directories = run_directories(folder, read_json(folder / "wandb.json")["wandb_id"])
    assert len(directories) == 2
    rows = [row for directory in directories for row in read_history(directory)]
    records = read_metrics(folder / "metrics.jsonl")
    assert [row["_step"] for row in rows] == list(range(len(records) + 1))
    for row, record in zip(rows, records, strict=False):
        assert [value for name, value in row.items() if name.endswith("/loss")] == [record["loss"]]
    assert differences(undisturbed, folder) == []
