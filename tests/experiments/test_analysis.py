"""Tables and figures of a finished run: what they hold, by hand."""

import io
import json
import math

import numpy as np
import pandas as pd
import pytest
from matplotlib.image import imread

from experiments.analysis.__main__ import main
from experiments.analysis.calibration import (
    calibration_error,
    reliability_figure,
    reliability_table,
)
from experiments.analysis.comparisons import pairwise, task_ranks
from experiments.analysis.confusion import confusion_figure, confusion_table
from experiments.analysis.curves import cost_figure, shots_figure
from experiments.analysis.predictions import final_predictions, final_scores
from experiments.analysis.ranks import critical_difference
from experiments.analysis.tables import result_table
from experiments.errors import UserError
from metalearn.calibration import reliability
from metalearn.ranking import rank_learners
from metalearn.statistics import paired


@pytest.fixture(scope="module")
def predictions() -> pd.DataFrame:
    """Two tasks of a learner: classes a, b in the first, a, c in the second."""
    rows = [
        (0, "a", "a", 0.9),
        (0, "a", "b", 0.6),
        (0, "b", "b", 0.7),
        (0, "b", "b", 0.8),
        (1, "a", "a", 0.9),
        (1, "a", "a", 1.0),
        (1, "c", "a", 0.55),
        (1, "c", "c", 0.95),
    ]
    names = ["episode", "label", "prediction", "probability"]
    frame = pd.DataFrame(rows, columns=pd.Index(names))
    place = {"family": "f", "learner": "maml", "shots": 1, "fold": "", "seed": 0, "example": 0}
    return frame.assign(**place)


def scores(**learners: list[float]) -> pd.DataFrame:
    rows = [
        {
            "learner": name,
            "episode": episode,
            "accuracy": value,
            "loss": 1 - value,
            "macro_f1": value,
        }
        for name, values in learners.items()
        for episode, value in enumerate(values)
    ]
    return pd.DataFrame(rows).assign(family="f", shots=1, fold="", seed=0)


def drawn(figure) -> np.ndarray:
    """What a figure shows, as pixels."""
    content = io.BytesIO()
    figure.savefig(content, format="png")
    content.seek(0)
    return imread(content)


def test_confusion_counts_only_tasks_that_offer_both(predictions):
    table = confusion_table(predictions)
    # a meets b in the first task alone, c in the second alone, and itself in both.
    assert _pairs(table) == {
        ("a", "a"): (3, 4),
        ("a", "b"): (1, 2),
        ("b", "b"): (2, 2),
        ("c", "a"): (1, 2),
        ("c", "c"): (1, 2),
    }
    assert table["share"].tolist() == (table["count"] / table["offered"]).tolist()
    assert table["count"].sum() == len(predictions)


def _pairs(table: pd.DataFrame) -> dict:
    keys = zip(table["label"], table["prediction"], strict=True)
    return dict(zip(keys, zip(table["count"], table["offered"], strict=True), strict=True))


def test_calibration_pools_the_examples_of_all_tasks(predictions):
    correct = (predictions["label"] == predictions["prediction"]).to_numpy()
    wanted = reliability(predictions["probability"].to_numpy(), correct, 5)
    (row,) = calibration_error(predictions, bins=5).to_dict("records")
    assert row == {"family": "f", "learner": "maml", "shots": 1, "ece": pytest.approx(wanted.ece)}
    bins = reliability_table(predictions, bins=5)
    assert bins["count"].tolist() == [2, 2, 4]  # (.4, .6], (.6, .8], (.8, 1]
    assert bins["accuracy"].tolist() == [0.0, 1.0, 1.0]
    gap = (bins["count"] * (bins["accuracy"] - bins["confidence"]).abs()).sum() / 8
    assert gap == pytest.approx(wanted.ece)


def test_learners_are_paired_on_the_tasks_that_all_have_met():
    frame = scores(one=[1.0, 0.5, 0.5, 0.0, 0.0, 0.0], two=[0.5, 0.5, 1.0, 0.0], three=[0.0] * 4)
    table = pairwise(frame, resamples=100)
    assert list(zip(table["learner"], table["other"], strict=True)) == [
        ("one", "two"),
        ("one", "three"),
        ("two", "three"),
    ]
    first = table.iloc[0]
    wanted = paired(
        [np.array([1.0, 0.5, 0.5, 0.0])], [np.array([0.5, 0.5, 1.0, 0.0])], resamples=100
    )
    assert (first["difference"], first["low"], first["high"]) == (
        wanted.mean,
        wanted.low,
        wanted.high,
    )
    assert (first["better"], first["equal"], first["worse"], first["tasks"]) == (0.25, 0.5, 0.25, 4)
    (entry,) = task_ranks(frame)
    ranking = rank_learners([[1.0, 0.5, 0.0], [0.5, 0.5, 0.0], [0.5, 1.0, 0.0], [0.0, 0.0, 0.0]])
    assert [row["rank"] for row in entry["learners"]] == ranking.ranks.tolist()
    assert (entry["blocks"], entry["critical_difference"]) == (4, ranking.critical)


