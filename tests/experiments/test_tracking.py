"""Tracking: real offline W&B runs, read back from disk."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import matplotlib.figure
import pytest
import torch

from experiments import checkpoint
from experiments.config import Experiment
from experiments.errors import UserError
from experiments.metrics import MetricsLog
from experiments.sinks import BestCheckpoint, Findings, best_checkpoint
from experiments.tracking import start
from experiments.wandb_offline import (
    logged_steps,
    read_artifacts,
    read_config,
    read_history,
    read_records,
    read_tables,
    run_directories,
    seal,
)

EXPERIMENT = Experiment(name="trial").override(
    {"tracking.project": "tests", "tracking.group": "night", "inner.rate": 0.25}
)
CURVES = [
    {
        "learner": learner,
        "shots": 1,
        "split": "query",
        "step": step,
        "metric": "accuracy",
        "mean": 0.5 + step / 10,
        "low": 0.4,
        "high": 0.9,
        "tasks": 20,
    }
    for learner in ("maml", "anil")
    for step in range(3)
]


ROWS = [{"learner": "maml", "shots": 1, "accuracy": {"mean": 0.7, "low": 0.6, "high": 0.8}}]


def saved(folder: Path) -> BestCheckpoint | None:
    """Checkpoints of three trainings, the second the best, and one that goes on."""
    for name, score, ended in (
        ("a", 0.5, True),
        ("b", 0.7, True),
        ("c", 0.6, True),
        ("d", 9, False),
    ):
        numbers = {"step": 12, "best_step": 8, "ended": ended, "best_score": score}
        checkpoint.save(folder / "checkpoints" / name, {"best/x": torch.ones(3)}, numbers)
    (folder / "config.json").write_text("{}")
    return best_checkpoint(folder)


def record(index: int) -> dict:
    return {"learner": "maml", "fold": "01", "seed": 0, "step": index, "loss": 1 / (index + 3)}


def test_an_offline_run_is_found_on_disk_below_the_run_folder(tmp_path, monkeypatch, capfd):
    home, folder = tmp_path / "home", tmp_path / "run"
    folder.mkdir(), home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(home)
    figure = folder / "adaptation.png"
    matplotlib.figure.Figure(figsize=(1, 1)).savefig(figure)

    tracker = start(EXPERIMENT, folder)
    for index in range(3):
        tracker.log(record(index), index)
    report = folder / "report.html"
    report.write_text("<!doctype html><p>found</p>")
    tracker.conclude(Findings(CURVES, ROWS, [figure], report, saved(folder)))
    tracker.finish()

    run_id = json.loads((folder / "wandb.json").read_text())["wandb_id"]
    (directory,) = run_directories(folder, run_id)
    assert read_config(directory) == EXPERIMENT.model_dump(mode="json")
    history = read_history(directory)
    assert [row["_step"] for row in history] == [0, 1, 2, 3]
    assert history[2]["maml/01/seed 0/loss"] == record(2)["loss"]
    records = read_records(directory / f"run-{run_id}.wandb")
    run = next(item.run for item in records if item.HasField("run"))
    assert (run.project, run.run_group, run.display_name) == ("tests", "night", "run")
    assert run.job_type == "train"
    tables = read_tables(directory)
    assert tables["curves"] == CURVES
    chart = tables["adaptation/accuracy_1-shot_table"]
    assert [(row["step"], row["lineVal"]) for row in chart if row["lineKey"] == "anil"] == [
        (0, 0.5),
        (1, 0.6),
        (2, 0.7),
    ]
    image = history[3]["figures/adaptation"]["path"]
    assert (directory / "files" / image).read_bytes() == figure.read_bytes()
    page = history[3]["report"]
    assert page["_type"] == "html-file"
    assert (directory / "files" / page["path"]).read_text() == report.read_text()
    assert history[3]["test/maml/1-shot/accuracy"] == 0.7
    assert not list(home.iterdir())  # nothing in the home or the working directory
    assert "".join(capfd.readouterr()) == ""


def test_the_best_checkpoint_is_an_artifact_of_the_files_in_the_run_folder(tmp_path):
    tracker = start(EXPERIMENT, tmp_path)
    best = saved(tmp_path)
    assert best is not None and (best.training, best.step, best.score) == ("b", 8, 0.7)
    tracker.conclude(Findings(CURVES, best=best))
    tracker.finish()
    (path,) = tmp_path.rglob("*.wandb")
    (found,) = read_artifacts(path.parent)
    run_id = json.loads((tmp_path / "wandb.json").read_text())["wandb_id"]
    assert (found.name, found.type) == (f"checkpoint-{run_id}", "model")
    assert found.metadata == {"training": "b", "step": 8, "validation": 0.7}
    assert "best" in found.aliases
    place = tmp_path / "checkpoints" / "b" / "step-000012"
    files = [tmp_path / "config.json", place / "meta.json", place / "tensors.safetensors"]
    assert found.files == {str(file.relative_to(tmp_path)): file for file in files}
    assert not list(tmp_path.glob("wandb/data/**/*.safetensors"))  # no second copy


def test_a_run_without_a_training_has_no_best_checkpoint(tmp_path):
    assert best_checkpoint(tmp_path) is None
    checkpoint.save(tmp_path / "checkpoints" / "a", {}, {"step": 1, "ended": False})
    nan = {"step": 1, "ended": True, "best_score": None}
    checkpoint.save(tmp_path / "checkpoints" / "b", {}, nan)
    assert best_checkpoint(tmp_path) is None


def test_without_a_group_runs_are_grouped_by_experiment(tmp_path):
    settings = {"tracking.group": "", "tracking.job_type": "evaluate"}
    start(EXPERIMENT.override(settings), tmp_path).finish()
    (path,) = tmp_path.rglob("*.wandb")
    run = next(item.run for item in read_records(path) if item.HasField("run"))
    assert (run.run_group, run.job_type) == ("trial", "evaluate")


CRASH = """
import os, signal, sys
from pathlib import Path
from experiments.metrics import MetricsLog
from experiments.tracking import start
from test_tracking import EXPERIMENT, record

