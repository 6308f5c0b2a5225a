"""The performance matrix: complete, resumed exactly, and read back."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from experiments.cli import main
from experiments.errors import UserError
from experiments.results import fill, store
from experiments.selection import matrix, sources
from experiments.selection.tables import CELLS, PREDICTIONS, TASKS, read_matrix
from tests.experiments.selection import mortal_matrix as made

ROOT = Path(__file__).parents[3]
pytestmark = pytest.mark.usefixtures("tiny")


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("place")


@pytest.fixture(scope="module")
def whole(place) -> Path:
    return matrix.compute(place / "whole", made.plan(place), made.UNTRAINED).parent


def columns(folder: Path, name: str) -> dict[str, list]:
    """A table without its seconds."""
    table = pq.read_table(folder / name).to_pydict()
    return {column: values for column, values in table.items() if "seconds" not in column}


def run(place: Path, until: str, workers: int) -> subprocess.CompletedProcess:
    command = [sys.executable, made.__file__, str(place), until, str(workers)]
    paths = {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, env=os.environ | paths, capture_output=True, check=False)


def test_a_killed_matrix_is_resumed_exactly(place, whole) -> None:
    """Killed before its third task, then gone on with in two processes: the tables are the same."""
    died = run(place, "2", workers=1)
    folder = place / "matrix"
    assert died.returncode == -signal.SIGKILL, died.stderr.decode()
    assert sorted(path.name for path in (folder / "cells").iterdir()) == [
        "task-0.json",
        "task-1.json",
    ]
    assert not (folder / CELLS).exists()

    resumed = run(place, "none", workers=2)
    assert resumed.returncode == 0, resumed.stderr.decode()
    for name in (CELLS, PREDICTIONS, TASKS):
        assert columns(folder, name) == columns(whole, name)


def test_a_finished_matrix_judges_nothing_again(place, whole, monkeypatch) -> None:
    monkeypatch.setattr(matrix, "_finish", None)
    matrix.compute(whole, made.plan(place), made.UNTRAINED)


def test_the_matrix_is_that_of_the_kept_predictions(whole) -> None:
    found = read_matrix(whole)
    kept = pq.read_table(whole / PREDICTIONS).to_pandas()

    assert found.learners == ("majority", "tfidf-bayes", "half-ridge", "prototypes", "lora")
    assert (found.passes[0] == [0, 0, 1.0, 2.0, 3.5]).all()  # (1 + 4 1) / 2 + 1
    for t, task in enumerate(found.tasks):
        for a, learner in enumerate(found.learners):
            for half in (0, 1):
                rows = kept[(kept["task"] == task) & (kept["part"] == half)]
                expected = (rows[learner] == rows["label"]).mean()
                assert found.accuracy[half, t, a] == pytest.approx(expected)
    problem = found.problem(0.01)
    assert problem.utilities.shape == (2, 4, 5)
    assert problem.sources == ("source 0", "source 1", "source 0", "source 1")
    # The classes have words of their own; a random encoder has none, and majority guesses.
    assert found.accuracy.mean(0)[3, 1] > 0.7 > found.accuracy.mean(0)[3, 0]


def test_all_learners_see_the_same_queries_in_disjoint_halves(whole) -> None:
    kept = pq.read_table(whole / PREDICTIONS).to_pandas()
    assert not kept.isna().any().any()
    for (_, _), rows in kept.groupby(["task", "set"]):
        assert not rows["example"].duplicated().any()
    halves = kept.groupby(["task", "example"])["part"].nunique()
    assert (halves == 1).all()  # also where a query comes in several sets
    assert set(kept["part"]) == {0, 1}


def test_the_tables_say_what_they_were_made_with(whole) -> None:
    metadata = pq.read_table(whole / CELLS).schema.metadata
    wanted = json.loads(metadata[b"wanted"])
    assert wanted["learners"]["half-ridge"]["axes"] == ["tiny-bert@1", "none", "ridge"]
    assert [task["name"] for task in wanted["tasks"]] == [f"task-{n}" for n in range(4)]
    assert {"python", "packages", "git", "platform"} <= json.loads(metadata[b"environment"]).keys()


def test_a_missing_cell_is_refused_or_marginalized(whole, tmp_path) -> None:
    folder = tmp_path / "holed"
    shutil.copytree(whole, folder)
    table = pq.read_table(folder / CELLS)
    rows = table.to_pandas()
    lost = (rows["task"] == "task-1") & (rows["learner"] == "prototypes")
    pq.write_table(table.filter(np.asarray(~lost)), folder / CELLS)
    found = read_matrix(folder)

    with pytest.raises(ValueError, match="no cell of learner prototypes on task task-1"):
        found.problem(0.01)
    filled = found.problem(0.01, missing="marginalize")
    assert np.isfinite(filled.utilities).all()
    assert filled.utilities[:, 1, 3].min() > 0


def test_what_a_learner_was_trained_on_is_no_source(place, tmp_path) -> None:
    """Before anything is trained or written."""
    planned = made.plan(place)
    planned[1] = planned[1].model_copy(update={"source": "clinc150"})
    with pytest.raises(UserError, match="learner protonet was meta-trained on clinc150"):
        matrix.compute(tmp_path / "matrix", planned, ("majority", "protonet"))
    assert not (tmp_path / "matrix").exists()


def test_mistakes_are_told_in_one_line(place, whole, tmp_path) -> None:
    planned = made.plan(place)
    with pytest.raises(UserError, match="no learner protonets in the portfolio; did you mean"):
        matrix.compute(tmp_path / "matrix", planned, ("protonets",))
    with pytest.raises(UserError, match="holds a matrix with other learners; choose another"):
        matrix.compute(whole, planned, ("majority",))
    with pytest.raises(UserError, match="two tasks are named task-0"):
        matrix.compute(tmp_path / "matrix", [*planned, planned[0]], ("majority",))
    with pytest.raises(UserError, match="holds no matrix; make it with metalearn select matrix"):
        read_matrix(tmp_path)


def test_the_command_makes_a_matrix_and_goes_on_with_its_own_plan(place, tmp_path, capsys) -> None:
    plan, folder = tmp_path / "plan.json", tmp_path / "matrix"
    plan.write_text(json.dumps([task.model_dump(mode="json") for task in made.plan(place, 2)]))
    words = ["select", "matrix", "--output", str(folder), "--learners", "majority", "tfidf-bayes"]
    assert main([*words, "--plan", str(plan)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[-1] == str(folder / CELLS) and said[0].startswith("1/2 task-0")
    (folder / "cells" / "task-1.json").unlink()
    plan.unlink()
    assert main(words) == 0
    assert capsys.readouterr().out.startswith("1/1 task-1")
    assert read_matrix(folder).tasks == ("task-0", "task-1")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["matrix"], "select matrix needs --output DIR"),
        (["matrix", "--output", "new", "--workers", "0"], "--workers 0: there must be at least"),
        (["matrix", "--output", "new", "--plan", "none.json"], "--plan none.json is no file"),
        (["matrix", "--output", "new", "--plan", "bad.json"], "bad.json: 0.name: field required"),
        (["matrix", "--output", "new", "--worker", "2"], "unrecognized arguments: --worker 2"),
        (["view"], "select view needs the folder of a matrix"),
        (["view", "new"], "holds no matrix; make it with metalearn select matrix --output new"),
        (["view", "new", "--weight", "-1"], "--weight -1.0: input should be greater than or equal"),
        (["view", "new", "--cost", "money"], "invalid choice: 'money'"),
    ],
)
def test_a_mistake_of_a_command_is_one_line(words, expected, tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("bad.json").write_text("[{}]")
    assert main(["select", *words]) == 2
    said = capsys.readouterr().err
    assert said.startswith("metalearn: ") and said.count("\n") == 1 and expected in said
    assert not Path("new").exists()


def test_the_view_names_the_bounds_and_draws_them(whole, capsys) -> None:
    assert main(["select", "view", str(whole), "--weight", "0", "0.05"]) == 0

    said = capsys.readouterr().out.splitlines()
    assert said[0] == "4 tasks of 2 sources"
    means = dict(
        zip(read_matrix(whole).learners, read_matrix(whole).accuracy.mean((0, 1)), strict=True)
    )
    rows = [line.split() for line in said[2:7]]
    assert {row[0] for row in rows} == set(means)
    assert [float(row[1]) for row in rows] == sorted((float(row[1]) for row in rows), reverse=True)
    for name, accuracy, *_ in rows:
        assert float(accuracy) == pytest.approx(100 * means[name], abs=0.051)
    assert sum(int(row[-1]) for row in rows) == 4
    problem = read_matrix(whole).problem(0.05)
    single = problem.learners[problem.single_best]
    assert f"lambda 0.05 a pass: SBS {single}" in said[8]
    assert f"VBS {100 * problem.virtual_best().mean():.1f}" in said[8]
    for name in ("accuracy.png", "gap.png"):
        assert (whole / "figures" / name).stat().st_size > 10_000


def test_what_the_view_cannot_say_is_one_line(whole, tmp_path, capsys) -> None:
    """A cell that was not measured is refused, or filled in."""
    folder = tmp_path / "holed"
    shutil.copytree(whole, folder)
    table = pq.read_table(folder / CELLS)
    rows = table.to_pandas()
    lost = (rows["task"] == "task-1") & (rows["learner"] == "prototypes")
    pq.write_table(table.filter(np.asarray(~lost)), folder / CELLS)
    assert main(["select", "view", str(folder)]) == 2
    said = capsys.readouterr().err
    assert "no cell of learner prototypes on task task-1" in said and said.count("\n") == 1
    assert main(["select", "view", str(folder), "--missing", "marginalize"]) == 0
    assert capsys.readouterr().out.startswith("4 tasks of 2 sources")


def test_a_kept_matrix_stands_in_the_readme(whole, tmp_path) -> None:
    assert store(whole, tmp_path) == tmp_path / "selection" / "whole.json"
    pictures = {path.name for path in (tmp_path / "selection").glob("*.png")}
    assert pictures == {"whole-accuracy.png", "whole-gap.png"}
    text = "before\n<!-- results: selection/whole -->\nstale\n<!-- end -->\nafter\n"
    filled = fill(text, tmp_path)
    assert "| learner | accuracy | passes | seconds | best on |" in filled and "stale" not in filled
    assert "4 tasks of 2 sources; lambda 0 a pass: SBS " in filled and "; revision " in filled


def test_support_sets_are_drawn_as_planned(place) -> None:
    balanced, unbalanced = made.plan(place)[1], made.plan(place)[3]
    for planned in (balanced, unbalanced):
        for index in range(planned.sets):
            task = sources.draw(planned, index)
            assert task == sources.draw(planned, index)
            assert not {e.text for e in task.support} & {e.text for e in task.query}
            assert len(task.query) == planned.queries * len(planned.classes)
            counts = [sum(e.label == name for e in task.support) for name in task.label_names]
            assert all(1 <= count <= planned.shots for count in counts)
            if planned.balanced:
                assert set(counts) == {planned.shots}
    texts = [tuple(e.text for e in sources.draw(balanced, i).support) for i in range(3)]
    assert len(set(texts)) == 3
    sizes = {len(sources.draw(unbalanced, i).support) for i in range(3)}
    assert min(sizes) < unbalanced.shots * len(unbalanced.classes)
