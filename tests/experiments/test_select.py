"""`metalearn select`: policies judged on a scenario, and one line for every mistake."""

import json
from pathlib import Path

import numpy as np
import pytest

from experiments.cli import main
from experiments.selection.command import QUICK
from experiments.selection.policies import POLICIES, policy
from metalearn.selection.aslib_export import write_scenario
from metalearn.selection.problem import Problem


@pytest.fixture
def scenario(tmp_path: Path) -> Path:
    """Two learners of which the sign of a feature says the better one; there are no folds."""
    random = np.random.default_rng(0)
    features = random.uniform(-1, 1, (40, 2))
    utilities = np.stack([features[:, 0] > 0, features[:, 0] <= 0.1], 1)[None].astype(float)
    names = tuple(f"task {row}" for row in range(40))
    problem = Problem(
        names, names, ("up", "down"), ("x", "y"), features, utilities, np.ones((40, 2))
    )
    write_scenario(problem, tmp_path / "MADE", "MADE")
    return tmp_path / "MADE"


def test_every_policy_is_judged(scenario, capsys, tmp_path):
    kept = tmp_path / "rows.json"
    words = ["select", "evaluate", "--aslib", str(scenario), "--folds", "4", "--output", str(kept)]
    # Training by reinforcement takes long, and tests/metalearn/selection does it.
    names = [
        name
        for name, row in POLICIES.items()
        if row.group != "reinforced" and row.looks == "features"
    ]
    assert main([*words, "--policy", *names]) == 0
    said = capsys.readouterr().out
    assert "MADE: 40 instances, 2 algorithms, utility; SBS 0." in said and ", VBS 1.000" in said
    rows = {row["policy"]: row for row in json.loads(kept.read_text())["rows"]}
    assert list(rows) == names
    for name, row in rows.items():
        line = next(line for line in said.splitlines() if line.startswith(f"{name} "))
        interval, bounds = row["gap"], (row["single"], row["virtual"])
        assert f"{row['value']:.3f}" in line and f"{interval['mean']:.3f} [" in line
        gap = (row["value"] - bounds[0]) / (bounds[1] - bounds[0])
        assert interval["mean"] == pytest.approx(gap)
        assert interval["low"] <= interval["mean"] <= interval["high"]
        assert sum(row["chosen"].values()) == pytest.approx(1)
    assert rows["single-best"]["gap"]["mean"] <= 0
    assert rows["regret-ensemble"]["gap"]["mean"] > 0.5


def test_quick_ones_are_judged_where_none_is_named(scenario, capsys):
    assert main(["select", "evaluate", "--aslib", str(scenario), "--folds", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[3:] if line.strip()] == list(QUICK)


def test_several_scenarios_have_a_mean(scenario, capsys):
    chosen = ["--policy", "random", "single-best", "--aslib", str(scenario), str(scenario)]
    assert main(["select", "evaluate", *chosen]) == 0
    said = capsys.readouterr().out
    assert said.count("MADE: 40 instances") == 2
    assert "mean closed gap over 2 scenarios\n  random       -" in said


def test_names_lead_to_policies():
    assert all(type(policy(name)).__name__ == row.kind for name, row in POLICIES.items())


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("select", "select needs a subcommand; see metalearn select --help"),
        ("select evaluat", "no subcommand evaluat of select; did you mean evaluate?"),
        ("select evaluate", "select evaluate needs --aslib FOLDER"),
        ("select evaluate --aslib nowhere", "nowhere is no folder of an ASlib scenario"),
        ("select evaluate --aslib .", "description.txt is missing; a scenario needs it"),
        ("select evaluate --aslib MADE --policy forest", "no policy forest"),
        ("select evaluate --aslib MADE --policy reader", "reader looks at examples, of which a"),
        ("select evaluate --aslib MADE --measure speed", "no measure speed, only utility, cost"),
        ("select evaluate --aslib MADE --folds 41", "MADE: 41 folds of 40 sources; give 2 to 40"),
        ("select evaluate --aslib MADE --seed -1", "--seed -1 is negative"),
        ("select evaluate --aslib MADE --output no/x.json", "is no file in an existing folder"),
        ("select evaluate --aslib MADE --policies random", "unrecognized arguments: --policies"),
        ("select evaluate --aslib MADE --measure cost", "MADE: the virtual best is 0 above"),
    ],
)
def test_a_mistake_is_one_line_with_the_remedy(words, expected, scenario, capsys, monkeypatch):
    monkeypatch.chdir(scenario.parent)
    assert main(words.split()) == 2
    said = capsys.readouterr().err
    assert said.startswith("metalearn: ") and said.count("\n") == 1 and expected in said


def test_help_says_what_there_is(capsys):
    assert main(["select", "--help"]) == 0
    said = capsys.readouterr().out
    assert all(name in said for name in POLICIES) and "--aslib" in said
