"""The regret of linear bandits, on a small budget and as it is kept."""

from __future__ import annotations

import numpy as np
import pytest

from experiments.files import read_json
from experiments.selection.regret import KEPT, POLICIES, bound, main, measure, regret

JUDGED = ("LinUCB", "linear Thompson")


@pytest.mark.parametrize("name", JUDGED)
def test_the_mean_regret_stays_under_the_bound_and_its_rate_falls(name: str) -> None:
    runs = np.stack([regret(POLICIES[name](), 1500, seed) for seed in range(4)])
    mean, rounds = runs.mean(0), np.arange(1, 1501)
    assert (mean[1:] < bound(rounds[1:])).all()
    rate = (mean / rounds)[[9, 49, 249, 1499]]
    assert (np.diff(rate) < 0).all() and rate[-1] < rate[0] / 10
    assert mean[0] > 0.3  # nothing is known at first


def test_the_kept_record_is_of_the_whole_budget_and_under_the_bound() -> None:
    record = read_json(KEPT / "regret.json")
    assert (record["rounds"], record["seeds"]) == (10_000, 20)
    for name in JUDGED:
        found = record["policies"][name]
        assert found["largest_share_of_bound"] < 1
        rate = np.array(found["mean"]) / record["shown"]
        assert rate[-1] < rate[len(rate) // 2] < rate[0]


def test_the_command_writes_record_and_figure(tmp_path, capsys) -> None:
    measured = measure(20, 2)
    assert set(measured["policies"]) == set(POLICIES)
    arguments = ["--rounds", "20", "--seeds", "2", "--output", str(tmp_path)]
    assert main(arguments) == 0
    assert read_json(tmp_path / "regret.json") == measured
    assert (tmp_path / "regret.png").stat().st_size > 10_000
    assert capsys.readouterr().out.count("of the bound") == len(POLICIES)


@pytest.mark.parametrize(
    ("words", "expected"),
    [(["--rounds", "1"], "at least 2"), (["--output", "nowhere"], "nowhere is no folder")],
)
def test_a_mistake_is_one_line(words: list[str], expected: str, capsys) -> None:
    assert main(words) == 2
    assert expected in capsys.readouterr().err
