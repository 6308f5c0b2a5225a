"""Comparing two runs: the numbers are those of the tasks, and what is not comparable is refused."""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.stats import ttest_rel

from experiments.cli import main
from experiments.compare import compare
from experiments.errors import UserError
from experiments.files import read_json, write_json
from experiments.judged import JudgedRun


def copy(run: Path, to: Path, **settings) -> Path:
    """A copy of a run folder with other settings in its configuration."""
    shutil.copytree(run, to)
    config = read_json(to / "config.json")
    for name, value in settings.items():
        part, _, last = name.partition("__")
        (config[part] if last else config)[last or part] = value
    write_json(to / "config.json", config)
    return to


def rescore(run: Path, change) -> Path:
    """Give every row of the scores of a run to `change`, which may alter it."""
    rows = pq.read_table(run / "scores.parquet").to_pylist()
    for row in rows:
        change(row)
    pq.write_table(pa.Table.from_pylist(rows), run / "scores.parquet")
    return run


def made_run(folder: Path, scores: dict[int, np.ndarray], metric: str = "accuracy") -> Path:
    """A run folder of one learner with these scores `[E]` of each seed, on tasks without texts."""
    folder.mkdir()
    write_json(folder / "config.json", {"name": "made", "family": {"name": "sinusoid"}})
    write_json(folder / "environment.json", {"python": "3.11", "git": {"revision": folder.name}})
    rows = [
        {"learner": "maml", "fold": "", "shots": 5, "seed": seed, "episode": e, "split": "query"}
        | {"step": step, metric: float(score) if step else 0.0}
        for seed, group in scores.items()
        for e, score in enumerate(group)
        for step in (1, 0)
    ]
    pq.write_table(pa.Table.from_pylist(rows), folder / "scores.parquet")
    row = {"learner": "maml", "shots": 5, metric: {}, "train_seconds": 9.0}
    write_json(folder / "result.json", {"rows": [row]})
    return folder


def compared(first: Path, second: Path, **options):
    return compare(JudgedRun(first), JudgedRun(second), **options)


def test_a_run_and_its_copy_are_the_same(tiny_run, tmp_path):
    found = compared(tiny_run, copy(tiny_run, tmp_path / "copy"))
    assert [row.learners for row in found.rows] == [
        (name, name) for name in ("prototypes", "finetune", "maml", "protonet")
    ]
    for row in found.rows:
        assert row.verdict == "no difference: the same on every task"
        assert (row.p, row.p_holm, row.tasks, row.shared) == (1.0, 1.0, (4, 4), "seeds")
    assert (found.settings, found.versions) == ({}, {})


def test_the_means_are_those_of_the_table_of_the_run(tiny_run):
    run = JudgedRun(tiny_run)
    for row in compare(run, run).rows:
        expected = run.row(row.learners[0], row.shots)["accuracy"]["mean"]
        assert row.means == pytest.approx((expected, expected))


def test_a_gain_on_every_task_is_real_and_the_others_are_not(tiny_run, tmp_path, capsys):
    def gain(row):
        if row["learner"] == "maml":
            row["accuracy"] += 0.2

    better = rescore(copy(tiny_run, tmp_path / "better", inner__rate=0.5), gain)
    output = tmp_path / "found.json"
    assert main(["compare", str(tiny_run), str(better), "--output", str(output)]) == 0
    text = capsys.readouterr().out
    assert "maml, 1-shot: real: the second is better." in text
    assert "+20.0 [+20.0, +20.0]" in text
    assert "protonet, 1-shot: no difference: the same on every task." in text
    assert "Paired over 4 test tasks that both have." in text
    assert "One training seed each" in text and "Fewer than 20 tasks" in text
    assert "Settings that differ: inner.rate 0.02 | 0.5." in text
    assert "Versions and machine that differ: none." in text
    assert [row["p"] for row in read_json(output)["rows"]] == [
        1.0,
        1.0,
        pytest.approx(2 / 2001),
        1.0,
    ]
    found = compared(better, tiny_run)
    assert {r.learners[0]: r.verdict for r in found.rows}["maml"] == "real: the first is better"


def test_p_and_interval_are_those_of_the_paired_t_test(tmp_path):
    random = np.random.default_rng(5)
    base = random.normal(0.7, 0.2, 300)
    better = base + random.normal(0.005, 0.05, 300)
    first, second = made_run(tmp_path / "a", {0: base}), made_run(tmp_path / "b", {0: better})
    (row,) = compared(first, second, resamples=8000).rows
    expected = ttest_rel(better, base)
    assert row.means == pytest.approx((base.mean(), better.mean()))
    assert not any("too sure" in note for note in compared(first, second).notes)
    assert row.p == pytest.approx(expected.pvalue, abs=0.02)
    interval = expected.confidence_interval()
    assert row.difference["low"] == pytest.approx(interval.low, abs=6e-4)
    assert row.difference["high"] == pytest.approx(interval.high, abs=6e-4)


def test_what_cannot_be_seen_is_said_with_what_would_fit(tmp_path):
    random = np.random.default_rng(0)
    sides = random.normal(0.7, 0.2, (2, 100))
    first, second = made_run(tmp_path / "a", {0: sides[0]}), made_run(tmp_path / "b", {0: sides[1]})
    (row,) = compared(first, second).rows
    low, high = (f"{100 * row.difference[name]:+.1f}" for name in ("low", "high"))
    expected = f"no difference can be seen: anything from {low} to {high} points fits"
    assert row.verdict == expected and row.p > 0.05


def test_the_smaller_loss_is_the_better_one(tmp_path):
    first = made_run(tmp_path / "a", {0: np.full(9, 0.5)}, "loss")
    second = made_run(tmp_path / "b", {0: np.full(9, 0.4)}, "loss")
    (row,) = compared(first, second).rows
    assert (row.metric, row.verdict) == ("loss", "real: the second is better")


