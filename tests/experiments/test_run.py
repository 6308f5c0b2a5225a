"""Whole runs on tiny settings: what they leave, how they choose, and how they refuse."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from experiments import checkpoint
from experiments.build import Workshop
from experiments.config import Experiment
from experiments.files import read_json
from experiments.folder import load_experiment
from experiments.metrics import read_metrics
from experiments.run import run
from experiments.wandb_offline import (
    read_artifacts,
    read_config,
    read_history,
    read_tables,
    run_directories,
)
from metalearn.statistics import paired

TINY = {
    "outer.steps": 4,
    "outer.tasks": 2,
    "outer.warmup": 1,
    "outer.validate_every": 2,
    "outer.validation_tasks": 4,
    "outer.checkpoint_every": 1,
    "inner.steps": 2,
    "evaluation.tasks": 3,
    "evaluation.tasks_per_batch": 2,
    "evaluation.resamples": 50,
    "episodes.queries": 2,
    "threads": 1,
}
TEXT = Experiment(name="text", description="tiny").override(
    TINY
    | {
        "learners": ("prototypes", "finetune", "maml"),
        "seeds": (0, 1),
        "inner.rate": 0.01,
        "grids": {"maml": {"inner.rate": (0.005, 0.02)}},
        "backbone.name": "tiny-bert",
        "adapter.options": {"r": 2},
        "episodes.ways": 3,
        "episodes.shots": (1, 2),
        "outer.steps": 2,
    }
)
SINUSOID = Experiment(name="waves").override(
    TINY
    | {
        "learners": ("finetune", "maml"),
        "family.source": "sinusoid",
        "backbone.name": "mlp",
        "inner.rate": 0.001,
        "tracking.mode": "disabled",
    }
)
STEPS = {"prototypes": 1, "finetune": 3, "maml": 3}
SEEDS = {"prototypes": 1, "finetune": 2, "maml": 2}


@pytest.fixture(scope="module", autouse=True)
def threads():
    """Runs set the threads of this process."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    return run(TEXT, tmp_path_factory.mktemp("runs") / "text")


@pytest.fixture(scope="module")
def result(finished) -> dict:
    return read_json(finished / "result.json")


@pytest.fixture(scope="module")
def scores(finished) -> list[dict]:
    return pq.read_table(finished / "scores.parquet").to_pylist()


@pytest.fixture(scope="module")
def predictions(finished) -> list[dict]:
    return pq.read_table(finished / "predictions.parquet").to_pylist()


def test_a_run_folder_holds_everything(finished):
    names = {path.name for path in finished.iterdir() if not path.name.startswith(".")}
    assert names == {
        *("config.json", "environment.json", "choices.json", "result.json", "metrics.jsonl"),
        *("predictions.parquet", "scores.parquet", "curves.parquet", "report.html"),
        *("checkpoints", "figures", "parts", "wandb", "wandb.json"),
        *(
            f"{table}.{kind}"
            for table in ("table", "pairs", "confusion")
            for kind in ("csv", "parquet")
        ),
    }
    assert {path.name for path in (finished / "figures").iterdir()} == {
        "curves.png",
        "scores.png",
        "training.png",
    }
    assert load_experiment(finished) == TEXT


def test_there_is_one_record_a_meta_step_in_order(finished):
    records = read_metrics(finished / "metrics.jsonl")
    # First both trials of either number of shots, then the other seed with what was chosen.
    chosen = {c["shots"]: c["trial"] for c in read_json(finished / "result.json")["choices"][4:]}
    cells = [(k, 0, trial) for k in (1, 2) for trial in (0, 1)]
    cells += [(k, 1, chosen[k]) for k in (1, 2)]
    expected = [("maml", *cell, step) for cell in cells for step in (1, 2)]
    fields = ("learner", "shots", "seed", "trial", "step")
    assert [tuple(record[name] for name in fields) for record in records] == expected
    assert all(np.isfinite(record["loss"]) and record["seconds"] > 0 for record in records)


def test_there_is_one_score_a_task_step_and_split(scores):
    count = Counter((row["learner"], row["shots"]) for row in scores)
    tasks, splits = 3, 2
    assert count == {
        (name, shots): SEEDS[name] * tasks * splits * STEPS[name]
        for name in STEPS
        for shots in (1, 2)
    }


def test_every_prediction_is_kept(predictions):
    count = Counter((row["learner"], row["shots"], row["split"]) for row in predictions)
    tasks, ways, queries = 3, 3, 2
    for name in STEPS:
        for shots in (1, 2):
            judged = SEEDS[name] * tasks * STEPS[name] * ways
            assert count[name, shots, "support"] == judged * shots
            assert count[name, shots, "query"] == judged * queries


