"""Runs that meet a loss which is no number: what they say, what they keep, and how they go on."""

import pytest
import torch

from experiments import checkpoint
from experiments.build import Workshop, seeded
from experiments.config import Experiment
from experiments.errors import UserError
from experiments.files import read_json
from experiments.metrics import read_metrics
from experiments.run import run
from metalearn.algorithms.maml import MAML

SINUSOID = Experiment(name="waves").override(
    {
        "learners": ("finetune", "maml"),
        "family.source": "sinusoid",
        "backbone.name": "mlp",
        "inner.rate": 0.001,
        "inner.steps": 2,
        "outer.steps": 4,
        "outer.tasks": 2,
        "outer.warmup": 1,
        "outer.validate_every": 2,
        "outer.validation_tasks": 4,
        "outer.checkpoint_every": 1,
        "evaluation.tasks": 3,
        "evaluation.tasks_per_batch": 2,
        "evaluation.resamples": 50,
        "episodes.queries": 2,
        "tracking.mode": "disabled",
        "threads": 1,
    }
)


@pytest.fixture(scope="module", autouse=True)
def threads():
    """Runs set the threads of this process."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_a_trial_that_diverges_is_not_chosen(tmp_path, caplog):
    grids = {"maml": {"inner.rate": (1e30, 0.001)}}
    folder = run(SINUSOID.override({"grids": grids}), tmp_path / "run")
    choice = read_json(folder / "choices.json")["maml-1shot-seed0-trial0"]
    assert choice["trial"] == 1
    assert choice["trials"][0]["validation_accuracy"] is None
    assert "some trials ended in a non-finite loss" in caplog.text


def test_where_every_trial_diverges_the_run_says_so(tmp_path):
    grids = {"maml": {"inner.rate": (1e30, 1e31)}}
    with pytest.raises(UserError, match="every trial ended in a non-finite loss; lower the rates"):
        run(SINUSOID.override({"grids": grids}), tmp_path / "run")


def test_a_non_finite_loss_keeps_the_last_good_state(tmp_path, monkeypatch):
    undisturbed = run(SINUSOID, tmp_path / "undisturbed")
    meta_gradient = MAML.meta_gradient
    calls = 0

    def poisoned(self, state, episode, progress=1.0):
        nonlocal calls
        calls += 1
        gradient, metrics = meta_gradient(self, state, episode, progress)
        return gradient, metrics | ({"loss": float("nan")} if calls == 3 else {})

    with monkeypatch.context() as patch:
        patch.setattr(MAML, "meta_gradient", poisoned)
        with pytest.raises(UserError, match=r"^maml-1shot-seed0-trial0: loss nan.*meta-step 3;"):
            run(SINUSOID, tmp_path / "run")
    saved = checkpoint.load(tmp_path / "run" / "checkpoints" / "maml-1shot-seed0-trial0")
    assert saved is not None and saved[1]["step"] == 2
    assert all(value.isfinite().all() for value in saved[0].values())

    # The loss is finite now: the run goes on from there as if nothing had been.
    folder = run(SINUSOID, tmp_path / "run", resume=True)
    for name in ("scores.parquet", "curves.parquet"):
        assert (folder / name).read_bytes() == (undisturbed / name).read_bytes()
    losses = [
        [record["loss"] for record in read_metrics(path / "metrics.jsonl")]
        for path in (folder, undisturbed)
    ]
    assert losses[0] == losses[1] and len(losses[0]) == 4


def test_a_loss_that_stays_non_finite_stops_every_resumption(tmp_path):
    experiment = SINUSOID.override({"inner.rate": 1e30})
    for resume in (False, True):
        with pytest.raises(UserError, match="at meta-step 1; the state before it is kept"):
            run(experiment, tmp_path / "run", resume=resume)
    assert not (tmp_path / "run" / "result.json").exists()
    saved = checkpoint.load(tmp_path / "run" / "checkpoints" / "maml-1shot-seed0-trial0")
    initial = Workshop(experiment).learner("maml").init(seeded(0))
    assert saved is not None
    assert all(torch.equal(saved[0][f"state/{name}"], value) for name, value in initial.items())
