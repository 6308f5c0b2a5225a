"""The reproductions on real text: how MTEB draws, and what is made of two runs on intents."""

import json
from pathlib import Path

import numpy as np
import pytest

from experiments.papers import protaugment
from experiments.papers.mteb_banking77 import REPRODUCTION as MTEB
from experiments.papers.mteb_banking77 import draws
from experiments.papers.protaugment import SETS, figures
from experiments.papers.reproduction import Estimate, Job
from metalearn.training import MetaTraining


def test_draws_shuffle_one_list_again_and_again_by_the_same_permutation():
    labels = ["a", "b", "a", "b", "a", "b", "a", "c"]
    permutation = np.random.RandomState(42).permutation(len(labels))
    by_hand = [1, 5, 0, 7, 2, 4, 3, 6]
    assert permutation.tolist() == by_hand
    second = [by_hand[i] for i in by_hand]
    assert second == [5, 4, 1, 6, 0, 2, 7, 3]
    # The first two of a and of b, the only one of c, in the order of the list.
    assert draws(labels, shots=2, count=2, seed=42) == [[1, 5, 0, 7, 2], [5, 4, 1, 6, 7]]


def test_every_draw_has_the_shots_of_every_label_and_differs():
    labels = [f"intent {i % 7}" for i in range(140)]
    found = draws(labels, shots=8, count=10, seed=42)
    assert len({tuple(sorted(draw)) for draw in found}) == 10
    for draw in found:
        assert len(set(draw)) == 56
        assert all([labels[i] for i in draw].count(label) == 8 for label in set(labels))


def test_the_embeddings_have_unit_length_and_the_settings_of_the_protocol(data):
    from experiments.papers.mteb_banking77 import DATA, embed
    from tasks.sources.files import read_examples

    examples = read_examples(DATA)[:3]
    features = embed(examples)
    assert features.shape == (3, 384) and features.dtype == np.float32
    assert np.allclose(np.linalg.norm(features, axis=1), 1.0, atol=1e-6)
    backbone = MTEB.settings["protocol"]["backbone"]
    assert (backbone["name"], backbone["max_length"]) == ("minilm", 256)


def test_figures_are_in_points_with_half_of_the_interval():
    def interval(mean: float) -> dict[str, float]:
        return {"mean": mean, "low": mean - 0.01, "high": mean + 0.02}

    result = {
        "rows": [
            {"learner": "prototypes", "shots": 1, "accuracy": interval(0.8)},
            {"learner": "protonet", "shots": 1, "accuracy": interval(0.85)},
        ],
        "comparisons": [{"learner": "protonet", "shots": 1, "difference": interval(0.05)}],
    }
    measured = figures("X", result)
    assert measured.keys() == {"X 1-shot frozen", "X 1-shot ProtoNet", "X 1-shot gain"}
    gain = measured["X 1-shot gain"]
    assert (gain.value, gain.half) == pytest.approx((5.0, 1.5))


def test_no_gain_is_outside_and_the_least_possible_one_inside():
    judged = {q.name: q for q in protaugment.REPRODUCTION.quantities}
    experiment = SETS["CLINC150"]
    episodes = experiment.episodes
    queries = len(experiment.folds) * experiment.evaluation.tasks * episodes.ways * episodes.queries
    for name in SETS:
        gain = judged[f"{name} 1-shot gain"]
        assert gain.verdict(0.0) == "outside"
        assert gain.verdict(100 / queries) == "inside"
        assert not judged[f"{name} 5-shot gain"].judged


def test_a_killed_run_goes_on(tiny_experiment, tmp_path, monkeypatch):
    tiny = tiny_experiment.override({"learners": ("prototypes", "protonet")})
    sets = {name: tiny.override({"name": name.lower()}) for name in SETS}
    monkeypatch.setattr(protaugment, "SETS", sets)
    whole = protaugment.run(Job(1, False, tmp_path / "whole"))
    assert len(whole) == 6 and isinstance(whole["CLINC150 1-shot gain"], Estimate)

    taken = []
    take_step = MetaTraining.take_step

    def dies(self: MetaTraining) -> dict[str, float]:
        taken.append(self.step)
        if len(taken) == 4:
            raise KeyboardInterrupt
        return take_step(self)

    monkeypatch.setattr(MetaTraining, "take_step", dies)
    job = Job(1, False, tmp_path / "killed")
    with pytest.raises(KeyboardInterrupt):
        protaugment.run(job)
    before = stamp(job.folder / "banking77")
    assert protaugment.run(job) == whole
    assert stamp(job.folder / "banking77") == before
    config = json.loads((job.folder / "clinc150" / "config.json").read_text())
    assert config["seeds"] == [1]


def stamp(run: Path) -> int:
    """When the result of a run was written."""
    return (run / "result.json").stat().st_mtime_ns
