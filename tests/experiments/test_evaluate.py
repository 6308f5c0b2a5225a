"""Runs, experiments and baselines are judged on the same tasks, in one table."""

import json
import shutil

import pyarrow.parquet as pq
import pytest

from experiments import catalog, checkpoint
from experiments.config import Experiment
from experiments.errors import UserError
from experiments.evaluate import evaluate
from experiments.folder import load_experiment
from tasks.episode import TaskError

KEYS = ("episode", "split", "step", "example", "label", "prediction")


def result(folder):
    return json.loads((folder / "result.json").read_text())


def predictions(folder, learner, episodes):
    """What a learner said in the first tasks, in order."""
    rows = pq.read_table(folder / "predictions.parquet").to_pylist()
    chosen = [r for r in rows if r["learner"] == learner and r["episode"] < episodes]
    return [(*(row[key] for key in KEYS), round(row["probability"], 5)) for row in chosen]


@pytest.fixture
def second(tiny_run, tmp_path):
    """A run of the same learners under another name."""
    shutil.copytree(tiny_run, tmp_path / "second")
    return tmp_path / "second"


def test_a_run_is_judged_as_it_judged_itself(tiny_run, tmp_path, capsys):
    for training in (tiny_run / "checkpoints").iterdir():  # a fresh state would be told apart
        found = checkpoint.load(training)
        assert found is not None and found[1]["best_step"] > 0
    options = ["--evaluation.tasks", "3", "--evaluation.reference", "majority"]
    folder = evaluate([str(tiny_run), "majority", "finetune"], options, tmp_path / "table")
    found = result(folder)
    learners = ["maml", "protonet", "majority", "finetune"]
    assert [row["learner"] for row in found["rows"]] == learners
    assert {row["tasks"] for row in found["rows"]} == {3}
    assert {entry["reference"] for entry in found["comparisons"]} == {"majority"}
    for learner in ("maml", "protonet", "finetune"):
        said = predictions(folder, learner, 3)
        assert said == predictions(tiny_run, learner, 3)
        assert len(said) > 3 * 2 * 2
    runs = {choice["learner"]: choice["run"] for choice in found["choices"]}
    assert runs["maml"] == str(tiny_run) and runs["majority"] is None
    for name in ("curves.parquet", "scores.parquet", "environment.json", "report.html"):
        assert (folder / name).exists(), name
    assert (folder / "figures" / "curves.png").exists()
    stored = load_experiment(folder)
    assert (stored.name, list(stored.learners)) == ("evaluate", learners)
    assert (stored.tracking.job_type, stored.tracking.group) == ("evaluate", "tiny")
    assert "protonet" in capsys.readouterr().out


def test_the_same_learner_of_two_runs_is_named_with_its_run(tiny_run, second, tmp_path):
    options = ["--evaluation.tasks", "2"]
    targets = [str(tiny_run), str(second), str(tiny_run), "prototypes"]
    folder = evaluate(targets, options, tmp_path / "table")
    names = [row["learner"] for row in result(folder)["rows"]]
    runs = [f"{name} ({run})" for run in ("first", "second") for name in ("maml", "protonet")]
    assert names == [*runs, "prototypes"]
    first, other = (predictions(folder, f"maml ({run})", 2) for run in ("first", "second"))
    assert first == other


def test_other_tasks_shots_and_steps(tiny_run, tmp_path):
    options = ["--family.source", "builtin", "--family.name", "builtin", "--evaluation.tasks", "2"]
    options += ["--episodes.shots", "1", "3", "--episodes.ways", "4", "--inner.steps", "3"]
    found = result(evaluate([str(tiny_run)], options, tmp_path / "table"))
    assert [(row["learner"], row["shots"], row["step"]) for row in found["rows"]] == [
        ("maml", 1, 3),
        ("protonet", 1, 0),
        ("maml", 3, 3),
        ("protonet", 3, 0),
    ]
    # Trained for one shot only: the nearest training is taken, and said.
    assert {(c["shots"], c["trained_shots"]) for c in found["choices"]} == {(1, 1), (3, 1)}


