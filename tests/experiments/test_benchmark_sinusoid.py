"""The yardstick on sinusoids runs, says what it measured and keeps it."""

import json

from experiments.benchmarks import sinusoid
from experiments.benchmarks.sinusoid import main


def test_it_prints_and_keeps_every_part(tmp_path, capsys, monkeypatch) -> None:
    # The real compiler has its own tests, and takes seconds.
    monkeypatch.setattr("torch.compile", lambda graph, **_: graph)
    monkeypatch.setattr(sinusoid, "WARM_UP", 1)
    path = tmp_path / "made" / "sinusoid.json"
    assert main(["--repetitions", "2", "--steps", "3", "--output", str(path)]) == 0
    made = json.loads(path.read_text())
    said = capsys.readouterr().out
    assert made["environment"]["packages"]["torch"] and made["repetitions"] == 2
    for part in ("meta-step", "meta-gradient"):
        for mode in ("eager", "compiled"):
            times = made["milliseconds"][f"{part}, {mode}"]
            assert 0 < times["low"] <= times["median"] <= times["high"]
            assert f"{part}, {mode} " in said
    assert "drawing the tasks" in said and made["first_compiled_step_seconds"] > 0
