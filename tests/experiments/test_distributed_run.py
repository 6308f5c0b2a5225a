"""Runs in two processes of torchrun: they find what one finds, and go on when one has died."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

import experiments.run
from experiments import checkpoint
from experiments.checks import check_processes
from experiments.cli import main
from experiments.config import Experiment
from experiments.errors import LostRank, RankError, UserError
from experiments.files import read_json
from experiments.metrics import read_metrics
from experiments.ranks import joined
from experiments.run import run
from experiments.settings import parse
from meta_models.errors import ModelError
from metalearn.distributed import ALONE, World

ROOT = Path(__file__).parents[2]
SMALL = [
    *("--tracking.mode", "disabled", "--threads", "1", "--evaluation.resamples", "50"),
    *("--inner.steps", "2", "--outer.validation-tasks", "6", "--outer.warmup", "1"),
    *("--evaluation.tasks", "7", "--evaluation.tasks-per-batch", "5"),
]
WAVES = ["--outer.steps", "12", "--outer.tasks", "3", "--outer.checkpoint-every", "5", *SMALL]
TEXT = [
    *("--learners", "prototypes", "fomaml", "protonet", "--backbone.name", "tiny-bert"),
    *("--episodes.ways", "2", "--episodes.shots", "1", "--episodes.queries", "2"),
    *("--outer.steps", "4", "--outer.tasks", "4", "--inner.order", "1", *SMALL),
]


@pytest.fixture(autouse=True)
def threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def ranks(command: list[str], *, hit: tuple[str, int, int] | None = None) -> tuple[int, str]:
    """Status and standard error of two processes; `hit` (signal, rank, step): one gets it there."""
    mortal = str(Path(__file__).with_name("mortal.py"))
    script = [mortal, *map(str, hit)] if hit else ["-m", "experiments.cli"]
    done = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"),
            *("--standalone", *script, *command),
        ],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    return done.returncode, done.stderr


def lines(said: str) -> list[str]:
    return [line for line in said.splitlines() if line.startswith("metalearn: ")]


def alone(name: str, options: list[str], folder: Path) -> Path:
    from experiments.catalog import EXPERIMENTS

    return run(parse(EXPERIMENTS[name], options, "", ""), folder)


def assert_equal(folder: Path, reference: Path) -> None:
    """The same files, with the same content to 1e-6."""
    assert {path.relative_to(folder) for path in folder.rglob("*")} == {
        path.relative_to(reference) for path in reference.rglob("*")
    }
    for name in ("predictions.parquet", "scores.parquet", "curves.parquet"):
        if not (reference / name).exists():
            continue
        ours, theirs = pq.read_table(folder / name), pq.read_table(reference / name)
        assert ours.schema == theirs.schema
        for column in ours.column_names:
            mine, other = ours[column].to_pylist(), theirs[column].to_pylist()
            if isinstance(mine[0], float):
                np.testing.assert_allclose(mine, other, atol=1e-5)
            else:
                assert mine == other
    pairs = zip(*(read_metrics(p / "metrics.jsonl") for p in (folder, reference)), strict=True)
    for ours, theirs in pairs:
        assert ours | {"seconds": 0} == pytest.approx(theirs | {"seconds": 0}, abs=1e-5)
    for place in (reference / "checkpoints").iterdir():
        ours, theirs = (
            checkpoint.load(p / "checkpoints" / place.name) for p in (folder, reference)
        )
        assert ours and theirs and ours[0].keys() == theirs[0].keys()
        for name, value in ours[0].items():
            torch.testing.assert_close(value, theirs[0][name], atol=1e-5, rtol=0)


def test_a_lost_process_is_named_and_the_run_goes_on(tmp_path):
    folder = tmp_path / "run"
    command = ["train", "sinusoid-maml", "--run-dir", str(folder), *WAVES]
    status, said = ranks(command, hit=("SIGKILL", 1, 7))
    assert status != 0
    (line,) = lines(said)
    assert line.startswith(
        "metalearn: rank 1 was lost; resume with: "
        "torchrun --nproc-per-node 2 -m experiments.cli train sinusoid-maml"
    )
    assert line.endswith("--resume")
    assert "exitcode  : 3" in said  # of the process that was left
    assert not (folder / "result.json").exists()

    status, said = ranks(command)  # without --resume: a mistake, said by one of the two
    assert status != 0
    (line,) = lines(said)
    assert line.startswith(f"metalearn: run folder {folder} exists and is not empty; continue it")

    status, said = ranks([*command, "--resume"])
    assert status == 0, said
    assert read_json(folder / "environment.json")["processes"] == 2
    assert_equal(folder, alone("sinusoid-maml", WAVES, tmp_path / "alone"))


def test_processes_that_are_asked_to_stop_do_so_at_the_same_step(tmp_path):
    folder = tmp_path / "run"
    command = ["train", "sinusoid-maml", "--run-dir", str(folder), "--learners", "maml", *WAVES]
    status, said = ranks(command, hit=("SIGTERM", 1, 7))
    assert status != 0
    (line,) = lines(said)
    assert line.startswith(
        f"metalearn: stopped by a signal to another process, saved in {folder}; resume with: "
        "torchrun --nproc-per-node 2 -m experiments.cli train sinusoid-maml"
    )
    assert "exitcode  : 75" in said
    found = checkpoint.load(folder / "checkpoints" / "maml-10shot-seed0-trial0")
    assert found is not None and found[1]["step"] == 8 == len(
        read_metrics(folder / "metrics.jsonl")
    )


def test_sharded_layers_change_nothing(tmp_path):
    folder = tmp_path / "run"
    status, said = ranks(
        ["train", "quickstart", "--run-dir", str(folder), *TEXT, "--backbone.shard"]
    )
    assert status == 0, said
    assert_equal(folder, alone("quickstart", TEXT, tmp_path / "alone"))


def tiny(settings: dict) -> Experiment:
    return Experiment().override({"backbone.name": "tiny-bert", "learners": ("maml",)} | settings)


@pytest.mark.parametrize(
    ("settings", "size", "error", "words"),
    [
        ({"learners": ("maml", "reptile-serial")}, 2, ModelError, "reptile-serial cannot share"),
        ({"learners": ("evolution",)}, 2, ModelError, "evolution cannot share its tasks"),
        ({"backbone.shard": True}, 1, UserError, "there is one; start several with torchrun"),
        (
            {"backbone.shard": True, "inner.order": 1, "outer.tasks": 3},
            *(2, UserError, "outer.tasks 3 cannot be divided equally among 2 processes"),
        ),
        ({"backbone.shard": True}, 2, ModelError, "second order .* use --inner.order 1, or"),
    ],
)
def test_what_several_processes_cannot_do(settings, size, error, words):
    check_processes(tiny({}), {}, World(0, 2))
    with pytest.raises(error, match=words):
        check_processes(tiny(settings), {}, World(0, size))


def test_a_process_by_itself_is_no_group():
    with joined(1, 60.0) as world:
        assert world == ALONE
        assert torch.get_num_threads() == 1
        assert not torch.distributed.is_initialized()


@pytest.mark.parametrize(
    ("rank", "error", "status", "said"),
    [
        (0, UserError("no such thing"), 2, "metalearn: no such thing\n"),
        (1, UserError("no such thing"), 2, ""),
        (1, RankError("rank 1: no such thing"), 2, "metalearn: rank 1: no such thing\n"),
        (
            *(1, LostRank("rank 0 was lost"), 3),
            "metalearn: rank 0 was lost; resume with: torchrun --nproc-per-node 2 "
            "-m experiments.cli train quickstart --resume\n",
        ),
    ],
)
def test_what_a_rank_says(monkeypatch, capsys, rank, error, status, said):
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(experiments.run, "run", fail)
    for name, value in {"RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2}.items():
        monkeypatch.setenv(name, str(value))
    assert main(["train", "quickstart"]) == status
    assert capsys.readouterr().err == said


def test_only_training_is_shared(monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(["list"]) == 2
    assert capsys.readouterr().err == (
        "metalearn: only train works in several processes; start list without torchrun\n"
    )
