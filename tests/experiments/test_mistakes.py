"""A mistake of the user ends in one line that names the thing and the remedy, and in status 2."""

import json
from importlib.machinery import PathFinder
from pathlib import Path

import huggingface_hub.constants
import pytest

from experiments.cli import main
from metalearn.inner.learn2learn_engine import learn2learn

TINY = """
train quickstart --learners prototypes --evaluation.reference prototypes --threads 1
--backbone.name tiny-bert --adapter.options {} --tracking.mode disabled
--evaluation.tasks 1 --outer.steps 1 --outer.tasks 1 --outer.validation-tasks 1
"""
CLASSES = [f"class {i}" for i in range(10)]
MAML = ["--learners", "prototypes", "maml", "--inner.steps", "1"]


def data(path: Path, drop: int = 0, **changed: object) -> Path:
    """Ten classes of six texts; the last class without `drop` of them, the tenth line changed."""
    rows = [{"text": f"{name} {letter}", "label": name} for name in CLASSES for letter in "abcdef"]
    rows = rows[: len(rows) - drop]
    rows[9] |= changed
    path.write_text("\n".join(map(json.dumps, rows)) + "\n")
    return path


def file(path: Path, *others: str) -> list[str]:
    """Options for a family of a file, whose tasks fit its splits of six, two and two classes."""
    ways = [] if "--episodes.ways" in others else ["--episodes.ways", "2"]
    return ["--family.source", "file", "--family.path", str(path), *ways, *others]


@pytest.fixture
def refused(tmp_path, monkeypatch, capfd):
    """Runs the command and returns its one line; a refused run leaves no folder behind."""
    monkeypatch.chdir(tmp_path)
    # The environment variable is read once, when the package is imported.
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)

    def run(*words: str, fresh: bool = True) -> str:
        place = [] if "--run-dir" in words or "--resume" in words else ["--run-dir", "run"]
        assert main([*TINY.split(), *words, *place]) == 2
        assert not (fresh and Path("run").exists())
        line = capfd.readouterr().err
        assert line.startswith("metalearn: ") and line.count("\n") == 1, line
        return line

    return run


def test_a_missing_file(refused):
    line = refused(*file(Path("none.jsonl")))
    assert "none.jsonl" in line and "METALEARN_DATA" in line


def test_a_missing_column(refused, tmp_path):
    line = refused(*file(data(tmp_path / "d.jsonl"), "--family.label", "lable"))
    assert "no column 'lable' (did you mean 'label'?); name one of: text, label" in line


def test_a_class_with_too_few_examples(refused, tmp_path):
    path = data(tmp_path / "d.jsonl", drop=3)
    line = refused(*file(path, "--episodes.ways", "0", *MAML))
    assert "class 'class 9' has 3 distinct examples" in line
    assert "1 shots + 5 queries need 6; lower shots or queries, or add examples" in line


def test_more_ways_than_classes(refused, tmp_path):
    line = refused(*file(data(tmp_path / "d.jsonl"), "--episodes.ways", "3"))
    assert "3 ways asked for, but there are 2 classes to draw from; ask for fewer" in line


@pytest.mark.parametrize("splits", [("train", "valid"), ("train", "test"), ("valid", "test")])
def test_overlapping_meta_splits(refused, tmp_path, splits):
    parts = {"train": CLASSES[:4], "valid": CLASSES[4:7], "test": CLASSES[7:]}
    parts[splits[1]] = [*parts[splits[1]], parts[splits[0]][0]]
    (tmp_path / "folds.json").write_text(json.dumps({"a": parts}))
    options = ("--family.folds", str(tmp_path / "folds.json"), "--family.fold", "a")
    line = refused(*file(data(tmp_path / "d.jsonl"), *options))
    assert f"{parts[splits[0]][0]!r} is in both {splits[0]!r} and {splits[1]!r}" in line


def test_an_unknown_fold(refused, tmp_path):
    parts = {"train": CLASSES[:4], "valid": CLASSES[4:7], "test": CLASSES[7:]}
    (tmp_path / "folds.json").write_text(json.dumps({"first": parts}))
    options = ("--family.folds", str(tmp_path / "folds.json"), "--folds", "frist")
    line = refused(*file(data(tmp_path / "d.jsonl"), *options))
    assert "no fold 'frist' (did you mean 'first'?)" in line


def test_a_corrupt_line(refused, tmp_path):
    path = data(tmp_path / "d.jsonl")
    lines = path.read_text().splitlines()
    lines[41] = lines[41][:-5]
    path.write_text("\n".join(lines))
    line = refused(*file(path))
    assert "line 42: not JSON" in line and "correct or remove the line" in line