def test_predictions_reproduce_the_accuracies_of_the_result(predictions, result):
    right: dict[tuple, list[bool]] = {}
    for row in predictions:
        key = (row["learner"], row["shots"], row["split"], row["step"])
        right.setdefault(key, []).append(row["label"] == row["prediction"])
    for curve in result["curves"]:
        if curve["metric"] == "accuracy":
            key = (curve["learner"], curve["shots"], curve["split"], curve["step"])
            assert curve["mean"] == pytest.approx(np.mean(right[key]), abs=1e-12)
            assert curve["low"] <= curve["mean"] <= curve["high"]
    for row in result["rows"]:
        key = (row["learner"], row["shots"], "query", STEPS[row["learner"]] - 1)
        assert row["accuracy"]["mean"] == pytest.approx(np.mean(right[key]), abs=1e-12)


def test_curves_are_records(finished, result):
    assert pq.read_table(finished / "curves.parquet").to_pylist() == result["curves"]
    assert len(result["curves"]) == sum(STEPS.values()) * 2 * 2 * 3  # shots, splits, metrics


def test_every_learner_meets_the_same_examples(predictions):
    met: dict[tuple, set] = {}
    for row in predictions:
        key = (row["shots"], row["learner"], row["seed"], row["step"])
        item = (row["split"], row["episode"], row["example"], row["label"])
        met.setdefault(key, set()).add(item)
    for shots in (1, 2):
        same = [items for key, items in met.items() if key[0] == shots]
        assert len(same) == 1 + 6 + 6 and all(items == same[0] for items in same)


def test_the_best_trial_on_validation_classes_is_chosen(finished, result):
    best = {
        (record["shots"], record["trial"]): record["best"]
        for record in read_metrics(finished / "metrics.jsonl")
        if record["seed"] == 0 and "best" in record
    }
    choices = [choice for choice in result["choices"] if choice["learner"] == "maml"]
    assert [choice["shots"] for choice in choices] == [1, 2]
    for choice in choices:
        tried = [best[choice["shots"], trial] for trial in (0, 1)]
        assert [trial["validation_accuracy"] for trial in choice["trials"]] == tried
        assert choice["trial"] == int(np.argmax(tried))
        assert choice["validation_accuracy"] == max(tried)
        assert choice["settings"] == {"inner.rate": (0.005, 0.02)[choice["trial"]]}


def test_comparisons_are_paired_by_seed_and_episode(scores, result):
    final: dict[tuple, dict[int, float]] = {}
    for row in scores:
        if row["split"] == "query" and row["step"] == STEPS[row["learner"]] - 1:
            key = (row["learner"], row["shots"], row["seed"])
            final.setdefault(key, {})[row["episode"]] = row["accuracy"]

    def side(learner: str, shots: int) -> list[np.ndarray]:
        seeds = (0, 1) if SEEDS[learner] == 2 else (0, 0)  # one seed serves both of the other
        groups = (final[learner, shots, seed] for seed in seeds)
        # seeds of one fold are judged on the same episodes, and resampled with them
        return [np.array([[group[i] for i in sorted(group)] for group in groups])]

    assert len(result["comparisons"]) == 4
    for found in result["comparisons"]:
        assert found["reference"] == "prototypes"
        sides = side(found["learner"], found["shots"]), side("prototypes", found["shots"])
        assert found["difference"] == paired(*sides, resamples=50).as_dict()


def test_the_offline_wandb_run_holds_all_that_was_found(finished, result):
    (directory,) = run_directories(finished, read_json(finished / "wandb.json")["wandb_id"])
    assert read_config(directory) == TEXT.model_dump(mode="json")
    records = read_metrics(finished / "metrics.jsonl")
    history = read_history(directory)
    assert [row["_step"] for row in history] == list(range(len(records) + 1))
    for row, record in zip(history, records, strict=False):
        losses = [value for name, value in row.items() if name.endswith("/loss")]
        assert losses == [record["loss"]]
    assert read_tables(directory)["curves"] == result["curves"]
    report = directory / "files" / history[-1]["report"]["path"]
    assert report.read_bytes() == (finished / "report.html").read_bytes()
    for row in result["rows"]:
        name = f"test/{row['learner']}/{row['shots']}-shot/loss"
        assert history[-1][name] == row["loss"]["mean"]
    (artifact,) = read_artifacts(directory)
    assert artifact.metadata["validation"] == max(r.get("validation", 0) for r in records)
    assert {finished / name for name in artifact.files} == set(artifact.files.values())
    found = checkpoint.load(finished / "checkpoints" / artifact.metadata["training"])
    assert found and found[1]["best_step"] == artifact.metadata["step"]


