"""The settings of the inner loop reach the learners."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from experiments.build import Workshop
from experiments.config import BackboneSettings, EpisodeSettings, Experiment, FamilySettings
from experiments.learning import InnerSettings, OuterSettings
from experiments.loops import build_loop
from meta_models.errors import ModelError
from meta_models.params import norm, part
from metalearn.algorithms.maml import MAML
from metalearn.inner.higher_engine import Higher
from metalearn.inner.learn2learn_engine import Learn2Learn
from tests.metalearn.table import needs_learn2learn


def workshop(**inner: Any) -> Workshop:
    """Sinusoids and an MLP."""
    return Workshop(
        Experiment(
            family=FamilySettings(source="sinusoid"),
            backbone=BackboneSettings(name="mlp"),
            episodes=EpisodeSettings(shots=(3,), queries=3),
            outer=OuterSettings(tasks=2),
            inner=InnerSettings(**{"rate": 0.001, "steps": 2, **inner}),
        )
    )


@pytest.mark.parametrize(
    ("engine", "kind"),
    [
        ("native", type(None)),
        ("higher", Higher),
        pytest.param("learn2learn", Learn2Learn, marks=needs_learn2learn),
    ],
)
def test_learners_take_their_steps_in_the_engine_asked_for(engine, kind) -> None:
    made = workshop(engine=engine).learner("maml")

    assert isinstance(made, MAML)
    assert isinstance(made.loop.engine, kind)


@needs_learn2learn
@pytest.mark.parametrize(("transform", "numbers"), [("curvature", 40), ("linear", 1600)])
def test_gbml_trains_the_transform_asked_for(transform, numbers) -> None:
    """The factors of a bias of 40 units are 40 numbers or a matrix of 1600."""
    made = workshop(transform=transform, engine="higher").learner("gbml")
    state = made.init(torch.Generator().manual_seed(0))

    gradient, _ = made.meta_gradient(state, workshop().training_episodes(3, 0)(0))

    of_bias = {n: v for n, v in state.items() if n.startswith("metric.body.bias0")}
    assert [v.numel() for v in of_bias.values()] == [numbers]
    assert all(norm({n: g}) > 0 for n, g in gradient.items() if part(n) == "metric")


@pytest.mark.parametrize(
    ("settings", "compiled"),
    [
        ({}, False),  # a hundred steps do not win the compiler's time back
        ({"outer.steps": 10_000}, True),
        ({"outer.steps": 10_000, "compile": "off"}, False),
        ({"outer.steps": 10_000, "episodes.train_shots": (2, 9)}, False),  # a graph a shape
        ({"compile": "on"}, True),
        ({"compile": "on", "inner.engine": "higher"}, False),
    ],
)
def test_meta_gradients_are_compiled_where_it_pays_or_is_asked_for(settings, compiled) -> None:
    made = Workshop(workshop().experiment.override(settings))
    for name in ("maml", "meta-sgd"):
        learner = made.learner(name)
        assert isinstance(learner, MAML) and (learner.compiler is not None) == compiled


def test_what_reads_texts_is_not_compiled() -> None:
    settings = {"backbone.name": "tiny-bert", "outer.steps": 10_000}
    learner = Workshop(Experiment().override(settings)).learner("maml")
    assert isinstance(learner, MAML) and learner.compiler is None


def test_checkpointing_takes_the_adjoint_in_reverse() -> None:
    asked = Experiment().override({"backbone.checkpoint": True, "inner.gradient": "adjoint"})
    assert build_loop(asked, order=2).adjoint == "reverse"
    with pytest.raises(ModelError, match=r"leave out --inner\.adjoint forward"):
        build_loop(asked.override({"inner.adjoint": "forward"}), order=2)