def test_where_tasks_hold_numbers_less_is_better():
    frame = scores(one=[0.0, 0.1], two=[0.5, 0.6]).assign(accuracy=math.nan)
    table = pairwise(frame, resamples=10)
    assert table["metric"].tolist() == ["loss"] and table["worse"].tolist() == [1.0]
    (entry,) = task_ranks(frame)
    assert {row["learner"]: row["rank"] for row in entry["learners"]} == {"one": 2.0, "two": 1.0}


def test_one_training_serves_all_seeds_of_the_other():
    two = pd.concat([scores(maml=[1.0, 0.0]), scores(maml=[0.0, 0.0]).assign(seed=1)])
    table = pairwise(pd.concat([two, scores(prototypes=[0.5, 0.5])]), resamples=10)
    assert table["difference"].tolist() == [-0.25]


def test_the_table_of_a_run_is_its_result(tiny_run):
    result = json.loads((tiny_run / "result.json").read_text())
    table = pd.read_csv(tiny_run / "table.csv")
    pd.testing.assert_frame_equal(
        table, pd.read_parquet(tiny_run / "table.parquet"), check_dtype=False
    )
    assert table["learner"].tolist() == [row["learner"] for row in result["rows"]]
    for row, (_, line) in zip(result["rows"], table.iterrows(), strict=True):
        assert line["family"] == "texts"
        assert line["accuracy"] == pytest.approx(row["accuracy"]["mean"])
        assert line["loss_high"] == pytest.approx(row["loss"]["high"])
        for cost in ("passes", "adapt_flops", "adapt_bytes", "train_seconds"):
            assert line[cost] == pytest.approx(row[cost])
    said = final_predictions(tiny_run)
    here = said[said["learner"] == "maml"]
    correct = (here["label"].astype(str) == here["prediction"].astype(str)).to_numpy()
    wanted = reliability(here["probability"].to_numpy(), correct).ece
    (maml,) = table[table["learner"] == "maml"]["ece"]
    assert maml == pytest.approx(wanted) and correct.mean() == pytest.approx(
        table[table["learner"] == "maml"]["accuracy"].iloc[0]
    )


def test_a_step_more_costs_more(tiny_run):
    costs = pd.read_csv(tiny_run / "table.csv").set_index("learner")["adapt_flops"]
    # Prototypes are kept; fine-tuning passes through the encoder at each of its two steps.
    assert costs["prototypes"] < costs["finetune"]
    assert costs["finetune"] == pytest.approx(costs["maml"], rel=0.5)


def test_the_command_draws_what_can_be_seen(tiny_run, tmp_path, capsys, monkeypatch):
    run = tmp_path / "run"
    run.mkdir()
    for path in (*tiny_run.glob("*.parquet"), *tiny_run.glob("*.json")):
        (run / path.name).write_bytes(path.read_bytes())
    monkeypatch.setattr("sys.argv", ["analysis", str(run)])
    assert main() == 0
    names = {path.name for path in (run / "figures").iterdir()}
    assert names == {"costs.png", "ranks.png", "reliability.png", "confusion.png"}
    for path in (run / "figures").iterdir():
        assert imread(path).std() > 0.02, path  # not an empty page
    said = capsys.readouterr().out
    assert "table.csv" in said and "pairs.parquet" in said and "confusion.csv" in said
    monkeypatch.setattr("sys.argv", ["analysis", str(tmp_path)])
    assert main() == 2
    assert capsys.readouterr().err.startswith(f"analysis: {tmp_path} has no result.json; finish")


def test_figures_of_many_learners_and_shots(made_up):
    result = made_up.result(shots=(1, 5))
    rows = [{"family": "f"} | row for row in result["rows"]]
    result = result | {"rows": rows}
    one, two = drawn(shots_figure(result, "a title")), drawn(cost_figure(result, "a title"))
    assert one.std() > 0.02 and two.std() > 0.02
    assert result_table(result)["ece"].isna().all()


def test_a_critical_difference_figure_joins_what_is_alike():
    entry = rank_learners(np.random.default_rng(0).normal(size=(5, 4))).entry(list("abcd"))
    whole = critical_difference([entry | {"shots": 1}], "t")
    without = critical_difference([entry | {"shots": 1, "groups": []}], "t")
    assert entry["groups"] and len(whole.axes[0].collections) > len(without.axes[0].collections)
    assert {"a", "b", "c", "d"} <= {
        word for text in whole.axes[0].texts for word in text.get_text().split()
    }


def test_what_is_not_there_is_named(tmp_path, predictions):
    with pytest.raises(UserError, match=r"has no scores\.parquet; finish the run"):
        final_scores(tmp_path)
    with pytest.raises(UserError, match="no predictions of mamml, 1-shot, on f"):
        confusion_figure(confusion_table(predictions), "t", "mamml", 1)
    assert drawn(reliability_figure(predictions, "t")).std() > 0.02
    assert drawn(confusion_figure(confusion_table(predictions), "t", "maml", 1)).std() > 0.02
