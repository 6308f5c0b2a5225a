"""The examples of a matrix's tasks: made once, kept, and read by the policy that reads."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from experiments.cli import main
from experiments.files import write_json
from experiments.prediction import batch_of
from experiments.selection import portfolio, readings, sources
from experiments.selection.policies import POLICIES
from experiments.selection.readings import READINGS, readings_of
from experiments.selection.recommending import recommendation
from experiments.selection.tables import read_matrix
from tasks.sources.files import read_examples
from tests.experiments.selection import mortal_matrix as made

NAMES = [f"task-{number}" for number in range(4)]


@pytest.fixture
def planned(tiny, tmp_path) -> Path:
    """The folder of a matrix of which only the plan is there."""
    tasks = [task.model_dump(mode="json") for task in made.plan(tmp_path)]
    (tmp_path / "planned").mkdir()
    write_json(tmp_path / "planned" / "settings.json", {"wanted": {"tasks": tasks}})
    return tmp_path / "planned"


def test_it_is_the_first_support_set_that_is_read(planned, tmp_path):
    found = readings_of(planned, NAMES)
    base = portfolio.Workshop(portfolio.TRAINED)
    for number, task in enumerate(made.plan(tmp_path)):
        drawn = sources.draw(task, 0)
        length = len(drawn.support)
        assert found.lengths[number] == length
        named = [drawn.label_names[label] for label in found.labels[number, :length]]
        assert named == [example.label for example in drawn.support]
        alone = batch_of(base.collator, drawn.support, drawn.label_names)
        expected = readings.read(base, alone)[0]
        np.testing.assert_allclose(found.embeddings[number, :length], expected, atol=1e-5)


def test_what_is_kept_is_not_made_again(planned, monkeypatch):
    whole = readings_of(planned, NAMES)
    kept = load_file(planned / READINGS)
    # As a killed run leaves it: without the last two tasks.
    save_file({n: v for n, v in kept.items() if n[:6] in NAMES[:2]}, planned / READINGS)
    drawn, draw = [], sources.draw
    monkeypatch.setattr(
        sources, "draw", lambda task, index: drawn.append(task.name) or draw(task, index)
    )
    again = readings_of(planned, NAMES)
    assert drawn == NAMES[2:]
    np.testing.assert_array_equal(again.embeddings, whole.embeddings)
    np.testing.assert_array_equal(readings_of(planned, NAMES[::-1]).lengths, whole.lengths[::-1])
    assert drawn == NAMES[2:]


def keep(matrix: Path, size: int) -> None:
    """Readings of the made-up matrix, whose first number says what its features say."""
    problem, random = read_matrix(matrix).problem(0.0), np.random.default_rng(0)
    found = {}
    for name, features in zip(problem.tasks, problem.features, strict=True):
        embeddings = random.standard_normal((6, size)) * 0.1
        embeddings[:, 0] += 4 * (features[3] < 0.5)
        found[f"{name}.embeddings"] = embeddings.astype(np.float32)
        found[f"{name}.labels"] = np.arange(6) % 2
    save_file(found, matrix / READINGS)


@pytest.fixture
def quick(monkeypatch) -> None:
    row = replace(POLICIES["reader"], training={"updates": 60, "width": 8, "rate": 0.02})
    monkeypatch.setitem(POLICIES, "reader", row)


def test_the_reader_is_judged_like_the_others(make_matrix, quick, tmp_path):
    matrix, run = make_matrix(), tmp_path / "run"
    keep(matrix, 3)
    words = ["select", "evaluate", str(matrix), "--run-dir", str(run), "--weight", "0"]
    words += ["--folds", "2", "--repetitions", "1", "--tracking", "disabled"]
    assert main([*words, "--policy", "reader"]) == 0
    rows = json.loads((run / "result.json").read_text())["rows"]
    (gap,) = [row["gap"]["mean"] for row in rows if row["policy"] == "reader"]
    assert gap > 0.5


def test_the_reader_is_kept_and_reads_examples_of_a_user(make_matrix, quick, tmp_path):
    support = tmp_path / "my.jsonl"
    texts = [("money back", "refund"), ("pay me back", "refund"), ("no box", "parcel")]
    rows = [json.dumps({"text": text, "label": label}) for text, label in texts]
    support.write_text("\n".join(rows))
    matrix, folder = make_matrix(), tmp_path / "reader"
    base = portfolio.Workshop(portfolio.TRAINED)
    batch = batch_of(base.collator, read_examples(support), ["parcel", "refund"])
    keep(matrix, readings.read(base, batch)[0].shape[1])
    words = ["select", "fit", str(matrix), "--policy", "reader", "--output", str(folder)]
    assert main([*words, "--tracking", "disabled"]) == 0
    assert (folder / "policy.safetensors").exists()
    answer = recommendation(folder, support)
    assert answer["learner"] in made.UNTRAINED and answer["looks"] == "examples"
    assert not answer["tried"] and answer["deciding"] is None


def test_damaged_readings_and_missing_data_are_named(make_matrix, tmp_path, capfd):
    matrix = make_matrix()
    words = ["select", "evaluate", str(matrix), "--run-dir", str(tmp_path / "run")]
    words += ["--policy", "reader", "--folds", "2", "--tracking", "disabled"]
    assert main(words) == 2
    assert "none.jsonl.gz" in capfd.readouterr().err
    (matrix / READINGS).write_bytes(b"no readings")
    assert main([*words, "--resume"]) == 2
    line = capfd.readouterr().err
    assert "readings.safetensors is damaged; remove it, and it is made again" in line
