"""Sweeps on a cluster of two nodes, one of which dies, and sweeps that die themselves."""

import os
import subprocess
import sys
import warnings
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import yaml

import experiments.run
from experiments.bitwise import differences
from experiments.catalog import EXPERIMENTS
from experiments.cli import main
from experiments.config import Experiment
from experiments.files import read_json
from experiments.metrics import read_metrics
from experiments.run import run
from experiments.sweeps.board import Board
from experiments.sweeps.cluster import SETTINGS, scheduler
from experiments.sweeps.file import Halving
from experiments.sweeps.ledger import Trial
from experiments.wandb_offline import read_history, read_records, run_directories

ROOT = Path(__file__).parents[2]
RATES = [0.001, 0.002, 0.02]
SMALL = {
    "learners": ("maml",),
    "outer.steps": 6,
    "outer.tasks": 2,
    "outer.warmup": 0,
    "outer.validate_every": 2,
    "outer.validation_tasks": 4,
    "outer.checkpoint_every": 1,
    "inner.steps": 2,
    "evaluation.tasks": 4,
    "evaluation.resamples": 20,
    "threads": 1,
    "tracking.mode": "disabled",
}


@pytest.fixture(scope="module")
def cluster():
    """A cluster of one node with one core; a test may add nodes."""
    pytest.importorskip("optuna", reason="needs the extra 'sweep'")
    pytest.importorskip("ray", reason="needs the extra 'sweep'")
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, value in SETTINGS.items():
            patch.setenv(name, value)
        # Ray gives processes the paths of the one that connects, not those of the tests.
        patch.setenv("PYTHONPATH", str(ROOT))
        from ray.cluster_utils import Cluster

        made = Cluster()
        try:
            made.add_node(num_cpus=1, include_dashboard=False)
            yield made
        finally:
            made.shutdown()


def write(path: Path, **changed: object) -> Path:
    """A sweep file of three rates."""
    options = []
    for name, value in SMALL.items():
        values = value if isinstance(value, tuple) else (value,)
        options += [f"--{name.replace('_', '-')}", *map(str, values)]
    content: dict[str, object] = {
        "method": "grid",
        "metric": {"name": "maml/validation", "goal": "maximize"},
        "command": [
            *("metalearn", "train", "sinusoid-maml", *options),
            *("--config", "${args_json_file}"),
        ],
        "parameters": {"inner.rate": {"values": RATES}},
    }
    path.write_text(yaml.safe_dump(content | changed))
    return path


def reference(folder: Path, rate: float, **settings: object) -> Path:
    """The same trial, run alone."""
    base = EXPERIMENTS["sinusoid-maml"].override(SMALL | {"tracking.group": "sweep"})
    return run(base.override({"inner.rate": rate} | settings), folder)


def states(folder: Path) -> list[str]:
    return [trial["state"] for trial in read_json(folder / "trials.json")]


def test_a_node_that_dies_costs_no_trial(cluster, tmp_path, monkeypatch, capfd):
    second = cluster.add_node(num_cpus=1)
    raylet = second.all_processes["raylet"][0].process.pid
    file, folder = write(tmp_path / "sweep.yaml"), tmp_path / "sweep"
    killed: list[Trial] = []
    update = Board.update

    def watched(board: Board, trial: Trial) -> None:
        update(board, trial)
        owner = int((folder / trial.name / ".lock").read_text())
        if not killed and trial.validations == 2 and psutil.Process(owner).ppid() == raylet:
            killed.append(trial)
            workers = psutil.Process(raylet).children(recursive=True)
            cluster.remove_node(second, allow_graceful=False)
            for process in workers:  # a node that is lost takes them with it
                with suppress(psutil.NoSuchProcess):
                    process.kill()

    monkeypatch.setattr(Board, "update", watched)
    address = ["--address", cluster.address]
    assert main(["sweep", str(file), "--run-dir", str(folder), "--parallel", "2", *address]) == 0
    assert states(folder) == ["finished"] * 3
    lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("trial-")]
    assert sorted(line.split()[0] for line in lines) == [f"trial-00{i}/3" for i in range(3)]
    (trial,) = killed
    # It went on from its checkpoint, and found what an undisturbed run finds.
    assert (folder / "logs" / f"{trial.name}.log").read_text().count(" 1/6 ") == 1
    alone = reference(tmp_path / "alone", RATES[trial.number])
    assert differences(alone, folder / trial.name) == []


