"""Features of shared parameters: in one pass, and kept."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from meta_models import clock
from meta_models.features import FeatureStore, shared_features
from meta_models.model import AdaptedModel
from meta_models.params import Params, stack
from tasks.episode import Batch

TASKS = 3


class Counting:
    """A model that counts the rows whose features it was asked for."""

    encoder = ("adapter",)

    def __init__(self, model: AdaptedModel) -> None:
        self.model = model
        self.rows = 0

    def features(self, values: Params, batch: Batch) -> Tensor:
        self.rows += batch.ids.numel()
        return self.model.features(values, batch)


@pytest.fixture
def counting(language_model: Callable[..., AdaptedModel]) -> Counting:
    return Counting(language_model())


@pytest.fixture
def state(language_model, generic) -> Params:
    return generic(language_model().init(torch.Generator().manual_seed(0)))


def records(*batches: Batch) -> set[int]:
    return {i for batch in batches for i in batch.ids.flatten().tolist() if i >= 0}


def test_shared_features_are_those_of_every_task(
    language_model, make_episode, state: Params
) -> None:
    model, batch = language_model(), make_episode(TASKS).support
    theta = {n: v.clone().requires_grad_() for n, v in state.items()}

    ours = shared_features(model, theta, batch)
    plain = model.features(stack(theta, TASKS), batch)

    real = batch.example_mask
    torch.testing.assert_close(ours[real], plain[real], rtol=1e-10, atol=1e-12)
    adapter = [v for n, v in theta.items() if n.startswith("adapter.")]
    weight = torch.randn_like(plain)[real]
    for found, expected in zip(
        *(torch.autograd.grad((weight * f[real]).sum(), adapter) for f in (ours, plain)),
        strict=True,
    ):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


def test_kept_features_are_the_direct_ones(counting, make_episode, state: Params) -> None:
    store, episode = FeatureStore(counting), make_episode(TASKS)

    for batch in (episode.support, episode.query, episode.support):
        kept = store.features(state, batch)
        direct = shared_features(counting.model, state, batch)
        real = batch.example_mask
        torch.testing.assert_close(kept[real], direct[real], rtol=1e-10, atol=1e-12)
        assert (kept[~real] == 0).all()
        assert (~real).any()
        assert not kept.requires_grad


def test_each_record_is_computed_once(counting, make_episode, state: Params) -> None:
    store, first, second = FeatureStore(counting), make_episode(TASKS), make_episode(TASKS, seed=1)

    for episode in (first, second, first):
        store.features(state, episode.support)
        store.features(state, episode.query)

    seen = records(first.support, first.query, second.support, second.query)
    assert counting.rows == len(seen)
    assert counting.rows < 2 * sum(int(b.example_mask.sum()) for b in (first.support, first.query))


def test_other_values_in_the_same_tensors_are_noticed(
    counting, make_episode, state: Params
) -> None:
    """As an optimizer leaves them: changed in place."""
    store, batch = FeatureStore(counting), make_episode(TASKS).support
    values = list(state.values())
    optimizer = torch.optim.SGD(values, lr=0.1)
    before = store.features(state, batch)

    for value in values:
        value.grad = torch.ones_like(value)
    optimizer.step()
    after = store.features(state, batch)

    real = batch.example_mask
    assert not torch.allclose(before[real], after[real])
    torch.testing.assert_close(after[real], shared_features(counting.model, state, batch)[real])


def test_other_tensors_are_noticed(counting, make_episode, state: Params, generic) -> None:
    store, batch = FeatureStore(counting), make_episode(TASKS).support
    other = generic(state, seed=7)
    store.features(state, batch)

    found = store.features(other, batch)

    real = batch.example_mask
    torch.testing.assert_close(found[real], shared_features(counting.model, other, batch)[real])


def test_what_features_do_not_depend_on_is_not_noticed(
    counting, make_episode, state: Params
) -> None:
    """The head's scale changes; the features are kept."""
    store, batch = FeatureStore(counting), make_episode(TASKS).support
    store.features(state, batch)
    rows = counting.rows

    state["scale"] += 1.0
    store.features(state | {"scale": state["scale"].clone()}, batch)

    assert counting.rows == rows


def test_records_of_two_families_are_not_mixed_up(counting, make_episode, state: Params) -> None:
    from dataclasses import replace

    store, batch = FeatureStore(counting), make_episode(TASKS).support
    store.features(state, batch)
    rows = counting.rows

    store.features(state, replace(batch, source=("other",) * TASKS))

    assert counting.rows == 2 * rows


def test_kept_features_take_the_time_that_they_took(counting, state, make_episode, monkeypatch):
    """The second of two learners is charged what computing has cost the first."""
    seconds = iter(range(1000))
    monkeypatch.setattr(clock.time, "process_time", lambda: float(next(seconds)))
    store, batch = FeatureStore(counting), make_episode().support

    spent = []
    for _ in range(2):
        before = clock._charged
        store.features(state, batch)
        spent.append(clock._charged - before)
    assert spent == [0.0, pytest.approx(1.0)]  # computing stood between two looks at the clock
