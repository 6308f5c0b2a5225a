"""A backbone of half precision: stored once, and nothing that is learned is."""

from __future__ import annotations

import torch

from meta_models.adapters import Adapter
from meta_models.backbone import load_backbone
from meta_models.heads import Head
from meta_models.model import AdaptedModel
from meta_models.params import norm, stack
from metalearn.algorithms.maml import MAML
from metalearn.inner.loop import InnerLoop


def learner(dtype: torch.dtype, **loop) -> MAML:
    frozen = load_backbone("tiny-bert", dtype=dtype)
    model = AdaptedModel(Adapter(frozen, "lora", {"r": 2}), Head("slots", frozen.width))
    return MAML(model, InnerLoop(3, **loop))


def test_frozen_weights_are_half_and_learned_values_whole(make_episode) -> None:
    half = learner(torch.bfloat16)
    frozen = half.model.adapter.backbone  # pyright: ignore
    state = half.init(torch.Generator().manual_seed(0))
    adapted = half.adapt(state, make_episode().support)[-1]
    gradient, _ = half.meta_gradient(state, make_episode())

    learned = set(half.model.adapter.init(torch.Generator()))  # pyright: ignore
    stored = {
        parameter.dtype
        for name, parameter in half.model.adapter.model.named_parameters()  # pyright: ignore
        if name not in learned
    }
    assert stored == {torch.bfloat16} == {frozen.dtype}
    for values in (state, adapted, gradient):
        assert {value.dtype for value in values.values()} == {torch.float32}
    assert half.predict(adapted, make_episode().query).dtype == torch.float32


def test_its_meta_gradient_is_that_of_whole_precision_to_rounding(make_episode, generic) -> None:
    """bf16 has 8 bits: features agree to a few percent, meta-gradients in direction."""
    episode, found = make_episode(), {}
    for dtype in (torch.float32, torch.bfloat16):
        made = learner(dtype)
        state = generic(made.init(torch.Generator().manual_seed(0)), deviation=0.05)
        features = made.model.features(stack(state, 3), episode.support)
        found[dtype] = features, made.meta_gradient(state, episode)[0]

    (whole, expected), (half, gradient) = found.values()
    real = episode.support.example_mask
    assert (whole[real] * half[real]).sum(-1).min() > 0.99
    away = {name: gradient[name] - value for name, value in expected.items()}
    assert 0 < norm(away) < 0.2 * norm(expected)


def test_unrolled_and_adjoint_agree_in_half_precision(make_episode, generic) -> None:
    episode = make_episode()
    made = [learner(torch.bfloat16, gradient=way) for way in ("unrolled", "adjoint")]
    state = generic(made[0].init(torch.Generator().manual_seed(0)), deviation=0.05)
    one, other = (maml.meta_gradient(state, episode)[0] for maml in made)
    away = {name: other[name] - value for name, value in one.items()}
    assert norm(away) < 0.02 * norm(one)


def test_values_leave_as_they_were_learned(tmp_path) -> None:
    """An exported adapter is not rounded to the precision of the backbone."""
    half = learner(torch.bfloat16)
    adapter = half.model.adapter  # pyright: ignore
    values = adapter.init(torch.Generator().manual_seed(0))
    values = {name: value + 1e-4 * torch.pi for name, value in values.items()}
    adapter.export(values, tmp_path)
    read = adapter.read(tmp_path)
    assert all(torch.equal(read[name], value) for name, value in values.items())
