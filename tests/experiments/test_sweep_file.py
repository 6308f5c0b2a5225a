"""Sweep files: what they say, what is refused, and which trials they make."""

import json
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from experiments.catalog import EXPERIMENTS
from experiments.cli import main
from experiments.config import Experiment
from experiments.errors import UserError
from experiments.standing import Standing
from experiments.sweeps.board import Board
from experiments.sweeps.cluster import Share, share
from experiments.sweeps.file import Halving, read
from experiments.sweeps.ledger import Ledger, Trial
from experiments.sweeps.space import Choice, Range, parse, settings
from experiments.sweeps.summary import ranked

SMALL = "--outer.steps 4 --outer.tasks 2 --outer.validation-tasks 2 --evaluation.tasks 2"
COMMAND = [
    *("metalearn", "train", "sinusoid-maml", *SMALL.split(), "--learners", "finetune", "maml"),
    *("--config", "${args_json_file}"),
]
FILE = {
    "name": "rates",
    "program": "metalearn",
    "description": "the two rates",
    "method": "bayes",
    "metric": {"name": "validation", "goal": "maximize"},
    "run_cap": 12,
    "command": COMMAND,
    "early_terminate": {"type": "hyperband", "min_iter": 2, "eta": 3},
    "parameters": {
        "inner.rate": {"distribution": "log_uniform_values", "min": 0.001, "max": 0.1},
        "inner": {"parameters": {"steps": {"values": [1, 3]}, "head-rate": {"value": 0.1}}},
        "outer.tasks": {"min": 2, "max": 4},
    },
}


def changed(path: str, value: object) -> dict:
    """The file with one entry replaced, or removed where the value is None."""
    content = json.loads(json.dumps(FILE))
    *parents, last = path.split("/")
    place = content
    for part in parents:
        place = place[part]
    if value is None:
        del place[last]
    else:
        place[last] = value
    return content


def test_a_file_is_read():
    sweep = read(FILE, "stem")
    assert (sweep.name, sweep.method, sweep.metric, sweep.cap) == (
        "rates",
        "bayes",
        "validation",
        12,
    )
    assert sweep.halving == Halving(2, 3.0, 10**6)
    assert sweep.trials() == 12
    assert sweep.experiment == "sinusoid-maml"
    assert sweep.options == tuple(COMMAND[3:-2])
    assert sweep.parameters == (
        Range("inner.rate", "log_uniform_values", (0.001, 0.1)),
        Choice("inner.steps", (1, 3)),
        Choice("inner.head_rate", (0.1,)),
        Range("outer.tasks", "int_uniform", (2, 4)),
    )
    assert read(changed("name", None), "stem").name == "stem"
    down = changed("early_terminate", {"type": "hyperband", "max_iter": 27, "s": 2})
    assert read(down, "").halving == Halving(3, 3.0, 9)


def test_the_file_is_one_of_wandb():
    jsonschema = pytest.importorskip("jsonschema", reason="needs the extra 'sweep'")
    found = find_spec("sweeps")
    if found is None or not found.submodule_search_locations:
        pytest.skip("no schema of W&B: pip install --no-deps sweeps")
    schema = Path(found.submodule_search_locations[0]) / "config" / "schema.json"
    jsonschema.validate(FILE, json.loads(schema.read_text()))
    docstring = read.__globals__["__doc__"]
    example = yaml.safe_load(docstring.split("besides:\n\n")[1].split("\n\nReference")[0])
    jsonschema.validate(example, json.loads(schema.read_text()))
    assert read(example, "").experiment == "quickstart"
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    assert yaml.safe_load(readme.split("```yaml\n")[1].split("```")[0]) == example


