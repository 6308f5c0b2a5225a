"""A run that dies at any moment and is resumed ends like one that was left alone, bit for bit."""

import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from experiments.bitwise import differences
from experiments.checkpoint import load, save
from experiments.dying import Moment, Template
from experiments.faults import small_experiment
from experiments.files import read_json
from experiments.metrics import read_metrics
from experiments.wandb_offline import read_history, run_directories

EXPERIMENT = small_experiment()
ROOT = Path(__file__).parents[2]


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


def lines(said: str) -> list[str]:
    """What was said, without the progress of the trainings."""
    return [line for line in said.splitlines() if line and " s left" not in line]


@pytest.mark.parametrize(
    ("moments", "line"),
    [
        # A meta-step, a checkpoint, test tasks: the last records come before them.
        (
            [("step", 9), ("checkpoint", 40), ("file", 20)],
            "metalearn: stopped by SIGTERM, saved in",
        ),
        (
            [("record", 9), ("checkpoint", 3), ("checkpoint", 40), ("file", 15)],
            "metalearn: No space left on device: {folder}; free some space and resume with: ",
        ),
    ],
    ids=["stopped", "full"],
)
def test_a_fault_ends_in_one_line_and_is_resumed_exactly(
    tmp_path, template, undisturbed, request, moments, line
):
    fault = request.node.callspec.id
    folder = tmp_path / "run"
    for moment in moments:
        assert template.go(folder, EXPERIMENT, Moment(*moment, fault)) is None
        *earlier, last = lines(template.said)
        heard = "metalearn: SIGTERM: stops at its next boundary; a second signal ends it at once"
        assert earlier == [heard] * (fault == "stopped")
        assert last.startswith(line.format(folder=folder))
        assert last.endswith(f"resume with: metalearn train NAME --run-dir {folder} --resume")
    assert template.go(folder, EXPERIMENT) is not None
    assert differences(undisturbed, folder) == []


RUN = """
import sys
from pathlib import Path
from experiments.endings import ended
from experiments.faults import small_experiment
from experiments.run import run
folder = Path(sys.argv[1])
sys.exit(ended(["train"], lambda: 0 * len(str(run(small_experiment(), folder, folder.is_dir())))))
"""


def test_a_disk_that_is_really_full(tmp_path, undisturbed):
    disk, out = tmp_path / "disk", tmp_path / "out"
    disk.mkdir()
    # A file system of memory in a name space of this user: no root is needed.
    mount = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-ec"]
    small = f"mount -t tmpfs -o size=200k tmpfs {disk}"
    if shutil.which("unshare") is None or subprocess.run([*mount, small]).returncode:
        pytest.skip("no name spaces of users here")
    run = f"{sys.executable} -c '{RUN}' {disk}/run"
    whole = (
        f"{small}; if {run}; then exit 99; else echo status $?; fi; df -k {disk} | tail -1\n"
        f"mount -o remount,size=50m {disk}; {run}; cp -r {disk}/run {out}"
    )
    done = subprocess.run([*mount, whole], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    status, space, *_ = done.stdout.splitlines()
    assert status == "status 4" and " 0 100% " in space
    full, *others = lines(done.stderr)
    assert full.startswith("metalearn: No space left on device") and not others
    assert differences(undisturbed, out) == []


def test_a_run_that_is_stopped_has_saved_the_step_it_was_in(tmp_path, template):
    folder = tmp_path / "run"
    # The third step of the second training, of which every second one has a checkpoint.
    assert template.go(folder, EXPERIMENT, Moment("step", 17, "stopped")) is None
    records = read_metrics(folder / "metrics.jsonl")
    assert len(records) == 9 and records[-1]["step"] == 3
    newest = max(folder.glob("checkpoints/*"), key=lambda place: place.stat().st_mtime)
    found = load(newest)
    assert found is not None and found[1]["step"] == 3 and found[1]["records"] == 9


@pytest.mark.parametrize("which", ["scores", "predictions"])
def test_damaged_scores_are_named_and_made_again(tmp_path, template, undisturbed, which):
    folder = shutil.copytree(undisturbed, tmp_path / "run")
    scores = sorted((folder / "parts").glob("maml*.scores.parquet"))[1]
    damaged = scores.with_name(scores.name.replace("scores", which))
    damaged.write_bytes(damaged.read_bytes()[:-100])
    (folder / "result.json").unlink()
    with pytest.raises(RuntimeError) as failure:
        template.go(folder, EXPERIMENT)
    assert f"metalearn: {damaged} is damaged (" in str(failure.value)
    assert f"; remove {scores} and resume: it is judged again" in str(failure.value)
    scores.unlink()
    assert template.go(folder, EXPERIMENT) is not None
    assert differences(undisturbed, folder) == []


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


def test_without_its_process_wandb_ends_the_run_and_gets_the_records_later(
    tmp_path, template, undisturbed
):
    tracked = EXPERIMENT.override({"tracking.mode": "offline"})
    folder = tmp_path / "run"
    assert template.go(folder, tracked, Moment("tracking", 9, "unserved")) is None
    (line,) = lines(template.said)
    assert line.startswith("metalearn: the process of W&B was lost; resume with: metalearn train")
    # The record that W&B did not get is in the log; the next process brings it.
    assert template.go(folder, tracked) is not None
    assert differences(undisturbed, folder) == []


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