@pytest.mark.parametrize("text", ["", "  \t", None])
def test_an_empty_text(refused, tmp_path, text):
    line = refused(*file(data(tmp_path / "d.jsonl", text=text)))
    assert "line 10: the text is empty; remove the record or fill it in" in line


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--learners", "prototype"], "no learner prototype; did you mean prototypes?"),
        (["--learners", "prototypes", "x9"], "no learner x9; see metalearn list"),
        (["--evaluation.reference", "maml"], "evaluation.reference: no learner maml; learners"),
        (["--iner.rate", "1"], "no setting --iner.rate; did you mean --inner.rate?"),
        (["--outer.steps", "0"], "OuterSettings steps Input should be greater than or equal to 1"),
        (["--grids", '{"mamml": {}}'], "grids: no learner mamml; did you mean maml?"),
        (
            ["--grids", '{"prototypes": {"inner.rat": [1]}}'],
            "grids: no setting inner.rat; did you mean inner.rate?",
        ),
        (
            ["--grids", '{"prototypes": {"inner.rate": ["fast"]}}'],
            "grids: inner.rate: Input should be a valid number, unable to parse string as a "
            "number; got 'fast'",
        ),
        (["--grids", '{"prototypes": {"inner.rate": []}}'], "no values for inner.rate"),
        (["--backbone.name", "mlp"], "mlp"),
        (["--compile", "on"], "lengths of the texts"),
        (["--family.source", "sinusoid"], "use --backbone.name mlp"),
    ],
)
def test_names_and_values_that_do_not_fit(refused, words, expected):
    assert expected in refused(*words)


def test_an_unknown_experiment(capfd):
    assert main(["train", "quikstart"]) == 2
    assert capfd.readouterr().err == (
        "metalearn: no experiment quikstart; did you mean quickstart?\n"
    )


def test_a_backbone_that_is_not_there(refused):
    line = refused("--backbone.name", "nobody/no-such-model")
    assert "backbone 'nobody/no-such-model' is not on disk and could not be fetched" in line
    assert "give a local folder or a reachable hub name" in line


def test_second_order_with_an_attention_that_has_none(refused):
    line = refused(*MAML, "--backbone.attention", "sdpa")
    assert "'sdpa' has no second derivative; use --backbone.attention eager" in line


@pytest.mark.parametrize(
    ("engine", "words", "expected"),
    [
        (
            "higher",
            ["--inner.gradient", "adjoint"],
            "inner.engine higher has no adjoint; set inner.gradient to unrolled, or inner.engine "
            "to native",
        ),
        (
            "learn2learn",
            ["--inner.optimizer", "adam"],
            "inner.engine learn2learn takes plain gradient steps; set inner.optimizer to sgd, or "
            "inner.engine to higher or native",
        ),
        (
            "learn2learn",
            ["--learners", "prototypes", "meta-curvature"],
            "inner.engine learn2learn has no preconditioner Kronecker; set inner.engine to higher",
        ),
        (
            "native",
            ["--learners", "prototypes", "gbml", "--inner.head-rate", "0.3"],
            "learn2learn's GBML has one fixed rate for all that adapts; set inner.head_rate to "
            "inner.rate",
        ),
    ],
)
def test_what_a_library_cannot_run(refused, engine, words, expected):
    if engine != "higher" and PathFinder.find_spec("learn2learn") is None:
        pytest.skip("learn2learn is not installed")
    assert expected in refused(*MAML, *words, "--inner.engine", engine)


def test_a_library_that_is_not_installed(refused, monkeypatch):
    found = PathFinder.find_spec
    monkeypatch.setattr(
        PathFinder, "find_spec", lambda name, *a: found(name, *a) if name != "learn2learn" else None
    )
    learn2learn.cache_clear()
    for words in (["--inner.engine", "learn2learn"], ["--learners", "prototypes", "gbml"]):
        line = refused(*MAML, *words)
        assert "learn2learn is not installed; `make install` builds it" in line


def test_an_adapter_that_matches_nothing(refused):
    line = refused(*MAML, "--adapter.options", '{"target_modules": ["nothing"]}')
    assert "adapter 'lora'" in line and "nothing" in line
    line = refused(*MAML, "--adapter.layers", "7")
    assert "layers" in line and "7" in line


def test_a_run_folder_that_exists_and_settings_that_changed(refused, capfd):
    assert main([*TINY.split(), "--run-dir", "run"]) == 0
    capfd.readouterr()
    line = refused("--run-dir", "run", fresh=False)
    assert "run folder run exists and is not empty; continue it with --resume or choose" in line
    line = refused("--resume", "run", "--inner.rate", "0.7", fresh=False)
    assert "run has another configuration (inner.rate); resume without these settings" in line


def test_a_folder_that_is_not_there_to_resume(refused):
    assert "no run folder none to resume; leave out --resume" in refused("--resume", "none")


def test_a_loss_that_is_not_finite(monkeypatch, tmp_path, capfd):
    monkeypatch.chdir(tmp_path)
    words = ["--episodes.queries", "2", *MAML, "--inner.rate", "1e30", "--run-dir", "run"]
    for resume in ([], ["--resume"]):
        assert main([*TINY.split(), *words, *resume]) == 2
        *progress, line = capfd.readouterr().err.splitlines()
        assert not any("Traceback" in other for other in progress)
        assert line.startswith("metalearn: maml-1shot-seed0-trial0: loss ")
        assert "at meta-step 1; the state before it is kept: lower inner.rate" in line
    assert list(Path("run/checkpoints").glob("*/step-000000/meta.json"))
