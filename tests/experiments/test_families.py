"""Learners are judged on families that they were not trained on, side by side."""

import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

import experiments.evaluate
import experiments.run
from experiments.catalog import EXPERIMENTS, TEST_FAMILIES
from experiments.config import Experiment
from experiments.errors import UserError
from experiments.evaluate import evaluate
from experiments.families import judged_on, named_family
from experiments.folder import load_experiment
from experiments.results import fill, store
from experiments.run import run
from tasks.episode import TaskError
from tasks.sources.files import data_folder

THINGS = {
    "colours": ("red", "green", "blue", "yellow", "black"),
    "animals": ("cat", "dog", "fox"),
    "moods": ("good", "bad"),
}
SHOWN = ("family", "learner", "fold", "shots", "seed", "episode", "split", "step")


@pytest.fixture(scope="session")
def families(tmp_path_factory) -> list[str]:
    """JSON files of three families of five, three and two classes."""
    folder = tmp_path_factory.mktemp("families")
    found = []
    for name, words in THINGS.items():
        texts = [
            {"text": f"{word} {words[i % len(words)]} thing {i} of {name}", "label": word}
            for word in words
            for i in range(7)
        ]
        data = folder / f"{name}.jsonl"
        data.write_text("".join(json.dumps(text) + "\n" for text in texts))
        settings = {"source": "file", "name": name, "path": str(data), "test_only": True}
        path = folder / f"{name}.json"
        path.write_text(json.dumps(settings))
        found.append(str(path))
    return found


@pytest.fixture(scope="session")
def transfer(tiny_experiment, families, tmp_path_factory) -> Experiment:
    """The tiny experiment with three validation classes, and so three ways."""
    lines = Path(tiny_experiment.family.path).read_text().splitlines()
    words = sorted({json.loads(line)["label"] for line in lines})
    folds = tmp_path_factory.mktemp("folds") / "folds.json"
    parts = {"train": words[:4], "valid": words[4:7], "test": words[7:]}
    folds.write_text(json.dumps({"only": parts}))
    return tiny_experiment.override(
        {
            "name": "transfer",
            "family.folds": str(folds),
            "family.fold": "only",
            "learners": ("prototypes", "finetune", "maml"),
            "episodes.ways": 3,
            "episodes.shots": (1, 2),
            "episodes.train_shots": (1, 2),
            "evaluation.families": tuple(families),
            "evaluation.gradient_tasks": 2,
        }
    )


@pytest.fixture(scope="session")
def transferred(transfer, tmp_path_factory):
    return run(transfer, tmp_path_factory.mktemp("runs") / "transfer")


def scores(folder):
    return pq.read_table(folder / "scores.parquet").to_pylist()


def test_every_learner_is_judged_on_every_family(transferred):
    rows = scores(transferred)
    cells = {(row["family"], row["learner"], row["shots"]) for row in rows}
    wanted = {(f, n, k) for f in THINGS for n in ("prototypes", "finetune", "maml") for k in (1, 2)}
    assert cells == wanted
    # Learners that pass through the encoder at every step meet the first tasks only.
    met = {name: {r["episode"] for r in rows if r["learner"] == name} for _, name, _ in cells}
    assert met == {"prototypes": {0, 1, 2, 3}, "finetune": {0, 1}, "maml": {0, 1}}


def test_a_task_has_no_more_ways_than_the_family_classes(transferred):
    said = pq.read_table(transferred / "predictions.parquet").to_pylist()
    for family, ways in {"colours": 3, "animals": 3, "moods": 2}.items():
        here = [r for r in said if (r["family"], r["episode"], r["shots"]) == (family, 1, 1)]
        assert len({row["label"] for row in here}) == ways
        assert {row["label"] for row in here} <= set(THINGS[family])


def test_learners_are_compared_on_the_tasks_that_both_have_met(transferred):
    rows = [r for r in scores(transferred) if r["split"] == "query" and r["shots"] == 1]
    result = json.loads((transferred / "result.json").read_text())

    def accuracy(family, learner):
        here = [r for r in rows if (r["family"], r["learner"]) == (family, learner)]
        last = max(row["step"] for row in here)
        return [r["accuracy"] for r in here if r["step"] == last and r["episode"] < 2]

    over = [np.mean(accuracy(f, "maml")) - np.mean(accuracy(f, "prototypes")) for f in THINGS]
    (entry,) = (entry for entry in result["across"] if entry["shots"] == 1)
    assert entry["tasks"] == 2 and entry["families"] == list(THINGS)
    (maml,) = (row for row in entry["learners"] if row["learner"] == "maml")
    assert maml["difference"]["mean"] == pytest.approx(np.mean(over))
    for family, difference in zip(THINGS, over, strict=True):
        (one,) = (
            c["difference"]["mean"]
            for c in result["comparisons"]
            if (c["family"], c["learner"], c["shots"]) == (family, "maml", 1)
        )
        assert one == pytest.approx(difference)
    assert sum(row["rank"] for row in entry["learners"]) == pytest.approx(6)
    assert set(result["families"]) == set(THINGS)


def test_its_table_and_figures_are_kept(transferred, tmp_path):
    kept = tmp_path / "kept"
    store(transferred, kept)
    assert {p.name for p in kept.iterdir()} == {
        "transfer.json",
        "transfer.png",
        "transfer-differences.png",
    }
    text = fill("<!-- results: transfer -->\n<!-- end -->\n", kept)
    head = "| shots | learner | tasks | colours | animals | moods | mean | vs prototypes | rank |"
    assert head in text and "Friedman p" in text
    assert len([line for line in text.splitlines() if line.startswith("| 2 | ")]) == 3
    assert (transferred / "figures" / "critical-difference.png").stat().st_size > 0
    assert "<td>animals</td>" in (transferred / "report.html").read_text()