RATE = "parameters/inner.rate"


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("metod", "grid", "no key metod; did you mean method?"),
        ("method", "gird", "no method gird; did you mean grid?"),
        ("method", "custom", "no method custom; it is one of grid, random, bayes"),
        ("scheduler", {"engine": "ax"}, "scheduler is for W&B's own optimizers"),
        ("method", "grid", "inner.rate is a range, and a grid needs values; list them"),
        ("run_cap", None, "method bayes has no end of its own; add run_cap: 20"),
        ("run_cap", 0, "run_cap 0 is no number of trials; give 1 or more"),
        ("metric", None, "method bayes needs metric: {name: validation, goal: maximize}"),
        ("metric/name", "accuracy", "no metric accuracy; choose by validation"),
        ("metric/name", "validaton", "no metric validaton; did you mean validation?"),
        ("metric/goal", "minimize", "larger is better; set goal: maximize"),
        ("metric/target", "x", "target 'x' is no number"),
        ("early_terminate/min_iter", None, "give min_iter, or max_iter and s"),
        ("early_terminate/min_iter", 1.5, "min_iter 1.5 is no whole number"),
        ("early_terminate/eta", 1, "eta 1 is too small; give more than 1"),
        ("early_terminate/type", "median", "no type median; give type: hyperband"),
        ("command", None, "command does not say which experiment is swept; add command: ["),
        ("command", ["metalearn", "train", "x"], "command has no place for the parameters"),
        ("command", ["metalearn", "train", "${args}"], "does not name an experiment after train"),
        ("command", ["m", "train", "x", "${args_json_file}"], "write --config before"),
        ("parameters", {}, "the file has none; give at least one to sweep"),
        (RATE, 0.1, "inner.rate: 0.1 is no parameter; give value, values, or min and max"),
        (RATE, {"valeus": [1]}, "give value, values, or min and max; did you mean values?"),
        (RATE, {"values": []}, "values [] is no list of values; give at least one"),
        (RATE, {"values": [1], "min": 0}, "no key min; it is one of values, distribution"),
        (RATE, {"values": [1, 2], "probabilities": [1]}, "needs one number a value, 2 of them"),
        (f"{RATE}/min", 0, "min 0 has no logarithm; give one above 0"),
        (f"{RATE}/min", 2, "min 2 is above max 0.1; swap them"),
        (f"{RATE}/min", "1e-3", "min '1e-3' is no number; YAML wants a point in it"),
        (f"{RATE}/max", None, "max is missing; add it"),
        (f"{RATE}/distribution", "log_unifrom", "did you mean log_uniform?"),
        ("parameters/inner_steps", {"parameters": {}}, "inner_steps has none"),
        ("parameters/inner.steps", {"value": 1}, "inner.steps is there twice; keep one"),
    ],
)
def test_a_mistake_in_the_file(path, value, expected):
    with pytest.raises(UserError) as error:
        read(changed(path, value), "")
    assert expected in str(error.value)


@pytest.fixture
def refused(tmp_path, monkeypatch, capfd):
    """Runs the command on a file; a refused sweep leaves no folder behind."""
    pytest.importorskip("ray", reason="needs the extra 'sweep'")
    pytest.importorskip("optuna", reason="needs the extra 'sweep'")
    monkeypatch.chdir(tmp_path)

    def run(content: object, *words: str) -> str:
        text = content if isinstance(content, str) else yaml.safe_dump(content)
        Path("sweep.yaml").write_text(text)
        assert main(["sweep", "sweep.yaml", *words]) == 2
        line = capfd.readouterr().err
        assert line.startswith("metalearn: ") and line.count("\n") == 1, line
        assert not Path("runs").exists()
        return line

    return run


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("parameters/iner.rate", {"value": 1}, "no setting iner.rate; did you mean inner.rate?"),
        (
            "parameters/inner.order",
            {"values": [1, 3]},
            "inner.order: Input should be 1 or 2; got 3",
        ),
        (
            "parameters/outer.tasks",
            {"min": 1.0, "max": 4.0},
            "outer.tasks: Input should be a valid",
        ),
        ("parameters/tracking.group", {"value": "x"}, "tracking.group is the sweep's own"),
        ("parameters/learners", {"value": ["mamml"]}, "no learner mamml; did you mean maml?"),
        ("parameters/backbone.name", {"values": ["tiny-bert"]}, "does not fit family sinusoid"),
        ("metric/name", "finetune/validation", "its trainings have validation, maml/validation"),
        ("command/2", "sinusiod-maml", "no experiment sinusiod-maml; did you mean sinusoid-maml?"),
        ("command/3", "--outer.stpes", "no setting --outer.stpes; did you mean --outer.steps?"),
    ],
)
def test_a_mistake_that_the_experiment_shows(refused, path, value, expected):
    content = json.loads(json.dumps(FILE))
    *parents, last = path.split("/")
    place = content
    for part in parents:
        place = place[part]
    place[int(last) if isinstance(place, list) else last] = value
    assert expected in refused(content)