@pytest.fixture
def entries(tiny_experiment, monkeypatch):
    """A catalog of one experiment that trains and one that does not."""
    grids = {"logistic": {"baselines.strength": (1e-4, 10.0)}}
    frozen = {"name": "frozen", "learners": ("majority", "logistic"), "grids": grids}
    found = {"tiny": tiny_experiment, "frozen": tiny_experiment.override(frozen)}
    monkeypatch.setattr(catalog, "EXPERIMENTS", found)


def test_an_experiment_without_training_is_chosen_for_and_judged(entries, tmp_path):
    options = ["--evaluation.tasks", "2", "--backbone.name", "tiny-gpt2"]
    folder = evaluate(["frozen", "prototypes"], options, tmp_path / "table")
    found = result(folder)
    assert [row["learner"] for row in found["rows"]] == ["majority", "logistic", "prototypes"]
    (chosen,) = (c for c in found["choices"] if c["learner"] == "logistic")
    assert chosen["settings"]["baselines.strength"] in (1e-4, 10.0)
    assert 0 <= chosen["validation_accuracy"] <= 1
    assert load_experiment(folder).backbone.name == "tiny-gpt2"


@pytest.mark.parametrize(
    ("targets", "options", "message"),
    [
        ("{run} prototype", "", "learner prototype; did you mean prototypes?"),
        ("prototypes", "", "name a run folder or an experiment too"),
        ("tiny", "", "tiny trains maml; run metalearn train tiny first"),
        ("frozen maml", "", "maml needs training"),
        ("{run}", "--backbone.name tiny-gpt2", "a run keeps the backbone.name"),
        ("{run}", "--evaluation.reference reptile", "no learner reptile to compare with"),
        ("{run}", "--evaluation.task 3", "no setting --evaluation.task; did you mean"),
        ("{here}", "", "is no run folder"),
    ],
)
def test_mistakes_name_the_remedy(entries, tiny_run, tmp_path, targets, options, message):
    words = targets.format(run=tiny_run, here=tmp_path).split()
    with pytest.raises(UserError, match=message):
        evaluate(words, options.split(), tmp_path / "table")
    assert not (tmp_path / "table").exists()


def test_a_class_that_was_trained_on_is_refused(tiny_run, tmp_path):
    with pytest.raises(UserError, match=r"class '\w+' is among the test tasks, but .*first was"):
        evaluate([str(tiny_run)], ["--family.split-seed", "1"], tmp_path / "table")
    # The same records under another path are no other data.
    copy = tmp_path / "copy.jsonl"
    shutil.copy(load_experiment(tiny_run).family.path, copy)
    options = ["--family.path", str(copy), "--family.split-seed", "1"]
    with pytest.raises(UserError, match="is among the test tasks"):
        evaluate([str(tiny_run)], options, tmp_path / "table")
    assert not (tmp_path / "table").exists()


def test_impossible_tasks_and_used_folders_are_refused_first(tiny_run, second, tmp_path):
    with pytest.raises(TaskError, match="9 ways asked for"):
        evaluate([str(tiny_run)], ["--episodes.ways", "9"], tmp_path / "table")
    assert not (tmp_path / "table").exists()
    with pytest.raises(UserError, match="exists and is not empty"):
        evaluate([str(tiny_run)], [], second)
    (second / "result.json").unlink()
    with pytest.raises(UserError, match=r"not finished.*metalearn train tiny --resume"):
        evaluate([str(second)], [], tmp_path / "table")


def test_a_table_is_no_run_to_evaluate(tmp_path):
    (tmp_path / "config.json").write_text(Experiment().model_dump_json())
    (tmp_path / "result.json").write_text("{}")
    with pytest.raises(UserError, match="holds an evaluation, not a training"):
        evaluate([str(tmp_path)], [])
