"""`metalearn select fit` and `recommend`, and `adapt` with a member of the portfolio."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from experiments.adaptation import adapt
from experiments.adapted import batch_of
from experiments.cli import main
from experiments.metrics import read_metrics
from experiments.prediction import opened
from experiments.selection import portfolio
from experiments.selection.fitting import Watched, read
from experiments.selection.recommending import recommendation
from experiments.wandb_offline import logged_steps
from metalearn.selection.portfolio import Member
from metalearn.selection.trial import validate
from tasks.episode import Task
from tasks.sources.files import read_examples

TEXTS = {"refund": "money back please", "parcel": "the box never came", "login": "i forgot it"}


def write(path: Path, texts: dict[str, str], times: int = 4) -> Path:
    rows = [
        {"text": f"{text} {word}", "label": label}
        for label, text in texts.items()
        for word in ("now", "again", "today", "soon")[:times]
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def support(tmp_path_factory) -> Path:
    return write(tmp_path_factory.mktemp("support") / "my.jsonl", TEXTS)


@pytest.fixture(scope="module")
def policy(matrix, tmp_path_factory) -> Path:
    """A fitted policy that tests only read."""
    folder = tmp_path_factory.mktemp("policies") / "nearest"
    words = ["select", "fit", str(matrix), "--policy", "nearest-tasks", "--output", str(folder)]
    assert main([*words, "--tracking", "disabled"]) == 0
    return folder


@pytest.fixture
def refused(capfd):
    """Runs a command and returns its one line."""

    def refuse(*words: object) -> str:
        assert main([str(word) for word in words]) == 2
        line = capfd.readouterr().err
        assert line.startswith("metalearn: ") and line.count("\n") == 1, line
        return line

    return refuse


def test_a_policy_is_kept_without_pickle(policy):
    names = {path.name for path in policy.iterdir() if path.is_file() and path.name[0] != "."}
    assert names == {
        "config.json",
        "environment.json",
        "metrics.jsonl",
        "problem.parquet",
        "result.json",
    }
    (record,) = read_metrics(policy / "metrics.jsonl")
    assert record["learner"] == "nearest-tasks" and 0.5 < record["training_utility"] < 0.9


def test_what_is_read_chooses_as_what_was_fitted(policy, matrix):
    from experiments.selection.tables import read_matrix
    from metalearn.selection.nearest_tasks import NearestTasks

    fitted, problem = read(policy), read_matrix(matrix).problem(0.002)
    np.testing.assert_array_equal(fitted.problem.utilities, problem.utilities)
    assert fitted.problem.feature_names == problem.feature_names
    np.testing.assert_array_equal(fitted.problem.tries, problem.tries)
    assert fitted.problem.price == 0.002
    direct = NearestTasks()
    direct.fit(problem, seed=0)
    random = np.random.default_rng(1)
    asked = problem.features[random.permutation(len(problem.tasks))] + 0.01
    able = np.ones((len(asked), len(problem.learners)), bool)
    expected = direct.choose_all(asked, able)
    np.testing.assert_array_equal(fitted.policy.choose_all(asked, able), expected)
    assert len(set(expected.tolist())) > 1


def test_the_answer_says_what_why_and_how(policy, support, tmp_path, capsys):
    kept = tmp_path / "answer.json"
    words = ["select", "recommend", str(policy), "--support", str(support), "--output", str(kept)]
    assert main(words) == 0
    said, answer = capsys.readouterr().out, json.loads(kept.read_text())
    assert answer["learner"] in made_able() and answer["learner"] in said
    assert answer["runner_up"]["learner"] != answer["learner"]
    for part in (answer, answer["runner_up"]):
        value = part["expected"]
        assert value["low"] < value["mean"] < value["high"] and -0.2 < value["mean"] < 1.2
    assert answer["deciding"][0]["feature"] == "words.new_terms"
    assert all(row["changes"] > 0 for row in answer["deciding"])
    assert set(answer["features"]) == {
        "shape.ways",
        "shape.shots",
        "words.tokens",
        "words.new_terms",
    }
    assert (answer["features"]["shape.ways"], answer["features"]["shape.shots"]) == (3, 4)
    assert answer["command"] in said
    assert main([*answer["command"].split()[1:-1], str(tmp_path / "mine")]) == 0
    assert opened(tmp_path / "mine").labels == ("login", "parcel", "refund")


def made_able() -> tuple[str, ...]:
    return ("majority", "tfidf-bayes", "half-ridge", "prototypes", "lora")


@pytest.mark.parametrize("name", ["majority", "tfidf-bayes", "half-ridge", "prototypes", "lora"])
def test_every_member_is_adapted_and_predicts_as_it_did(policy, support, tmp_path, name):
    folder = adapt(policy, support, tmp_path / name, learner=name)
    built = portfolio.build((name,), policy, {})[name]
    found = opened(folder)
    examples, new = (
        read_examples(support),
        [(number, text) for number, text in enumerate(["money soon", "box box today", "forgot"])],
    )
    asked = [type(examples[0])(100 + number, text, label="login") for number, text in new]
    base = portfolio.Workshop(portfolio.TRAINED)
    support_batch = batch_of(base.collator, examples, found.labels)
    adapted = built.learner.adapt(built.state, support_batch)[-1]
    expected = built.learner.predict(adapted, batch_of(base.collator, asked, found.labels))[0]
    torch.testing.assert_close(found.logits(asked), expected, rtol=1e-4, atol=1e-4)
    record = json.loads((folder / "metalearn.json").read_text())
    assert record["learner"] == name
    assert (folder / "adapter_config.json").exists() == (name == "lora")


def test_without_a_name_the_policy_chooses(policy, support, tmp_path):
    folder = adapt(policy, support, tmp_path / "mine")
    record = json.loads((folder / "metalearn.json").read_text())
    assert record["learner"] == recommendation(policy, support)["learner"]


def test_what_a_policy_tries_is_tried_on_the_examples(matrix, support, tmp_path, capsys):
    folder, kept = tmp_path / "careful", tmp_path / "answer.json"
    words = ["select", "fit", str(matrix), "--policy", "cross-validation", "--output", str(folder)]
    assert main([*words, "--tracking", "disabled"]) == 0
    words = ["select", "recommend", str(folder), "--support", str(support), "--output", str(kept)]
    assert main(words) == 0
    said, answer = capsys.readouterr().out, json.loads(kept.read_text())
    tried = answer["tried"]
    assert list(tried) == list(made_able())
    assert tried[answer["learner"]] == max(tried.values())
    assert answer["runner_up"]["learner"] != answer["learner"]
    assert answer["spent"] == pytest.approx(6.5) and answer["deciding"] is None
    assert "tries on the examples for 6.50 passes, cross-validated accuracy of 100: maj" in said
    # The score is that of the member on these examples.
    base = portfolio.Workshop(portfolio.TRAINED)
    task = Task("x", "class", tuple(read_examples(support)), (), tuple(sorted(TEXTS)), (0, 1, 2))
    for name in ("tfidf-bayes", "prototypes"):
        member = portfolio.build((name,), folder, {})[name]
        alone = validate(member, task, lambda part: base.collator.collate([part], [0]), 3)
        assert tried[name] == alone


def test_the_ensemble_tries_what_is_cheap(matrix, support, tmp_path):
    folder = tmp_path / "tried"
    words = ["select", "fit", str(matrix), "--policy", "tried-ensemble", "--output", str(folder)]
    assert main([*words, "--tracking", "disabled"]) == 0
    answer = recommendation(folder, support)
    # 0, 0 and 0.5 passes: with the next one they would take more than 0.002.
    assert list(answer["tried"]) == ["majority", "tfidf-bayes", "half-ridge"]
    assert answer["spent"] == pytest.approx(0.5) and answer["looks"] == "tries"
    assert answer["learner"] in made_able()


def test_an_unknown_learner_is_named(policy, support, tmp_path, refused):
    words = ["--support", support, "--output", tmp_path / "out", "--learner", "tfidf-bays"]
    line = refused("adapt", policy, *words)
    assert "no learner tfidf-bays" in line and "did you mean tfidf-bayes?" in line


def test_a_policy_of_another_portfolio_is_refused(policy, support, tmp_path, refused, monkeypatch):
    entries = dict(portfolio.ENTRIES)
    changed = portfolio.Entry("finetune", "tiny-bert", entries["lora"].adapter, {"inner.steps": 9})
    monkeypatch.setitem(portfolio.ENTRIES, "lora", changed)
    line = refused("select", "recommend", policy, "--support", support)
    assert "was fitted on another portfolio: lora is not what it knew; fit it again" in line
    monkeypatch.delitem(portfolio.ENTRIES, "lora")
    assert "fitted on another portfolio" in refused(
        "adapt", policy, "--support", support, "--output", tmp_path / "out"
    )


def test_a_matrix_of_another_portfolio_is_refused(matrix, tmp_path, refused, monkeypatch):
    changed = portfolio.Entry("prototypes", "tiny-bert@1")
    monkeypatch.setitem(portfolio.ENTRIES, "prototypes", changed)
    line = refused("select", "fit", matrix, "--policy", "random", "--output", tmp_path / "out")
    assert "learner prototypes of" in line and "compute the matrix again" in line


def test_more_classes_than_any_learner_handles_are_refused(policy, support, refused, monkeypatch):
    monkeypatch.setattr(Member, "most_ways", 2)
    line = refused("select", "recommend", policy, "--support", support)
    assert "has 3 classes, and no learner of the portfolio handles more than 2" in line


def test_a_damaged_policy_is_refused(policy, support, tmp_path, refused):
    words = ["select", "recommend", tmp_path / "copy", "--support", support]
    shutil.copytree(policy, tmp_path / "copy")
    whole = (policy / "problem.parquet").read_bytes()
    (tmp_path / "copy" / "problem.parquet").write_bytes(whole[:200])
    assert "is damaged (" in refused(*words)
    (tmp_path / "copy" / "problem.parquet").unlink()
    assert "holds no policy; make one with metalearn select fit" in refused(*words)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("select fit MATRIX --policy forest --output out", "no policy forest; did you mean"),
        ("select fit MATRIX --policy virtual-best --output out", "virtual-best knows the outcomes"),
        ("select fit MATRIX --policy random", "needs MATRIX --policy NAME --output DIR"),
        ("select fit MATRIX --policy random --output out --weight nan", "--weight nan: input"),
        ("select recommend POLICY", "select recommend needs DIR --support FILE"),
        ("select recommend POLICY --support ONE", "has a single class, refund"),
        ("select recommend POLICY --support ONE --output no/x", "is no file in an existing folder"),
        ("select recommend . --support ONE", "holds no policy; make one with"),
    ],
)
def test_a_mistake_is_one_line(words, expected, policy, matrix, tmp_path, refused, monkeypatch):
    monkeypatch.chdir(tmp_path)
    one = write(tmp_path / "one.jsonl", {"refund": "money"})
    places = {"MATRIX": matrix, "POLICY": policy, "ONE": one}
    assert expected in refused(*(places.get(word, word) for word in words.split()))
    assert not (tmp_path / "out").exists()


def test_a_training_is_tracked_like_any_run(matrix, tmp_path):
    folder = tmp_path / "tracked"
    words = ["select", "fit", str(matrix), "--policy", "single-best", "--output", str(folder)]
    assert main([*words, "--tracking", "offline"]) == 0
    run_id = json.loads((folder / "wandb.json").read_text())["wandb_id"]
    assert len(read_metrics(folder / "metrics.jsonl")) == 1
    # The record, and what is told at the end.
    assert logged_steps(folder, run_id) == {0, 1}


def test_records_of_a_training_grow_thin():
    class Kept:
        def __init__(self) -> None:
            self.records: list[dict] = []

        def record(self, values: dict) -> None:
            self.records.append(values)

    kept = Kept()
    watched = Watched("ppo", kept)
    for update in range(1, 5001):
        watched({"update": update, "outcome": float(update)})
    assert kept.records[0] == {"learner": "ppo", "step": 1, "outcome": 1.0}
    assert 100 < len(kept.records) < 400
    steps = [record["step"] for record in kept.records]
    assert steps == sorted(set(steps))
    # Every figure is in one mean.
    last, before = kept.records[-1], kept.records[-2]
    assert last["outcome"] == pytest.approx((before["step"] + 1 + last["step"]) / 2)