folder = Path(sys.argv[1])
tracker, log = start(EXPERIMENT, folder), MetricsLog(folder / "metrics.jsonl")
for index in range(7):
    log.append(record(index))
    tracker.log(record(index), index)
os.kill(os.getpid(), signal.SIGKILL)
"""


def crash(folder: Path) -> None:
    paths = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    command = [sys.executable, "-c", CRASH, str(folder)]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": paths})
    assert done.returncode == -signal.SIGKILL


@pytest.mark.parametrize("checkpointed", [3, 7])
def test_after_a_kill_the_two_directories_hold_every_step_once(tmp_path, checkpointed):
    crash(tmp_path)
    with MetricsLog(tmp_path / "metrics.jsonl") as log:
        log.truncate_to(checkpointed)
        tracker = start(EXPERIMENT, tmp_path, resume=True)
        for index in range(checkpointed, 10):
            log.append(record(index))
            tracker.log(record(index), index)
    tracker.conclude(Findings(CURVES))
    tracker.finish()

    run_id = json.loads((tmp_path / "wandb.json").read_text())["wandb_id"]
    directories = run_directories(tmp_path, run_id)
    assert len(directories) == 2
    rows = [row for directory in directories for row in read_history(directory)]
    assert [row["_step"] for row in rows] == list(range(11))
    losses = [row["maml/01/seed 0/loss"] for row in rows[:10]]
    assert losses == [record(index)["loss"] for index in range(10)]
    assert logged_steps(tmp_path, run_id) == set(range(11))


def test_what_is_logged_twice_is_there_once(tmp_path):
    for resume in (False, True):
        tracker = start(EXPERIMENT, tmp_path, resume=resume)
        for index in range(2):
            tracker.log(record(index), index)
        tracker.conclude(Findings(CURVES))
        tracker.finish()
    run_id = json.loads((tmp_path / "wandb.json").read_text())["wandb_id"]
    rows = [row for path in run_directories(tmp_path, run_id) for row in read_history(path)]
    assert [row["_step"] for row in rows] == [0, 1, 2]


def test_disabled_writes_nothing(tmp_path):
    tracker = start(EXPERIMENT.override({"tracking.mode": "disabled"}), tmp_path)
    tracker.log(record(0), 0)
    tracker.conclude(Findings(CURVES))
    tracker.finish()
    assert not list(tmp_path.iterdir())


def test_a_file_cut_anywhere_gives_its_whole_records(tmp_path):
    tracker = start(EXPERIMENT, tmp_path)
    for index in range(40):
        # Long values, so that records lie across the blocks of 32 KiB.
        tracker.log(record(index) | {"note": "x" * 3000}, index)
    tracker.finish()
    (path,) = tmp_path.rglob("*.wandb")
    whole = path.read_bytes()
    assert len(whole) > 3 * 32768
    steps = [item.history.step.num for item in read_records(path) if item.HasField("history")]
    assert steps == list(range(40))
    cut = tmp_path / "cut.wandb"
    for size in (0, 3, 7, 10, 32767, 32768, 32770, 50000, len(whole) - 1):
        cut.write_bytes(whole[:size])
        found = [item.history.step.num for item in read_records(cut) if item.HasField("history")]
        assert found == steps[: len(found)]
        before = list(read_records(cut))
        seal(cut)
        assert list(read_records(cut)) == before
    assert len(found) == 40
    with cut.open("ab") as late:  # W&B's own process, which outlives a killed one for a moment
        cut.write_bytes(whole[:50000])
        seal(cut)
        before = cut.read_bytes()
        late.write(whole[50000:])
    assert cut.read_bytes() == before
    cut.write_bytes(b"something else")
    with pytest.raises(UserError, match="not a W&B file"):
        list(read_records(cut))


def test_a_run_that_is_preempted_says_so(tmp_path):
    tracker = start(EXPERIMENT, tmp_path)
    tracker.log(record(0), 0)
    tracker.preempted()
    tracker.finish(exit_code=1)
    (path,) = tmp_path.rglob("*.wandb")
    kinds = [entry.WhichOneof("record_type") for entry in read_records(path)]
    assert kinds.count("preempting") == 1 and kinds[-1] == "exit"
    start(EXPERIMENT.override({"tracking.mode": "disabled"}), tmp_path).preempted()
