"""Start-up and the measurements behind choices run, say what they found and keep it."""

import json

import pytest

from experiments.benchmarks import choices, startup
from experiments.errors import UserError


def test_choices_are_measured_printed_and_kept(tmp_path, capsys, monkeypatch) -> None:
    # The real compiler takes a minute.
    monkeypatch.setattr("torch.compile", lambda function: function)
    path = tmp_path / "choices.json"
    words = ["--backbone", "tiny-bert", "--times", "1", "--output", str(path)]
    assert choices.main(words) == 0
    made = json.loads(path.read_text())
    assert made["kept"]["texts"] == 100 and made["kept"]["read"] > 0
    assert all(seconds > 0 for seconds in made["compilation"].values())
    said = capsys.readouterr().out
    assert "to read from files" in said and "compiled" in said


def test_a_start_is_timed_until_its_first_meta_step(tmp_path, capsys) -> None:
    path = tmp_path / "startup.json"
    assert startup.main(["sinusoid-maml", "--times", "1", "--output", str(path)]) == 0
    rows = json.loads(path.read_text())["rows"]
    assert rows.keys() == {"--help", "sinusoid-maml"}
    (helped,), (trained,) = rows["--help"], rows["sinusoid-maml"]
    assert 0 < helped[0] < trained[0]
    assert "sinusoid-maml: " in capsys.readouterr().out


def test_a_command_without_a_meta_step_is_no_start() -> None:
    with pytest.raises(UserError, match=r"took no meta-step: .*no experiment"):
        startup.start("no-such-experiment")