def test_other_mistakes_of_the_command(refused):
    grids = ["--grids", '{"maml": {"inner.rate": [0.1]}}']
    assert "inner.rate is in the grid of maml, which would replace it" in refused(FILE, *grids)
    none = refused(FILE, "--learners", "finetune")
    assert "none of finetune is trained" in none
    assert "sweep.yaml is not YAML" in refused("method: [")
    assert "holds no settings" in refused("- 1")
    assert "--parallel 0 is no number" in refused(FILE, "--parallel", "0")
    assert "no sweep folder" in refused(FILE, "--resume", "none")
    assert "no run of sweep-rates in runs/ to resume" in refused(FILE, "--resume")
    assert "no setting --colour" in refused(FILE, "--colour", "red")


def test_a_file_that_is_not_there_and_a_library_that_is_missing(monkeypatch, capfd, tmp_path):
    assert main(["sweep", "none.yaml"]) == 2
    assert "sweep file none.yaml: No such file or directory" in capfd.readouterr().err
    monkeypatch.setattr("experiments.sweeps.cluster.find_spec", lambda name: None)
    path = tmp_path / "sweep.yaml"
    path.write_text(yaml.safe_dump(FILE))
    assert main(["sweep", str(path)]) == 2
    assert "ray is not installed; pip install 'metalearn[sweep]'" in capfd.readouterr().err


def test_a_grid_is_every_combination_once():
    content = changed("method", "grid") | {
        "parameters": {
            "inner.steps": {"min": 1, "max": 3},
            "inner.rate": {"values": [0.1, 0.2]},
            "head.scale": {"distribution": "q_uniform", "min": 1.0, "max": 2.0, "q": 0.5},
        }
    }
    del content["run_cap"]
    sweep = read(content, "")
    found = [tuple(settings(sweep.parameters, p).values()) for p in sweep.points(0) or []]
    assert found == [(s, r, q) for s in (1, 2, 3) for r in (0.1, 0.2) for q in (1.0, 1.5)]
    capped = read(content | {"run_cap": 5}, "").points(0) or []
    assert [tuple(settings(sweep.parameters, p).values()) for p in capped] == found[:5]
    assert (sweep.trials(), read(content | {"run_cap": 5}, "").trials()) == (12, 5)


def test_random_trials_are_those_of_the_seed():
    sweep = read(changed("method", "random"), "")
    points = sweep.points(1) or []
    assert len(points) == 12
    assert points == sweep.points(1) != sweep.points(2)
    more = read(changed("method", "random") | {"run_cap": 20}, "").points(1) or []
    assert more[:12] == points
    made = [settings(sweep.parameters, point) for point in points]
    assert {setting["inner.steps"] for setting in made} == {1, 3}
    assert {setting["outer.tasks"] for setting in made} == {2, 3, 4}
    assert all(0.001 <= setting["inner.rate"] <= 0.1 for setting in made)


