"""A made-up result in the shape that a run writes, and a tiny run that is really trained."""

import json
import math
from pathlib import Path
from types import SimpleNamespace

import pytest

LEARNERS = {
    "majority": (0.2, 0.0, 0),
    "prototypes": (0.78, 0.0, 0),
    "logistic": (0.765, 0.0, 0),
    "finetune": (0.77, 0.015, 5),
    "reptile": (0.785, 0.03, 5),
    "maml": (0.79, 0.06, 5),
}


def curves(shots: tuple[int, ...] = (1,)) -> list[dict]:
    """Curves of six learners, three of them without inner steps."""
    rows = []
    for k in shots:
        for name, (start, gain, steps) in LEARNERS.items():
            for step in range(steps + 1):
                accuracy = min(0.99, start + gain * (1 - math.exp(-step / 2)) + 0.02 * (k - 1))
                means = {"accuracy": accuracy, "macro_f1": accuracy - 0.02, "loss": 1.7 - accuracy}
                for metric, mean in means.items():
                    for split, better in (("query", 0.0), ("support", 0.08)):
                        value = mean + (better if metric != "loss" else -better)
                        rows.append(
                            {
                                "learner": name,
                                "shots": k,
                                "split": split,
                                "step": step,
                                "metric": metric,
                                "mean": value,
                                "low": value - 0.012,
                                "high": value + 0.012,
                                "tasks": 100,
                            }
                        )
    return rows


def interval(mean: float, half: float) -> dict[str, float]:
    """A symmetric interval."""
    return {"mean": mean, "low": mean - half, "high": mean + half}


def result(shots: tuple[int, ...] = (1,)) -> dict:
    """What `result.json` holds."""
    rows, comparisons, choices = [], [], []
    for k in shots:
        for name, (start, gain, steps) in LEARNERS.items():
            accuracy = start + gain
            rows.append(
                {
                    "learner": name,
                    "shots": k,
                    "tasks": 100,
                    "folds": 1,
                    "seeds": 1,
                    "accuracy": interval(accuracy, 0.01),
                    "macro_f1": interval(accuracy - 0.02, 0.012),
                    "loss": interval(1.7 - accuracy, 0.03),
                    "step": steps,
                    "train_seconds": 0.0 if not steps else 81.5,
                    "adapt_seconds_per_task": 0.004 if not steps else 0.61,
                    "passes": 1 + 4 * steps,
                }
            )
            if name != "prototypes":
                comparisons.append(
                    {
                        "learner": name,
                        "reference": "prototypes",
                        "shots": k,
                        "difference": interval(accuracy - 0.78, 0.008),
                    }
                )
        choices.append(
            {
                "learner": "maml",
                "fold": "01",
                "shots": k,
                "settings": {"inner.rate": 0.1, "steps": 5},
                "validation_accuracy": 0.84,
            }
        )
    return {
        "experiment": "trial",
        "rows": rows,
        "comparisons": comparisons,
        "choices": choices,
        "curves": curves(shots),
    }


def metrics() -> list[dict]:
    """Training records of two learners on two folds."""
    return [
        {"learner": learner, "fold": fold, "seed": 0, "step": step, "loss": 1.5 / (1 + step / 20)}
        | ({"validation": 0.7 + step / 500} if step % 20 == 0 else {})
        for learner in ("maml", "reptile")
        for fold in ("01", "02")
        for step in range(61)
    ]


@pytest.fixture
def made_up() -> SimpleNamespace:
    """Functions that make up curves, a result and training records."""
    return SimpleNamespace(curves=curves, result=result, metrics=metrics, learners=set(LEARNERS))


@pytest.fixture
def made_up_sweep(tmp_path) -> Path:
    """The folder of a sweep that has ended, with scores that were made up."""
    pytest.importorskip("optuna", reason="the extra sweep is not installed")
    from experiments.catalog import EXPERIMENTS
    from experiments.files import write_json
    from experiments.sweeps.file import read
    from experiments.sweeps.ledger import Ledger, Trial
    from experiments.sweeps.summary import conclude

    content = {
        "method": "grid",
        "metric": {"name": "validation", "goal": "maximize"},
        "parameters": {"inner.rate": {"values": [0.01, 0.1, 1.0]}, "seeds": {"values": [[0], [1]]}},
        "command": ["metalearn", "train", "quickstart", "--config", "${args_json_file}"],
    }
    sweep, named = read(content, "rates"), EXPERIMENTS["quickstart"]
    ledger = Ledger(tmp_path / "sweep-rates", sweep.metric)
    ledger.folder.mkdir()
    write_json(ledger.folder / "sweep.json", content)
    for number, point in enumerate(sweep.points(0) or []):
        settings = {p.name: p.value(point[p.name]) for p in sweep.parameters}
        score = 0.7 + 0.1 * settings["inner.rate"] + 0.001 * number
        trial = Trial(number, point, settings, "finished", score, 0.02, validations=3)
        ledger.trials.append(trial)
    ledger.trials[0].state, ledger.trials[0].reason = "diverged", "loss <nan>"
    conclude(sweep, ledger, named, named)
    return ledger.folder


WORDS = ("refund", "parcel", "password", "invoice", "menu", "visa", "plumber", "guitar", "rain")
TINY = {
    "name": "tiny",
    "description": "two meta-steps on a random model",
    "learners": ("prototypes", "finetune", "maml", "protonet"),
    "backbone.name": "tiny-bert",
    "adapter.options": {"r": 2},
    "episodes.ways": 2,
    "episodes.shots": (1,),
    "episodes.queries": 2,
    "inner.steps": 2,
    "inner.rate": 0.02,
    "outer.steps": 2,
    "outer.tasks": 2,
    "outer.rate": 0.1,
    "outer.warmup": 0,
    "outer.validate_every": 1,
    "outer.validation_tasks": 8,
    "evaluation.tasks": 4,
    "evaluation.resamples": 50,
    "tracking.mode": "disabled",
}


@pytest.fixture(scope="session")
def tiny_experiment(tmp_path_factory):
    """Settings of an experiment of seconds, on classes of eight texts in a file."""
    from experiments.config import Experiment

    path = tmp_path_factory.mktemp("texts") / "texts.jsonl"
    # Few words of a text tell its class, so that the untrained model makes mistakes.
    texts = [
        {"text": f"{word} {WORDS[i]} {WORDS[i - 3]} {WORDS[i - 5]}", "label": word}
        for word in WORDS
        for i in range(8)
    ]
    path.write_text("".join(json.dumps(text) + "\n" for text in texts))
    family = {"family.source": "file", "family.name": "texts", "family.path": str(path)}
    return Experiment().override(TINY | family)


@pytest.fixture(scope="session")
def tiny_run(tiny_experiment, tmp_path_factory) -> Path:
    """The run folder of the tiny experiment; tests only read it."""
    from experiments.run import run

    return run(tiny_experiment, tmp_path_factory.mktemp("runs") / "first")
