"""Properties of adaptation, for every row of the common table."""

from __future__ import annotations

import pytest
import torch

from meta_models.params import Params, part, stack
from metalearn.learner import in_passes
from tests.metalearn.table import (
    HEADS,
    TABLE,
    TASKS,
    assert_near,
    initial,
    learner,
    model_of,
    model_state,
    models,
    numeric_learner,
    rows,
    rows_and_heads,
)


@rows_and_heads(lambda row: row.descends)
def test_each_step_lowers_the_support_loss_of_each_task(
    name, head, language_model, make_episode
) -> None:
    made = learner(name, language_model, head=head, rate=0.02)
    episode = make_episode()

    path = made.adapt(initial(made), episode.support)

    losses = torch.stack([model_of(made).loss(phi, episode.support) for phi in path])
    assert len(path) == (2 if name == "maml-one-step" else 3)
    assert (losses[1:] < losses[:-1]).all(), losses


@models
def test_each_step_lowers_the_support_loss_with_each_adapter(
    backbone, method, language_model, make_episode
) -> None:
    model = language_model(backbone, method)
    made = learner(
        "maml", language_model, backbone=backbone, method=method, rate=0.005,
        tasks=TASKS if model.batched else 1,
    )  # fmt: skip
    for episode in in_passes(make_episode(), made.tasks_per_pass):
        path = made.adapt(initial(made), episode.support)
        losses = torch.stack([model.loss(phi, episode.support) for phi in path])
        assert (losses[1:] < losses[:-1]).all(), losses


@rows(lambda row: row.descends and row.numeric)
def test_each_step_lowers_the_support_loss_of_numeric_tasks(name, sinusoids, generic) -> None:
    made = numeric_learner(name)
    state = {n: v.double() for n, v in generic(initial(made)).items()}

    path = made.adapt(state, sinusoids.support)

    losses = torch.stack([model_of(made).loss(phi, sinusoids.support) for phi in path])
    assert (losses[1:] < losses[:-1]).all(), losses


@rows(lambda row: row.descends)
def test_no_step_is_the_start(name, language_model, make_episode) -> None:
    made = learner(name, language_model, steps=0)
    episode, state = make_episode(), initial(made)

    path = made.adapt(state, episode.support)

    start = model_of(made).start(stack(model_state(state), TASKS), episode.support)
    assert len(path) == 1
    assert path[0].keys() == start.keys()
    for key, value in start.items():
        assert_near(path[0][key], value, 1e-12, key)


@rows(lambda row: not row.descends)
def test_learners_without_steps_have_one_answer(name, language_model, make_episode) -> None:
    made = learner(name, language_model)

    assert len(made.adapt(initial(made), make_episode().support)) == 1


@rows(lambda row: row.descends)
def test_adaptation_goes_on_from_given_values(name, language_model, make_episode) -> None:
    """Two steps from the values after none are the two steps."""
    made = learner(name, language_model, head=TABLE[name].heads[:2][-1])
    episode, state = make_episode(), initial(made)
    whole = made.adapt(state, episode.support)

    start = {n: v for n, v in whole[0].items() if part(n) == "adapter"}
    again = made.adapt(state, episode.support, start)
    elsewhere = made.adapt(state, episode.support, {n: v + 0.1 for n, v in start.items()})

    for key, value in whole[-1].items():
        assert_near(again[-1][key], value, 1e-12, key)
    assert not torch.equal(elsewhere[-1]["head.weight"], whole[-1]["head.weight"])


@rows()
def test_adaptation_leaves_no_graph_and_the_state_alone(name, language_model, make_episode) -> None:
    made = learner(name, language_model)
    episode, state = make_episode(), initial(made)
    before = {n: value.clone() for n, value in state.items()}

    adapted = made.adapt(state, episode.support)[-1]
    outputs = made.predict(adapted, episode.query)

    assert not outputs.requires_grad
    if isinstance(adapted, dict):
        assert not any(value.requires_grad for value in adapted.values())
    assert all(torch.equal(state[n], before[n]) for n in state)


@models
@pytest.mark.parametrize("head", HEADS)
def test_the_adapter_moves_at_the_first_step(
    backbone, method, head, language_model, make_episode
) -> None:
    made = learner(
        "maml", language_model, backbone=backbone, method=method, head=head, steps=1, tasks=1
    )

    before, after = made.adapt(initial(made), make_episode(tasks=1).support)

    assert moved(before, after) > 1e-6


def test_the_zero_head_has_a_null_first_step(language_model, make_episode) -> None:
    made = learner("maml", language_model, head="zero")

    before, after, later = made.adapt(initial(made), make_episode().support)

    assert moved(before, after) == 0.0
    assert not torch.equal(before["head.weight"], after["head.weight"])
    assert moved(after, later) > 0.0


def moved(before: Params, after: Params) -> float:
    """How far the adapter's values went."""
    return max((after[n] - before[n]).abs().max().item() for n in before if part(n) == "adapter")
