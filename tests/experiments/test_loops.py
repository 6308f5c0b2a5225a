"""The settings of the inner loop reach the learners."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from experiments.build import Workshop
from experiments.config import (
    BackboneSettings,
    EpisodeSettings,
    Experiment,
    FamilySettings,
    InnerSettings,
    OuterSettings,
)
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
