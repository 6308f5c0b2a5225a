"""Tracking: real offline W&B runs, read back from disk."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import matplotlib.figure
import pyarrow
import pytest

from experiments.config import Experiment
from experiments.errors import UserError
from experiments.metrics import MetricsLog
from experiments.tracking import start
from experiments.wandb_offline import (
    logged_steps,
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
    tracker.log_curves(pyarrow.Table.from_pylist(CURVES), [figure])
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
    assert not list(home.iterdir())  # nothing in the home or the working directory
    assert "".join(capfd.readouterr()) == ""


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
    tracker.log_curves(CURVES)
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
        tracker.log_curves(CURVES)
        tracker.finish()
    run_id = json.loads((tmp_path / "wandb.json").read_text())["wandb_id"]
    rows = [row for path in run_directories(tmp_path, run_id) for row in read_history(path)]
    assert [row["_step"] for row in rows] == [0, 1, 2]


def test_disabled_writes_nothing(tmp_path):
    tracker = start(EXPERIMENT.override({"tracking.mode": "disabled"}), tmp_path)
    tracker.log(record(0), 0)
    tracker.log_curves(CURVES)
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