def test_a_finished_run_is_only_shown_again(finished, capsys):
    before = written(finished)
    assert run(TEXT, finished, resume=True) == finished
    assert written(finished) == before
    said = capsys.readouterr().out
    assert all(name in said for name in TEXT.learners) and "curves.png" in said


def written(folder: Path) -> dict[Path, int]:
    """When each file was written, but for those that note who opened the folder."""
    files = (path for path in folder.rglob("*") if path.is_file())
    mine = (path for path in files if path.name not in (".lock", "environment.json"))
    return {path: path.stat().st_mtime_ns for path in mine}


def test_a_run_killed_before_its_report_gets_it(finished, capsys):
    (finished / "report.html").unlink()
    run(TEXT, finished, resume=True)
    assert "</html>" in (finished / "report.html").read_text()


def test_test_tasks_are_refused_until_every_choice_is_frozen(tmp_path, monkeypatch):
    with pytest.raises(RuntimeError, match="only after every choice is frozen"):
        Workshop(SINUSOID).stream("test", 1, 0)
    asked = []
    stream, training_stream = Workshop.stream, Workshop.training_stream

    def note(split):
        file = tmp_path / "run" / "choices.json"
        asked.append((split, len(read_json(file)) if file.exists() else 0))

    def spy(workshop, split, shots, seed):
        note(split)
        return stream(workshop, split, shots, seed)

    def training_spy(workshop, shots, seed):
        note("train")
        return training_stream(workshop, shots, seed)

    monkeypatch.setattr(Workshop, "stream", spy)
    monkeypatch.setattr(Workshop, "training_stream", training_spy)
    run(SINUSOID.override({"seeds": (0, 1)}), tmp_path / "run")
    assert {split for split, _ in asked} == {"train", "valid", "test"}
    first = [split for split, _ in asked].index("test")
    assert {split for split, _ in asked[first:]} == {"test"}
    assert {choices for _, choices in asked[first:]} == {2}


def test_values_have_scores_and_no_predictions(tmp_path):
    folder = run(SINUSOID, tmp_path / "run")
    rows = pq.read_table(folder / "scores.parquet").to_pylist()
    assert len(rows) == 2 * 3 * 2 * 3  # learners, tasks, splits, steps
    assert all(np.isnan(row["accuracy"]) and row["loss"] > 0 for row in rows)
    assert not (folder / "predictions.parquet").exists()
    (comparison,) = read_json(folder / "result.json")["comparisons"]
    final = {
        name: np.mean([r["loss"] for r in rows if place(r) == (name, "query", 2)])
        for name in ("finetune", "maml")
    }
    difference = final["maml"] - final["finetune"]
    assert comparison["metric"] == "loss"
    assert comparison["difference"]["mean"] == pytest.approx(difference)


def place(row: dict) -> tuple:
    return row["learner"], row["split"], row["step"]


def test_folds_and_seeds_are_groups(tmp_path):
    classes = [f"class {i}" for i in range(9)]
    rows = [{"text": f"{c} {word}", "label": c} for c in classes for word in "abcd"]
    (tmp_path / "data.jsonl").write_text("\n".join(map(json.dumps, rows)))
    parts = [classes[:3], classes[3:6], classes[6:]]
    folds = {
        "group": {
            str(i): dict(zip(("train", "valid", "test"), parts[i:] + parts[:i], strict=True))
            for i in range(2)
        }
    }
    (tmp_path / "folds.json").write_text(json.dumps(folds))
    experiment = TEXT.override(
        {
            "learners": ("prototypes", "protonet"),
            "grids": {},
            "family": {
                "source": "file",
                "name": "mine",
                "path": str(tmp_path / "data.jsonl"),
                "folds": str(tmp_path / "folds.json"),
            },
            "folds": ("group/0", "group/1"),
            "episodes.shots": (1,),
            "tracking.mode": "disabled",
        }
    )
    folder = run(experiment, tmp_path / "run")
    table = pq.read_table(folder / "scores.parquet")
    found = Counter(zip(*(table[n].to_pylist() for n in ("learner", "fold", "seed")), strict=True))
    names = {(learner, fold) for learner, fold, _ in found}
    assert len(names) == 4 and len(found) == 2 + 4 and set(found.values()) == {6}
    rows = {row["learner"]: row for row in read_json(folder / "result.json")["rows"]}
    assert [(rows[n]["folds"], rows[n]["seeds"]) for n in rows] == [(2, 1), (2, 2)]
    said = pq.read_table(folder / "predictions.parquet").to_pylist()
    for fold in folds["group"]:
        labels = {row["label"] for row in said if row["fold"] == f"group/{fold}"}
        assert labels == set(folds["group"][fold]["test"])
