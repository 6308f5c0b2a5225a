"""The command line: everything can be set, and a mistake ends in one line and status 2."""

import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

import experiments
from experiments.cli import main
from experiments.config import Experiment
from experiments.folder import RunFolder, flatten, load_experiment
from tasks.episode import TaskError

CATALOG = {
    "EXPERIMENTS": {
        "quick": Experiment(name="quick", description="Five minutes").override({"inner.rate": 0.3}),
        "banking": Experiment(name="banking", description="Real text"),
    },
    "LEARNERS": {"maml": "second-order MAML"},
    "FAMILIES": {"builtin": "generated intents"},
    "BACKBONES": {"minilm": "packaged weights"},
    "ADAPTERS": {"lora": "low rank"},
}


@pytest.fixture
def calls(monkeypatch, tmp_path):
    """Replaces the catalog and the runners; returns what they were called with."""
    found: list = []

    def call(result):
        return lambda *values, **named: found.append((*values, *named.values())) or result

    modules = {
        "catalog": CATALOG,
        "run": {"run": call(Path("runs/quick-1"))},
        "evaluate": {"evaluate": call(Path("runs/table"))},
        "adaptation": {"adapt": call(Path("adapter"))},
        "prediction": {"predict": call(None)},
    }
    for name, content in modules.items():
        module = ModuleType(f"experiments.{name}")
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, f"experiments.{name}", module)
        monkeypatch.setattr(experiments, name, module, raising=False)
    monkeypatch.chdir(tmp_path)
    return found


def fails(capsys, *words: str) -> str:
    """The one line that a mistake ends in."""
    assert main(words) == 2
    said = capsys.readouterr().err
    assert said.startswith("metalearn: ") and said.count("\n") == 1
    return said


@pytest.mark.parametrize("words", [["--help"], ["train", "--help"], ["report", "--help"]])
def test_help_answers_without_loading_torch(words):
    code = (
        "import sys\nfrom experiments.cli import main\n"
        "try: main(sys.argv[1:])\nexcept SystemExit as exit: assert not exit.code\n"
        "heavy = {'torch', 'transformers', 'wandb', 'matplotlib', 'pydantic', 'tyro', 'numpy'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    command = [sys.executable, "-c", code, *words]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "usage: metalearn" in done.stdout


def test_every_command_is_in_the_help(capsys):
    assert main([]) == 0
    said = capsys.readouterr().out
    for command in (
        "list",
        "train",
        "sweep",
        "evaluate",
        "estimate",
        "tasks",
        "adapt",
        "predict",
        "reproduce",
        "report",
    ):
        assert f"\n    {command} " in said


def test_the_catalog_is_one_line_each(calls, capsys):
    assert main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.split() == ["quick", "Five", "minutes"] for line in lines)
    assert any(line.split() == ["maml", "second-order", "MAML"] for line in lines)
    assert len(lines) == 5 + 6


def test_train_runs_the_experiment_and_prints_the_folder_last(calls, capsys):
    assert main(["train", "quick"]) == 0
    assert calls == [(CATALOG["EXPERIMENTS"]["quick"], None, False)]
    assert capsys.readouterr().out.splitlines()[-1] == "runs/quick-1"


def test_settings_are_options(calls):
    words = "--inner.rate 0.5 --episodes.shots 1 5 --adapter.layers 4 5 --backbone.no-normalize"
    words += " --tracking.mode=disabled --run-dir here --folds 01 02 --inner.head-rate 0.2"
    grids = '{"maml": {"inner.rate": [0.1, 0.3]}}'
    json = ["--adapter.options", '{"r": 4}', "--grids", grids]
    assert main(["train", "quick", *words.split(), *json]) == 0
    ((experiment, folder, resume),) = calls
    assert (folder, resume) == (Path("here"), False)
    assert experiment == CATALOG["EXPERIMENTS"]["quick"].override(
        {
            "inner.rate": 0.5,
            "backbone.normalize": False,
            "inner.head_rate": 0.2,
            "episodes.shots": (1, 5),
            "adapter.layers": (4, 5),
            "adapter.options": {"r": 4},
            "tracking.mode": "disabled",
            "folds": ("01", "02"),
            "grids": {"maml": {"inner.rate": (0.1, 0.3)}},
        }
    )