@pytest.mark.parametrize(
    ("given", "low", "middle", "high"),
    [
        ({"min": 1, "max": 4}, 1, 3, 4),
        ({"min": 0.0, "max": 4.0}, 0.0, 2.0, 4.0),
        ({"distribution": "log_uniform", "min": -2, "max": 2}, 0.135335, 1.0, 7.389056),
        ({"distribution": "log_uniform_values", "min": 0.01, "max": 1}, 0.01, 0.1, 1.0),
        ({"distribution": "inv_log_uniform", "min": -2, "max": 2}, 7.389056, 1.0, 0.135335),
        ({"distribution": "inv_log_uniform_values", "min": 0.01, "max": 1}, 1.0, 0.1, 0.01),
        ({"distribution": "q_uniform", "min": 0, "max": 10, "q": 4}, 0, 4, 8),
        ({"distribution": "q_log_uniform_values", "min": 1, "max": 100, "q": 5}, 0, 10, 100),
        ({"distribution": "beta"}, 0.0, 0.5, 1.0),
    ],
)
def test_distributions_are_those_of_wandb(given, low, middle, high):
    parameter = parse("x", given)
    values = [parameter.value(u) for u in (0.0, 0.5, 1.0)]
    assert values == pytest.approx([low, middle, high], abs=1e-6)


def test_a_normal_distribution_and_probabilities():
    normal = parse("x", {"distribution": "normal", "mu": 2, "sigma": 3})
    assert normal.value(0.5) == 2 and normal.value(0.8413447) == pytest.approx(5, abs=1e-5)
    choice = parse("x", {"values": ["a", "b", "c"], "probabilities": [1, 0, 3]})
    drawn = [choice.value(choice.draw(u)) for u in (0.0, 0.2, 0.3, 0.999)]
    assert drawn == ["a", "a", "c", "c"]


def test_bayes_proposes_by_seed_and_what_came_before():
    pytest.importorskip("optuna", reason="needs the extra 'sweep'")
    from experiments.sweeps.proposals import propose

    parameters = (parse("a", {"min": 0.0, "max": 1.0}), parse("b", {"values": ["x", "y"]}))
    trials: list[Trial] = []
    for number in range(30):
        point = propose(parameters, trials, seed=0)
        assert point == propose(parameters, trials, seed=0)
        score = -((point["a"] - 0.7) ** 2) - point["b"]
        trials.append(Trial(number, point, {}, "finished", score, validations=1))
    # Far better than chance, where the mean distance is 0.29 and half of the choices are wrong.
    late = trials[20:]
    assert sum(abs(trial.point["a"] - 0.7) for trial in late) / len(late) < 0.15
    assert sum(trial.point["b"] for trial in late) <= 2
    # Trials that run, were stopped or diverged are part of what came before.
    for state in ("open", "stopped", "diverged"):
        propose(parameters, [*trials, Trial(30, trials[0].point, {}, state, -1.0)], seed=0)

    from experiments.sweeps.summary import importance

    found = importance(parameters, trials)
    assert set(found) == {"a", "b"} and found["b"] > found["a"]
    assert importance(parameters, trials[:2]) == {}


def test_the_ledger_enters_how_a_trial_ended(tmp_path):
    ledger = Ledger(tmp_path, "validation")
    reason = {"reason": "loss nan"}
    cases: list[tuple[bool, dict | None, bool, str]] = [
        (True, None, False, "finished"),
        (False, {"validation": 0.5}, False, "stopped"),
        (False, {"ended": "diverged"} | reason, False, "diverged"),
        (False, {"ended": "failed"} | reason, False, "failed"),
        (False, None, True, "failed"),
        (True, None, True, "finished"),  # its process died after the end
    ]
    for number, (done, last, lost, expected) in enumerate(cases):
        trial = ledger.add({"inner.rate": 0.5}, {"inner.rate": 0.1})
        folder = ledger.run_folder(trial)
        folder.mkdir()
        record = {"learner": "maml", "fold": "", "shots": 1, "validation": number / 10}
        lines = [json.dumps(record | {"seed": seed}) + "\n" for seed in (0, 1)]
        (folder / "metrics.jsonl").write_text("".join(lines))
        if done:
            (folder / "result.json").write_text("{}")
        ledger.settle(trial, last, lost)
        assert (trial.state, trial.settled) == (expected, expected != "failed")
        assert (trial.score, trial.half, trial.validations) == (number / 10, 0.0, 2)
    assert Ledger.open(tmp_path, "validation") == ledger
    best = ledger.best()
    assert best is not None and best.number == 5
    order = [trial.number for trial in ranked(ledger.trials)]
    assert order == [5, 0, 1, 2, 4, 3]