def test_a_sweep_that_dies_goes_on(cluster, tmp_path, monkeypatch, capfd):
    file, folder = write(tmp_path / "sweep.yaml"), tmp_path / "sweep"
    words = ["sweep", str(file), "--run-dir", str(folder), "--address", cluster.address]
    mortal = str(Path(__file__).with_name("mortal_sweep.py"))
    # Four validations a trial, and a report at its end: this is one of the second trial.
    done = subprocess.run(
        [sys.executable, mortal, "8", *words, "--parallel", "1"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == -9, done.stderr
    assert states(folder) == ["finished", "open"]
    before = (folder / "trial-000" / "result.json").stat().st_mtime_ns
    assert main([*words, "--parallel", "1", "--resume"]) == 0
    assert states(folder) == ["finished"] * 3
    assert (folder / "trial-000" / "result.json").stat().st_mtime_ns == before
    steps = [record["step"] for record in read_metrics(folder / "trial-001" / "metrics.jsonl")]
    assert steps == [1, 2, 3, 4, 5, 6]
    alone = reference(tmp_path / "alone", RATES[1])
    assert differences(alone, folder / "trial-001") == []

    # Of what it found the best is a file for train.
    capfd.readouterr()
    ran: list[Experiment] = []
    monkeypatch.setattr(
        experiments.run, "run", lambda experiment, *_: ran.append(experiment) or folder
    )
    assert main(["train", "sinusoid-maml", "--config", str(folder / "best.json")]) == 0
    best = read_json(folder / "summary.json")["best"]
    stored = read_json(folder / best / "config.json")
    usual = {"tracking.group": "", "tracking.job_type": "train"}
    assert ran[0] == Experiment.model_validate(stored).override(usual)
    assert (folder / "figures" / "parallel.png").read_bytes().startswith(b"\x89PNG")

    # Another sweep is not gone on with.
    write(file, method="random", run_cap=2)
    assert main([*words, "--resume"]) == 2
    assert "holds another sweep (method); resume it as it was" in capfd.readouterr().err


def test_trials_are_stopped_early_and_are_runs_of_wandb(cluster, tmp_path, capfd):
    halving = {"type": "hyperband", "min_iter": 2, "eta": 2}
    rates = {"inner.rate": {"values": [RATES[0], RATES[2]]}}
    file = write(tmp_path / "sweep.yaml", early_terminate=halving, parameters=rates)
    folder = tmp_path / "sweep"
    words = ["sweep", str(file), "--parallel", "1", "--address", cluster.address]
    words += ["--tracking.mode", "offline", "--run-dir", str(folder)]
    assert main(words) == 0
    trials = read_json(folder / "trials.json")
    assert states(folder) == ["finished", "stopped"]
    assert [trial["validations"] for trial in trials] == [4, 2]
    said = capfd.readouterr().out
    assert f"best: {folder / 'trial-000'}\n" in said
    assert f"metalearn train sinusoid-maml --config {folder / 'best.json'}\n" in said

    trial = folder / "trial-000"
    (directory,) = run_directories(trial, read_json(trial / "wandb.json")["wandb_id"])
    (path,) = directory.glob("*.wandb")
    runs = [record.run for record in read_records(path) if record.HasField("run")]
    assert {(run.run_group, run.job_type) for run in runs} == {("sweep", "sweep")}
    rows = [row for row in read_history(directory) if "maml/validation" in row]
    assert [row["maml/validation"] for row in rows][-1] == trials[0]["score"]
    assert len(rows) == 4

    # Nothing is left to do: no trial is run again.
    assert main([*words, "--resume"]) == 0
    assert read_json(folder / "trials.json") == trials


def test_halving_knows_the_trials_of_before():
    pytest.importorskip("ray", reason="needs the extra 'sweep'")
    from types import SimpleNamespace

    made = scheduler(Halving(2, 2.0, 100), "validation", [[0.1, 0.5, 0.6], [0.2, 0.4]])
    trial = SimpleNamespace(trial_id="now")
    made.on_trial_add(None, trial)
    for count, score, expected in (
        (1, 0.0, "CONTINUE"),
        (2, 0.45, "CONTINUE"),
        (4, 0.1, "CONTINUE"),
    ):
        report = {"validations": count, "validation": score}
        assert made.on_trial_result(None, trial, report) == expected
    worse = SimpleNamespace(trial_id="worse")
    made.on_trial_add(None, worse)
    assert made.on_trial_result(None, worse, {"validations": 2, "validation": 0.3}) == "STOP"
    # What a trial reports that diverged has no score.
    assert made.on_trial_result(None, worse, {"ended": "diverged"}) == "CONTINUE"
