"""`metalearn select evaluate MATRIX`: the table, going on after a kill, and one line a mistake."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from experiments.cli import main
from experiments.metrics import read_metrics
from experiments.results import fill, store
from experiments.selection.figures import gaps, regret
from experiments.selection.summary import markdown

QUICK = ["--folds", "4", "--repetitions", "2", "--tracking", "disabled"]
POLICIES = ["random", "nearest-tasks", "ucb1", "cross-validation"]


@pytest.fixture(scope="module")
def run(matrix, tmp_path_factory) -> Path:
    """A judged matrix that tests only read."""
    folder = tmp_path_factory.mktemp("runs") / "judged"
    words = ["select", "evaluate", str(matrix), "--run-dir", str(folder), *QUICK]
    assert main([*words, "--policy", *POLICIES, "--weight", "0", "0.05"]) == 0
    return folder


@pytest.fixture(scope="module")
def result(run) -> dict:
    return json.loads((run / "result.json").read_text())


@pytest.fixture
def refused(capfd):
    """Runs a command and returns its one line."""

    def refuse(*words: object) -> str:
        assert main([str(word) for word in words]) == 2
        line = capfd.readouterr().err
        assert line.startswith("metalearn: ") and line.count("\n") == 1, line
        return line

    return refuse


def test_every_policy_has_a_row_at_every_lambda(result):
    rows = {(row["weight"], row["policy"]): row for row in result["rows"]}
    names = ["single-best", "virtual-best", *POLICIES]
    assert set(rows) == {(weight, name) for weight in (0.0, 0.05) for name in names}
    for weight in (0.0, 0.05):
        assert rows[weight, "single-best"]["gap"]["mean"] == 0
        assert rows[weight, "virtual-best"]["gap"]["mean"] == 1
        assert rows[weight, "virtual-best"]["regret"]["mean"] == 0
        assert rows[weight, "nearest-tasks"]["gap"]["low"] > 0
        assert rows[weight, "random"]["gap"]["high"] < 0
    assert rows[0.0, "ucb1"]["online"] and not rows[0.0, "nearest-tasks"]["online"]


def test_the_numbers_of_a_row_agree(result):
    for row in result["rows"]:
        assert sum(row["chosen"].values()) == pytest.approx(1)
        cost = row["weight"] * row["cost"]["mean"]
        assert row["accuracy"] == pytest.approx(row["utility"]["mean"] + cost)
        for name in ("utility", "regret", "gap", "cost"):
            value = row[name]
            assert value["low"] <= value["mean"] + 1e-12 and value["mean"] <= value["high"] + 1e-12
        curve = row["curve"]
        assert curve["tasks"][-1] == result["tasks"]
        end = row["regret"]["mean"] * result["tasks"]
        assert curve["mean"][-1] == pytest.approx(end, abs=1e-3)
        lines = zip(curve["low"], curve["mean"], curve["high"], strict=True)
        assert all(low <= mean <= high for low, mean, high in lines)


def test_tries_are_kept_and_paid_for(run, result):
    kept = json.loads((run / "judged" / "cross-validation-0.05.json").read_text())
    assert all(place > 0 for task in kept["tried"][0] for place in task)
    assert {round(cost, 9) for cost in kept["spent"][1]} == {6.5}  # passes of all five
    assert "tried" not in json.loads((run / "judged" / "random-0.05.json").read_text())
    rows = {(row["weight"], row["policy"]): row for row in result["rows"]}
    free, paid = rows[0.0, "cross-validation"], rows[0.05, "cross-validation"]
    assert free["chosen"] == paid["chosen"]  # scores are the same, and decide
    assert free["gap"]["mean"] > 0.8 and paid["gap"]["mean"] < 0
    # What was chosen, and 6.5 passes of tries.
    assert paid["cost"]["low"] > 6.5


def test_what_a_cost_takes_away_changes_the_choices(result):
    dear = {row["weight"]: row["cost"]["mean"] for row in result["rows"] if row["policy"][0] == "n"}
    assert dear[0.05] < dear[0.0]


def test_the_folder_is_a_run_folder(run, result):
    table = pd.read_csv(run / "table.csv")
    assert list(table["policy"]) == [row["policy"] for row in result["rows"]]
    assert pd.read_parquet(run / "table.parquet")["gap_low"].notna().all()
    records = read_metrics(run / "metrics.jsonl")
    assert len(records) == len(result["rows"]) - 2  # the virtual best is judged nowhere
    assert json.loads((run / "config.json").read_text())["weights"] == [0.0, 0.05]
    assert (run / "environment.json").exists()
    assert {path.name for path in (run / "figures").iterdir()} == {
        "regret.png",
        "gaps.png",
        "choices.png",
    }


def test_a_killed_run_goes_on_with_what_is_left(run, matrix, result, tmp_path):
    folder = tmp_path / "killed"
    shutil.copytree(run, folder)
    (folder / "result.json").unlink()
    (folder / "judged" / "ucb1-0.05.json").unlink()
    kept = folder / "judged" / "random-0.json"
    before = kept.stat().st_mtime_ns
    words = ["select", "evaluate", str(matrix), "--run-dir", str(folder), *QUICK, "--resume"]
    assert main([*words, "--policy", *POLICIES, "--weight", "0", "0.05"]) == 0
    assert kept.stat().st_mtime_ns == before
    again = json.loads((folder / "result.json").read_text())
    for old, new in zip(result["rows"], again["rows"], strict=True):
        assert {**old, "seconds": 0} == {**new, "seconds": 0}
    assert len(read_metrics(folder / "metrics.jsonl")) == len(again["rows"]) - 2


def test_other_settings_are_not_gone_on_with(run, matrix, refused):
    words = ["select", "evaluate", matrix, "--run-dir", run, *QUICK]
    assert "has other settings (policies, weights)" in refused(*words, "--resume")
    assert "exists and is not empty" in refused(*words)


def test_the_table_in_markdown_says_what_it_stands_on(result):
    text = markdown(result)
    assert text.splitlines()[0].startswith("| lambda | policy | utility | regret | closed gap |")
    assert "| 0.05 | ucb1* |" in text and "40 tasks of 8 sources, 5 learners" in text
    assert "2 cross-validations by source in 4 folds" in text


def test_a_kept_table_stands_in_the_readme(run, result, tmp_path):
    assert store(run, tmp_path) == tmp_path / "selection" / "judged.json"
    pictures = {path.name for path in (tmp_path / "selection").glob("*.png")}
    assert pictures == {"judged-regret.png", "judged-gaps.png", "judged-choices.png"}
    text = "before\n<!-- results: selection/judged -->\nstale\n<!-- end -->\nafter\n"
    filled = fill(text, tmp_path)
    assert markdown(result) in filled and "stale" not in filled and filled.endswith("after\n")


def test_where_there_is_no_gap_the_figures_say_so(result):
    rows = [{**row, "gap": None} for row in result["rows"]]
    axes = gaps({**result, "rows": rows}).axes
    assert all(panel.texts[0].get_text() == "no gap to close" for panel in axes)
    assert len(regret(result).axes[0].lines) >= 5


def test_a_cell_that_was_not_measured_is_refused_or_marginalized(make_matrix, tmp_path, refused):
    def lose(found: list[dict]) -> None:
        lost = found[3]["learners"]["prototypes"]
        lost["predictions"] = [[None] * 68 for _ in lost["predictions"]]
        lost["try"] = None

    matrix = make_matrix(lose)
    # A learner that was not measured has no row at all: drop it from the table of cells.
    cells = pd.read_parquet(matrix / "matrix.parquet")
    meta = cells[(cells["task"] != "task3") | (cells["learner"] != "prototypes")]
    meta.to_parquet(matrix / "matrix.parquet")
    words = ["select", "evaluate", matrix, "--policy", "single-best", *QUICK]
    line = refused(*words, "--run-dir", tmp_path / "none")
    assert "no cell of learner prototypes on task task3" in line and "marginalize" in line
    assert not (tmp_path / "none").exists()
    kept = [*map(str, words), "--run-dir", str(tmp_path / "run"), "--missing", "marginalize"]
    assert main(kept) == 0
    said = json.loads((tmp_path / "run" / "result.json").read_text())
    assert "marginalized" in markdown(said)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--policy", "nearest-task"], "no policy nearest-task; did you mean nearest-tasks?"),
        (["--weight", "-1"], "--weight -1.0: input should be greater than or equal to 0"),
        (["--folds", "9"], "9 folds of 8 sources; give 2 to 8 folds"),
        (["--repetitions", "0"], "--repetitions 0: input should be greater"),
        (["--workers", "0"], "--workers 0: there must be at least one"),
        (["--seed", "-1"], "--seed -1 is negative"),
        (["--output", "x.json"], "go with --aslib; a matrix has a --run-dir"),
        (["--cost", "money"], "invalid choice: 'money'"),
    ],
)
def test_a_mistake_is_one_line_with_the_remedy(words, expected, matrix, tmp_path, refused):
    given = [*QUICK, *words, "--run-dir", tmp_path / "run"]
    assert expected in refused("select", "evaluate", matrix, *given)
    assert not (tmp_path / "run").exists()


def test_a_matrix_that_is_none_or_damaged_is_refused(make_matrix, tmp_path, refused):
    line = refused("select", "evaluate", tmp_path / "none", *QUICK)
    assert "holds no matrix; make it with" in line
    matrix = make_matrix()
    whole = (matrix / "matrix.parquet").read_bytes()
    (matrix / "matrix.parquet").write_bytes(whole[: len(whole) // 2])
    line = refused("select", "evaluate", matrix, *QUICK)
    assert "is damaged (" in line and "make it with" in line
    pd.DataFrame({"task": ["a"]}).to_parquet(matrix / "matrix.parquet")
    assert "is damaged (" in refused("select", "evaluate", matrix, *QUICK)


def test_a_feature_that_is_not_finite_is_named(make_matrix, refused):
    def break_one(found: list[dict]) -> None:
        found[5]["features"]["words.tokens"] = float("nan")

    line = refused("select", "evaluate", make_matrix(break_one), *QUICK)
    assert "feature words.tokens of task task5 is not finite" in line
