"""The README's tables are made from the results that are kept."""

import json

import pytest

from experiments.catalog import EXPERIMENTS, LEARNERS
from experiments.errors import UserError
from experiments.results import KEPT, README, fill, store, table


def test_readme_tables_are_generated():
    text = README.read_text(encoding="utf-8")
    assert fill(text) == text, "run: python -m experiments.results tables"


@pytest.mark.parametrize("path", sorted(KEPT.glob("*.json")), ids=lambda path: path.stem)
def test_a_kept_result_can_be_made_again(path):
    result = json.loads(path.read_text(encoding="utf-8"))
    experiment = EXPERIMENTS[result["experiment"]]
    stored = experiment.model_validate(result["settings"])
    assert stored.override({"threads": experiment.threads}) == experiment
    assert {row["learner"] for row in result["rows"]} == set(experiment.learners)
    assert result["environment"]["git"]["revision"]


def test_catalog_and_builders_agree():
    from experiments.learners import LEARNERS as builders

    assert list(LEARNERS) == list(builders)


def test_grids_of_compared_learners_have_the_same_size():
    for experiment in EXPERIMENTS.values():
        sizes = set()
        for grid in experiment.grids.values():
            size = 1
            for values in grid.values():
                size *= len(values)
            sizes.add(size)
        assert len(sizes) <= 1, experiment.name


def test_store_refuses_an_unfinished_run(tmp_path):
    with pytest.raises(UserError, match="no result"):
        store(tmp_path)


def test_a_missing_result_is_named(tmp_path):
    with pytest.raises(UserError, match="nothing-such"):
        fill("<!-- results: nothing-such -->\n<!-- end -->", tmp_path)


def test_store_and_fill(tmp_path):
    result = {
        "experiment": "mine",
        "description": "nothing",
        "rows": [],
        "curves": [],
        "environment": {"git": {"revision": "a" * 40}, "device": "cpu", "threads": 2},
    }
    run = tmp_path / "run"
    run.mkdir()
    (run / "result.json").write_text(json.dumps(result))
    store(run, tmp_path / "kept")
    filled = fill("<!-- results: mine -->\nold\n<!-- end -->\n", tmp_path / "kept")
    assert table(result) in filled
    assert "old" not in filled
    assert fill(filled, tmp_path / "kept") == filled