def test_what_is_scored_is_not_scored_again(transfer, transferred, tmp_path, monkeypatch):
    judged = []

    def dying(part, *words):
        if len(judged) == 4:
            raise KeyboardInterrupt
        judged.append(part)
        judge(part, *words)

    judge, folder = experiments.run.judge, tmp_path / "run"
    monkeypatch.setattr(experiments.run, "judge", dying)
    with pytest.raises(KeyboardInterrupt):
        run(transfer, folder)
    monkeypatch.undo()
    done = {path: os.stat(path).st_mtime_ns for path in (folder / "parts").glob("*.parquet")}
    assert len(done) == 4 * 2  # scores and predictions of two families and two numbers of shots
    run(transfer, folder, resume=True)
    assert {path: os.stat(path).st_mtime_ns for path in done} == done
    assert scores(folder) == scores(transferred)


def test_a_grid_goes_on_where_it_was(tiny_run, families, tmp_path, monkeypatch):
    options = ["--evaluation.families", *families[:2], "--evaluation.tasks", "2"]
    options += ["--episodes.shots", "1", "3"]
    targets = [str(tiny_run), "prototypes", "majority"]

    def dying(part, *words):
        if len(list((tmp_path / "table" / "parts").glob("*.scores.parquet"))) == 5:
            raise KeyboardInterrupt
        judge(part, *words)

    judge = experiments.evaluate.judge
    monkeypatch.setattr(experiments.evaluate, "judge", dying)
    with pytest.raises(KeyboardInterrupt):
        evaluate(targets, options, tmp_path / "table")
    monkeypatch.undo()
    done = {path: os.stat(path).st_mtime_ns for path in (tmp_path / "table" / "parts").iterdir()}
    with pytest.raises(UserError, match="another configuration"):
        evaluate(targets, [*options, "--evaluation.seed", "7"], tmp_path / "table", resume=True)
    folder = evaluate(targets, options, tmp_path / "table", resume=True)
    assert {path: os.stat(path).st_mtime_ns for path in done} == done
    with pytest.raises(UserError, match="--resume needs the run folder"):
        evaluate(targets, options, resume=True)
    rows = scores(folder)
    assert {row["family"] for row in rows} == {"colours", "animals"}
    assert {row["learner"] for row in rows} == {"maml", "protonet", "prototypes", "majority"}
    assert load_experiment(folder).evaluation.families == tuple(families[:2])
    table = pd.read_csv(folder / "table.csv")
    cells = set(zip(table["family"], table["learner"], table["shots"], strict=True))
    assert len(table) == len(cells) == 2 * 4 * 2
    assert table["ece"].between(0, 1).all() and (table["adapt_bytes"] >= 0).all()
    figures = {path.stem for path in (folder / "figures").iterdir()}
    kinds = ("curves", "scores", "costs", "shots", "ranks", "reliability", "confusion")
    assert figures == {
        *(f"{kind}-{family}" for kind in kinds for family in ("colours", "animals")),
        *("critical-difference", "differences"),
    }


def test_mistakes_are_named(transfer, families, tmp_path):
    def refused(message, *words, error: type[Exception] = UserError, **settings):
        changed = transfer.override({"evaluation.families": words, **settings})
        with pytest.raises(error, match=message):
            run(changed, tmp_path / "run")
        assert not (tmp_path / "run").exists()

    refused("no family trecc; did you mean trec", "trecc")
    refused("no file nothing.json", "nothing.json")
    refused("two are named moods", families[2], families[2])
    odd = tmp_path / "odd.json"
    odd.write_text('{"source": "file", "name": "a/b", "path": "x"}')
    refused("goes into file names", str(odd))
    odd.write_text('{"sauce": "file"}')
    refused("odd.json: sauce: Extra inputs", str(odd))
    few = {"episodes.queries": 30}
    refused("'colours', split 'test': class 'black' has 7", *families, error=TaskError, **few)
    with pytest.raises(UserError, match="all classes are of test_only, none of folds"):
        judged = {"family.test_only": True, "family.folds": "folds.json"}
        run(transfer.override(judged), tmp_path / "run")


def test_families_of_the_catalog_share_no_name_with_another_source():
    for name in TEST_FAMILIES:
        assert named_family(name).name == name
    wanted = EXPERIMENTS["clinc150-transfer"]
    assert wanted.family.name not in {s.family.name for s in judged_on(wanted)}


def test_the_six_families_can_be_drawn_from():
    from experiments.build import Workshop
    from experiments.checks import check_tasks

    if not (data_folder() / "trec").is_dir():
        pytest.skip(f"the data sets are not in {data_folder()}")
    ways = {"banking77": 5, "huffpost": 5, "trec": 5, "agnews": 4, "sst2": 2, "subj": 2}
    found = {}
    kept: dict = {}
    for settings in judged_on(EXPERIMENTS["clinc150-transfer"]):
        workshop = Workshop(settings, kept)
        check_tasks(workshop, ["test"], None)
        found[settings.family.name] = workshop.shape("test", 5).ways
        assert not workshop.family.classes("train")
    assert found == ways