def test_trials_come_from_what_was_left_then_from_the_plan(tmp_path):
    pytest.importorskip("optuna", reason="needs the extra 'sweep'")
    from experiments.sweeps.proposals import Proposals

    content = changed("method", "random") | {"run_cap": 3}
    sweep, base = read(content, ""), EXPERIMENTS["sinusoid-maml"]
    ledger = Ledger(tmp_path, "validation")
    console = Console(quiet=True)
    first = Proposals(sweep, 0, base, ledger, Board(3, console))
    given = [first.start(key) for key in "abc"]
    assert first.start("d") is None
    assert [config["trial"] for config in given if config] == [f"trial-00{i}" for i in range(3)]
    first.end("b", {"ended": "diverged", "reason": "loss nan"}, lost=False)
    # The others were open when the sweep died: they come first, and nothing new.
    again = Ledger.open(tmp_path, "validation")
    second = Proposals(sweep, 0, base, again, Board(3, console))
    assert [second.start(key) for key in "abc"] == [given[0], given[2], None]


def test_a_target_ends_a_sweep(tmp_path):
    from experiments.sweeps.proposals import Proposals

    content = changed("method", "random")
    content["metric"]["target"] = 0.9
    best = Trial(0, {}, {}, "finished", 0.95)
    ledger = Ledger(tmp_path, "validation", [best])
    made = Proposals(read(content, ""), 0, Experiment(), ledger, Board(2, Console(quiet=True)))
    assert made.start("a") is None
    best.score = 0.85
    assert made.start("a") is not None


def test_cores_and_cards_are_shared():
    assert share([{"CPU": 2.0}], None, 9, 0, "auto") == Share(2, 1, 0.0)
    assert share([{"CPU": 2.0}], 1, 9, 0, "auto") == Share(1, 2, 0.0)
    assert share([{"CPU": 8.0}], None, 9, 4, "auto") == Share(2, 4, 0.0)
    assert share([{"CPU": 8.0}], None, 2, 0, "auto") == Share(2, 4, 0.0)
    assert share([{"CPU": 2.0}] * 2, 1, 9, 0, "auto") == Share(1, 2, 0.0)  # no node has four
    assert share([{"CPU": 8.0, "GPU": 1.0}], 3, 9, 0, "cuda") == Share(3, 2, 1 / 3)
    assert share([{"CPU": 8.0, "GPU": 1.0}], None, 9, 0, "cpu") == Share(8, 1, 0.0)
    with pytest.raises(UserError, match="needs more than the 2 cores there are; give at most 2"):
        share([{"CPU": 2.0}], 3, 9, 0, "auto")
    with pytest.raises(UserError, match="device cuda:1"):
        share([{"CPU": 2.0}], 1, 9, 0, "cuda:1")


def test_the_metric_is_the_best_validation_of_every_training():
    record = {"learner": "maml", "fold": "", "shots": 1, "seed": 0, "trial": 0}
    records = [
        record | {"validation": 0.5},
        record | {"loss": 9.0},
        record | {"validation": 0.25},
        record | {"trial": 1, "validation": 0.75},  # of a grid the best counts
        record | {"seed": 1, "validation": 0.25},
        record | {"learner": "anil", "validation": 0.0},
    ]
    standing = Standing.of(records)
    assert standing.count == 5
    assert standing.metrics() == {
        "validation": pytest.approx(1 / 3),
        "maml/validation": 0.5,
        "anil/validation": 0.0,
    }
    assert standing.places("maml/validation") == [0.75, 0.25]
    assert Standing().metrics() == {}
