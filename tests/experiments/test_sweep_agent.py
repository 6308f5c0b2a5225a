"""The same sweep file under `wandb agent`, without a network: its command is one of ours."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import wandb.wandb_agent
from wandb.wandb_agent import Agent

import experiments.run
from experiments.catalog import EXPERIMENTS
from experiments.cli import main
from experiments.config import Experiment
from experiments.tracking import IDENTITY, start

QUICK = EXPERIMENTS["quickstart"]


@pytest.fixture
def agent(tmp_path, monkeypatch):
    """Starts a run as W&B's agent does: gives the words that it would have started."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.setenv("WANDB_SWEEP_ID", "sweep1")
    for name in ("WANDB_RUN_ID", "WANDB_SWEEP_PARAM_PATH"):  # the agent sets them
        monkeypatch.setenv(name, "")
    started: list[list[str]] = []

    def process(command: list[str], **_: object) -> SimpleNamespace:
        started.append(command)
        return SimpleNamespace()

    monkeypatch.setattr(wandb.wandb_agent, "AgentProcess", process)

    def run(command: list[str], settings: dict[str, object]) -> list[str]:
        agent = Agent(None, None, sweep_id="sweep1")
        agent._sweep_command = list(command)
        agent._command_run(
            {
                "run_id": "run1",
                "program": "metalearn",
                "args": {name: {"value": value} for name, value in settings.items()},
            }
        )
        return started[-1]

    return run


@pytest.fixture
def ran(monkeypatch) -> list[Experiment]:
    """The experiments that are run."""
    found: list[Experiment] = []
    monkeypatch.setattr(
        experiments.run, "run", lambda experiment, *_: found.append(experiment) or Path("run")
    )
    return found


def test_settings_of_every_kind_come_in_a_file(agent, ran):
    settings = {
        "inner.rate": 0.25,
        "inner.head-rate": None,
        "backbone.normalize": False,
        "episodes.shots": [1, 5],
        "outer": {"steps": 7, "schedule": "constant"},
    }
    command = ["metalearn", "train", "quickstart", "--seeds", "3", "--config", "${args_json_file}"]
    words = agent(command, settings)
    assert words[:-1] == command[:-1]
    assert json.loads(Path(words[-1]).read_text()) == settings
    assert main(words[1:]) == 0
    assert ran == [
        QUICK.override(
            {
                "seeds": (3,),
                "inner.rate": 0.25,
                "backbone.normalize": False,
                "episodes.shots": (1, 5),
                "outer.steps": 7,
                "outer.schedule": "constant",
            }
        )
    ]


def test_plain_settings_come_as_options_too(agent, ran):
    settings = {"inner.rate": 0.25, "inner.head_rate": 0.5, "head.kind": "zero"}
    words = agent(["${env}", "metalearn", "train", "quickstart", "${args}"], settings)
    assert words[0] == "/usr/bin/env"
    assert main(words[2:]) == 0
    assert ran == [QUICK.override(settings)]


def test_the_run_is_the_one_that_the_agent_waits_for(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_SWEEP_ID", "sweep1")
    monkeypatch.setenv("WANDB_RUN_ID", "run1")
    given: dict[str, object] = {}
    monkeypatch.setattr(wandb, "init", lambda **named: given.update(named))
    start(QUICK, tmp_path)
    assert (given["id"], given["mode"], given["resume"]) == ("run1", "online", "allow")
    assert json.loads((tmp_path / IDENTITY).read_text()) == {"wandb_id": "run1"}
    given.clear()
    start(QUICK.override({"tracking.mode": "disabled"}), tmp_path)
    assert not given


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ('{"iner": {"rate": 1}}', "no setting iner.rate; did you mean inner.rate?"),
        ('{"inner.steps": "x"}', "inner.steps: Input should be a valid integer"),
        ("[]", 'holds no settings; write {"inner.rate": 0.1}'),
        ("{", "is not JSON"),
        (None, "No such file or directory; name a JSON file"),
    ],
)
def test_a_mistake_in_a_file_of_settings(tmp_path, capsys, ran, content, expected):
    path = tmp_path / "settings.json"
    if content is not None:
        path.write_text(content)
    assert main(["train", "quickstart", "--config", str(path)]) == 2
    said = capsys.readouterr().err
    assert f"--config {path}" in said and expected in said and said.count("\n") == 1
    assert not ran


def test_a_run_folder_is_a_file_of_settings_and_options_come_after_it(tmp_path, ran):
    stored = QUICK.override({"inner.rate": 0.3, "grids": {}, "episodes.shots": (1, 5)})
    path = tmp_path / "config.json"
    path.write_text(stored.model_dump_json())
    assert main(["train", "quickstart", "--config", str(path), "--inner.steps", "9"]) == 0
    assert ran == [stored.override({"inner.steps": 9})]