def test_seeds_that_both_have_are_paired_and_others_drawn_apart(tmp_path):
    random = np.random.default_rng(0)
    hard = random.normal(0.7, 0.1, 50)
    one = made_run(tmp_path / "a", {0: hard, 1: hard + 0.3})
    same = made_run(tmp_path / "b", {0: hard + 0.05, 1: hard + 0.35})
    other = made_run(tmp_path / "c", {2: hard + 0.05, 3: hard + 0.35})
    paired, apart = compared(one, same), compared(one, other)
    assert paired.rows[0].shared == "seeds" and paired.rows[0].verdict.startswith("real")
    assert apart.rows[0].shared == "tasks" and apart.rows[0].verdict.startswith("no difference")
    assert not any("One training seed" in note for note in paired.notes)
    assert any("drawn apart" in note for note in apart.notes)
    single = made_run(tmp_path / "d", {0: hard})
    assert any("One side has one training seed" in note for note in compared(one, single).notes)


def test_runs_on_different_tasks_are_refused_in_one_line(tiny_run, tmp_path, capsys):
    def moved(name: str, **settings) -> str:
        run = copy(tiny_run, tmp_path / name, **settings)
        rows = pq.read_table(run / "predictions.parquet").to_pylist()
        for row in rows:
            row["example"] += 1
        pq.write_table(pa.Table.from_pylist(rows), run / "predictions.parquet")
        return str(run)

    for run, reason in (
        (moved("seed", evaluation__seed=7), "evaluation.seed differ"),
        (moved("data"), "their data differ"),
    ):
        assert main(["compare", str(tiny_run), run]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert f"judged on different tasks ({reason})" in line and "metalearn evaluate" in line
        assert main(["compare", str(tiny_run), run, "--unpaired"]) == 0
        assert "Not paired: 4 and 4 test tasks drawn apart" in capsys.readouterr().out


def test_the_same_records_under_another_path_are_the_same_tasks(tiny_run, tmp_path):
    found = compared(tiny_run, copy(tiny_run, tmp_path / "moved", family__path="elsewhere.jsonl"))
    assert list(found.settings) == ["family.path"] and found.rows


def test_tasks_without_records_are_known_by_their_settings(tmp_path):
    runs = [made_run(tmp_path / name, {0: np.ones(3)}) for name in "ab"]
    assert compared(*runs).rows
    config = {"name": "made", "family": {"name": "sinusoid", "phase": [0, 1]}}
    write_json(runs[1] / "config.json", config)
    with pytest.raises(UserError, match=r"different tasks \(family.phase differ\)"):
        compared(*runs)


def test_tasks_that_one_run_lacks_are_left_out(tmp_path):
    first = made_run(tmp_path / "a", {0: np.arange(10) / 10})
    second = made_run(tmp_path / "b", {0: np.arange(6) / 10})
    found = compared(first, second)
    assert found.rows[0].tasks == (6, 6) and found.rows[0].difference["mean"] == 0
    assert found.notes[0] == "Paired over 6 test tasks that both have."


def test_episodes_of_several_families_are_groups_of_their_own(tmp_path):
    def judged(name: str, gains: dict[str, float]) -> Path:
        run = made_run(tmp_path / name, {0: np.zeros(5)})
        rows = pq.read_table(run / "scores.parquet").to_pylist()
        both = [
            row | {"family": family, "accuracy": row["episode"] / 10 + gain}
            for family, gain in gains.items()
            for row in rows
        ]
        pq.write_table(pa.Table.from_pylist(both), run / "scores.parquet")
        return run

    first, second = judged("a", {"x": 0.0, "y": 0.5}), judged("b", {"x": 0.2, "y": 0.4})
    (row,) = compared(first, second).rows
    assert row.tasks == (10, 10)
    assert row.difference == pytest.approx({"mean": 0.05, "low": -0.1, "high": 0.2})
    one = [judged(name, {"x": gain}) for name, gain in (("c", 0.0), ("d", 0.2))]
    assert list(JudgedRun(one[0]).scores("maml", 5, "accuracy")) == [("", 0)]
    assert compared(*one).rows[0].difference["mean"] == pytest.approx(0.2)


def test_learners_are_paired_by_name(tiny_run, tmp_path):
    (row,) = compared(tiny_run, tiny_run, learners=("prototypes", "maml")).rows
    assert row.learners == ("prototypes", "maml") and row.trained
    with pytest.raises(UserError, match="no learner boil; it has prototypes"):
        compared(tiny_run, tiny_run, learners=("maml", "boil"))
    other = copy(tiny_run, tmp_path / "other")
    result = read_json(other / "result.json")
    for entry in result["rows"]:
        entry["learner"] = f"new-{entry['learner']}"
    write_json(other / "result.json", result)
    with pytest.raises(UserError, match="no learner is in both runs"):
        compared(tiny_run, other)


@pytest.mark.parametrize(
    ("missing", "message"),
    [("config.json", "is no run folder"), ("result.json", "is not finished")],
)
def test_what_is_no_finished_run_is_refused(tiny_run, tmp_path, missing, message, capsys):
    run = copy(tiny_run, tmp_path / "run")
    (run / missing).unlink()
    assert main(["compare", str(tiny_run), str(run)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_the_comparison_is_the_same_in_json(tiny_run, tmp_path, capsys):
    path = tmp_path / "found.json"
    assert main(["compare", str(tiny_run), str(tiny_run), "--output", str(path)]) == 0
    content = json.loads(path.read_text())
    assert content["runs"] == [str(tiny_run), str(tiny_run)]
    assert len(content["rows"]) == 4 and str(path) in capsys.readouterr().out
