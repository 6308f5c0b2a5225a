"""Properties of meta-training, for every row of the common table."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from meta_models.params import norm
from metalearn.learner import Learner
from metalearn.training import MetaTraining, OuterLoop
from tasks.episode import Episode
from tests.metalearn.table import TABLE, initial, learner, model_of, rows


def training(made: Learner, make_episode: Callable[..., Episode]) -> MetaTraining:
    return MetaTraining(
        made,
        lambda step: make_episode(tasks=2, first=2 * step),
        lambda state: -float(norm(state)),
        OuterLoop(steps=5, tasks=2, rate=0.01, warmup=2, weight_decay=0.01, validate_every=2),
        torch.Generator().manual_seed(0),
    )


@rows(lambda row: row.gradient)
def test_a_restored_training_goes_on_bit_for_bit(name, language_model, make_episode) -> None:
    def fresh() -> MetaTraining:
        made = learner(name, language_model, dtype=torch.float32, tasks=2)
        return training(made, make_episode)

    whole = fresh()
    for _ in range(2):
        whole.take_step()
    tensors, numbers = whole.snapshot()
    tensors = {n: value.clone() for n, value in tensors.items()}
    rest = [figures_of(whole) for _ in range(3)]

    again = fresh()
    again.restore(tensors, numbers)
    assert [figures_of(again) for _ in range(3)] == rest

    ours, theirs = again.snapshot(), whole.snapshot()
    assert ours[1] == theirs[1]
    assert ours[0].keys() == theirs[0].keys()
    assert all(torch.equal(value, theirs[0][n]) for n, value in ours[0].items())
    assert whole.done and again.done


def figures_of(training: MetaTraining) -> dict[str, float]:
    """The figures of one meta-step but its wall-clock time."""
    return {n: v for n, v in training.take_step().items() if n != "seconds"}


@rows(lambda row: row.gradient)
def test_meta_training_moves_every_meta_parameter(name, language_model, make_episode) -> None:
    made = learner(name, language_model, dtype=torch.float32, tasks=2)
    run = training(made, make_episode)
    before = {n: v.clone() for n, v in run.state.items()}

    for _ in range(2):
        run.take_step()

    assert before.keys() == run.state.keys()
    assert not [n for n in before if torch.equal(before[n], run.state[n])]


@rows(lambda row: not row.gradient)
def test_learners_without_a_meta_gradient_say_so(name, language_model, make_episode) -> None:
    made = learner(name, language_model)

    assert not made.trains
    with pytest.raises(TypeError, match="nothing to meta-train"):
        made.meta_gradient(initial(made), make_episode())


@rows()
def test_the_seed_alone_decides_the_initial_state(name, language_model) -> None:
    made = learner(name, language_model)
    first, same, other = initial(made), initial(made), initial(made, seed=1)

    assert first.keys() == same.keys() == other.keys()
    assert all(torch.equal(first[n], same[n]) for n in first)
    assert made.random == any(not torch.equal(first[n], other[n]) for n in first)


@rows()
@pytest.mark.parametrize("backbone", ["tiny-bert", "tiny-gpt2", "tiny-llama"])
def test_each_learner_trains_and_adapts_on_encoders_and_decoders(
    name, backbone, language_model, make_episode
) -> None:
    made = learner(
        name, language_model, backbone=backbone, dtype=torch.float32, tasks=2, rate=0.005
    )
    episode = make_episode(tasks=2)
    state = initial(made)
    if made.trains:
        run = training(made, make_episode)
        run.take_step()
        run.take_step()
        assert all(value.isfinite().all() for value in run.state.values())
        state = run.state

    path = made.adapt(state, episode.support)

    outputs = [made.predict(adapted, episode.support) for adapted in path]
    assert all(logits.isfinite().all() for logits in outputs)
    assert made.predict(path[-1], episode.query).shape[:2] == episode.query.ids.shape
    if TABLE[name].descends:
        first, last = (model_of(made).loss(path[step], episode.support) for step in (0, -1))
        assert (last < first).all()