def test_the_help_of_an_experiment_shows_every_setting_with_its_value(calls, capsys):
    with pytest.raises(SystemExit) as exit:
        main(["train", "quick", "--help"])
    assert not exit.value.code
    said = capsys.readouterr().out
    assert "Five minutes" in said and "--run-dir" in said and "--resume" in said
    for name in flatten(Experiment().model_dump()):
        assert f"--{name.replace('_', '-')}" in said, name
    assert "Inner learning rate of the adapter. (default: 0.3)" in " ".join(
        said.replace("│", " ").split()
    )


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("trian", "did you mean train?"),
        ("train", "needs the name"),
        ("train qick", "no experiment qick; did you mean quick?"),
        ("train xyz", "no experiment xyz; see metalearn list"),
        ("train quick --iner.rate 0.1", "no setting --iner.rate; did you mean --inner.rate?"),
        ("train quick --inner.head-rat 1", "did you mean --inner.head-rate?"),
        ("train quick --inner.rate fast", "--inner.rate: could not convert"),
        ("train quick --inner.rate", "Missing value for argument '--inner.rate'"),
        ("train quick --threads -1", "threads Input should be greater than or equal to 0;"),
        ("train quick --tracking.mode on", "invalid choice 'on'"),
        ("train quick --adapter.options {r", "--adapter.options"),
        ("train quick extra", "extra"),
        ("train quick --run-dir", "--run-dir"),
        ("train quick --resume", "no run of quick in runs/"),
        ("train quick --resume a --run-dir b", "differ"),
        ("evaluate", "needs a run folder"),
        ("evaluate --evaluation.tasks 3", "needs a run folder"),
        ("adapt run --support a.csv", "--output"),
        ("adapt run --support a.csv --output b --steps -1", "negative"),
        ("predict", "DIR"),
        ("report", "RUN"),
        ("report none", "no run folder none"),
        ("--colour", "see metalearn --help"),
    ],
)
def test_a_mistake_is_one_line_with_the_remedy(calls, capsys, words, expected):
    assert expected in fails(capsys, *words.split())
    assert calls == []


def test_mistakes_found_later_are_one_line_too(calls, capsys, monkeypatch):
    def run(*_):
        raise TaskError("class 'a' has 3 examples\nbut needs 6")

    monkeypatch.setattr(experiments.run, "run", run)
    assert fails(capsys, "train", "quick") == "metalearn: class 'a' has 3 examples but needs 6\n"
    module = SimpleNamespace(ModelError=type("ModelError", (ValueError,), {}))
    monkeypatch.setitem(sys.modules, "meta_models.errors", module)

    def run_model(*_):
        raise module.ModelError("no backbone")

    monkeypatch.setattr(experiments.run, "run", run_model)
    assert fails(capsys, "train", "quick") == "metalearn: no backbone\n"


def test_a_fault_of_the_program_is_not_hidden(calls, monkeypatch):
    def run(*_):
        raise ValueError("a bug")

    monkeypatch.setattr(experiments.run, "run", run)
    with pytest.raises(ValueError, match="a bug"):
        main(["train", "quick"])


def test_an_interruption_says_how_to_go_on(calls, capsys, monkeypatch):
    def run(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(experiments.run, "run", run)
    assert main(["train", "quick", "--run-dir", "my run"]) == 130
    said = capsys.readouterr().err
    assert "metalearn train quick --run-dir 'my run' --resume\n" in said


def test_resume_takes_the_newest_run_of_the_name(calls):
    quick = CATALOG["EXPERIMENTS"]["quick"]
    for stamp in (
        "20250101-000000-9",
        "20250102-000000",
        "20250102-000000-10",
        "x-20260101-000000",
    ):
        RunFolder.create(quick, Path(f"runs/quick-{stamp}")).close()
    assert main(["train", "quick", "--resume"]) == 0
    assert calls == [(quick, Path("runs/quick-20250102-000000-10"), True)]


@pytest.mark.parametrize("words", [["--run-dir", "mine", "--resume"], ["--resume", "mine"]])
def test_resume_takes_the_settings_of_the_folder(calls, words):
    stored = CATALOG["EXPERIMENTS"]["quick"].override({"inner.rate": 0.7})
    RunFolder.create(stored, Path("mine")).close()
    assert main(["train", "quick", *words]) == 0
    assert calls == [(stored, Path("mine"), True)]
    # An override reaches the runner, which refuses what differs from the folder.
    assert main(["train", "quick", *words, "--inner.steps", "9"]) == 0
    assert calls[1][0] == stored.override({"inner.steps": 9})
    assert load_experiment(Path("mine")) == stored


def test_a_folder_of_another_experiment_is_refused(calls, capsys):
    RunFolder.create(CATALOG["EXPERIMENTS"]["banking"], Path("mine")).close()
    said = fails(capsys, "train", "quick", "--resume", "mine")
    assert "holds banking, not quick" in said


def test_the_other_commands_reach_their_functions(calls, capsys):
    for words in (
        "evaluate a b --evaluation.tasks 7 --run-dir t",
        "adapt r --support s.csv --output o --learner maml --steps 3",
        "predict o --input i.csv",
    ):
        assert main(words.split()) == 0
    assert calls == [
        (["a", "b"], ["--evaluation.tasks", "7"], Path("t"), False),
        (Path("r"), Path("s.csv"), Path("o"), "maml", 3),
        (Path("o"), Path("i.csv"), None),
    ]
    assert capsys.readouterr().out == "runs/table\nadapter\n"


def test_report_prints_its_page(calls, capsys):
    RunFolder.create(CATALOG["EXPERIMENTS"]["quick"], Path("mine")).close()
    assert main(["report", "mine"]) == 0
    assert capsys.readouterr().out == "mine/report.html\n"
    assert Path("mine/report.html").exists()
