"""Run folders: never overwritten silently, never shared, never half-written."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from experiments.config import Experiment
from experiments.errors import UserError
from experiments.files import read_json, write_json
from experiments.folder import RunFolder, differing_settings, environment, load_experiment

EXPERIMENT = Experiment(name="trial")


def test_a_new_folder_holds_the_resolved_settings_and_the_environment(tmp_path):
    with RunFolder.create(EXPERIMENT, root=tmp_path) as folder:
        assert folder.path.parent == tmp_path
        assert folder.path.name.startswith("trial-")
        assert load_experiment(folder.path) == EXPERIMENT
        record = read_json(folder.path / "environment.json")
        assert record["packages"]["torch"] and record["device"] and record["threads"] >= 1


def test_two_runs_started_in_the_same_second_get_two_folders(tmp_path):
    paths = set()
    for _ in range(3):
        with RunFolder.create(EXPERIMENT, root=tmp_path) as folder:
            paths.add(folder.path)
    assert len(paths) == 3


def test_runs_that_start_at_once_never_share_a_folder(tmp_path):
    start = Barrier(6)

    def begin(_: int) -> RunFolder:
        start.wait()
        return RunFolder.create(EXPERIMENT, root=tmp_path)

    with ThreadPoolExecutor(6) as pool:
        folders = list(pool.map(begin, range(6)))
    assert len({folder.path for folder in folders}) == 6
    for folder in folders:
        with pytest.raises(UserError, match="in use by process"):
            RunFolder.open(folder.path)
        folder.close()


def test_an_existing_folder_is_refused_with_the_remedy(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"is not empty; .*--resume.*--run-dir"):
        RunFolder.create(EXPERIMENT, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_an_empty_folder_may_be_used(tmp_path):
    RunFolder.create(EXPERIMENT, tmp_path).close()
    assert (tmp_path / "config.json").exists()


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="is a file"):
        RunFolder.create(EXPERIMENT, tmp_path / "file")


def test_resuming_with_other_settings_names_them(tmp_path):
    RunFolder.create(EXPERIMENT, tmp_path).close()
    other = EXPERIMENT.override({"inner.rate": 0.7, "adapter.options": {"r": 4}})
    with pytest.raises(UserError, match=r"another configuration \(adapter.options, inner.rate\)"):
        RunFolder.open(tmp_path, other)
    RunFolder.open(tmp_path, EXPERIMENT).close()  # the refusal gave the lock back


def test_resuming_takes_the_settings_of_the_folder(tmp_path):
    experiment = EXPERIMENT.override({"grids": {"maml": {"inner.rate": (0.1, 0.3)}}})
    RunFolder.create(experiment, tmp_path).close()
    with RunFolder.open(tmp_path) as folder:
        assert differing_settings(folder.experiment, experiment) == []
        assert folder.checkpoints.is_dir() and folder.figures.is_dir()


def test_resuming_what_is_not_there_says_so(tmp_path):
    with pytest.raises(UserError, match="no run folder"):
        RunFolder.open(tmp_path / "none")
    with pytest.raises(UserError, match=r"is .* a run folder"):
        RunFolder.open(tmp_path)


def test_settings_of_another_version_are_refused_by_name(tmp_path):
    RunFolder.create(EXPERIMENT, tmp_path).close()
    values = EXPERIMENT.model_dump(mode="json")
    write_json(tmp_path / "config.json", values | {"colour": "red"})
    with pytest.raises(UserError, match="colour"):
        RunFolder.open(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UserError, match="is not JSON"):
        RunFolder.open(tmp_path)


def test_a_run_killed_before_its_settings_were_written_can_be_resumed(tmp_path):
    (tmp_path / ".config.json-1.tmp").write_text('{"na')
    write_json(tmp_path / "environment.json", {})
    with RunFolder.open(tmp_path, EXPERIMENT) as folder:
        assert folder.experiment == EXPERIMENT
    assert not list(tmp_path.glob(".*.tmp"))


def test_a_folder_of_something_else_is_not_taken_for_a_run(tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(UserError, match=r"config\.json does not exist"):
        RunFolder.open(tmp_path, EXPERIMENT)


def test_two_processes_never_share_a_folder(tmp_path):
    code = (
        "import sys; from pathlib import Path\n"
        "from experiments.errors import UserError\n"
        "from experiments.folder import RunFolder\n"
        "try: RunFolder.open(Path(sys.argv[1]))\n"
        "except UserError as error: print(error)\n"
    )
    with RunFolder.create(EXPERIMENT, tmp_path):
        command = [sys.executable, "-c", code, str(tmp_path)]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert f"in use by process {os.getpid()}" in said
    assert said.count("\n") == 1


def test_another_environment_is_recorded_on_resume(tmp_path, caplog):
    RunFolder.create(EXPERIMENT, tmp_path).close()
    changed = read_json(tmp_path / "environment.json") | {"python": "3.0"}
    write_json(tmp_path / "environment.json", changed)
    RunFolder.open(tmp_path).close()
    record = read_json(tmp_path / "environment.json")
    assert record["python"] == "3.0"
    assert record["resumed"] == [{"python": environment()["python"]}]
    assert "another python" in caplog.text


def test_a_failed_write_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "result.json"
    write_json(path, {"value": 1})
    with pytest.raises(TypeError):
        write_json(path, {"value": object()})

    def full(*_):
        raise OSError("no space left")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space"):
        write_json(path, {"value": 2})
    assert json.loads(path.read_text()) == {"value": 1}
    assert [entry.name for entry in tmp_path.iterdir()] == ["result.json"]
