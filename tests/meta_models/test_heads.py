"""Heads: their initial rows, and the logits they give."""

from __future__ import annotations

import logging
import math

import pytest
import torch

from meta_models.errors import ModelError
from meta_models.heads import MASKED, SLOTS, Head, euclidean, linear, prototypes
from meta_models.params import stack

T, N, D = 2, 3, 4


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_prototypes_are_class_means_of_the_real_items() -> None:
    features = random(T, 5, D)
    labels = torch.tensor([[0, 2, 0, 1, -100], [1, 1, 1, -100, -100]])

    centers = prototypes(features, labels, N)

    torch.testing.assert_close(centers[0, 0], (features[0, 0] + features[0, 2]) / 2)
    torch.testing.assert_close(centers[0, 1], features[0, 3])
    torch.testing.assert_close(centers[0, 2], features[0, 1])
    torch.testing.assert_close(centers[1, 1], features[1, :3].mean(0))
    assert (centers[1, [0, 2]] == 0).all()


def test_padding_reaches_prototypes_by_no_gradient() -> None:
    features = random(1, 3, D).requires_grad_()
    (slope,) = torch.autograd.grad(
        prototypes(features, torch.tensor([[0, 1, -100]]), N).sum(), [features]
    )

    assert (slope[0, 2] == 0).all()
    assert (slope[0, :2] == 1).all()


def test_prototype_logits_are_squared_distances_up_to_a_constant() -> None:
    """-scale |f - p|^2 and the logits differ by -scale |f|^2, the same for every class."""
    features, centers = random(T, 6, D), random(T, N, D, seed=1)
    scale = torch.tensor([0.5, 7.0], dtype=torch.float64)
    values = euclidean(centers) | {"scale": scale.log()}

    logits = linear(values, features, torch.ones(T, N, dtype=torch.bool))

    distance = (features[:, :, None] - centers[:, None]).square().sum(-1)
    difference = logits + scale[:, None, None] * distance
    expected = (scale[:, None] * features.square().sum(-1))[..., None]
    torch.testing.assert_close(difference, expected.expand_as(difference))


def test_classes_that_a_task_does_not_have_get_no_probability_and_no_gradient() -> None:
    mask = torch.tensor([[True, True, True], [True, False, True]])
    values = {
        "head.weight": random(T, N, D).requires_grad_(),
        "head.bias": random(T, N, seed=1).requires_grad_(),
        "scale": torch.zeros(T, dtype=torch.float64),
    }

    logits = linear(values, random(T, 6, D, seed=2), mask)
    probability = logits.softmax(-1)
    rows, bias = torch.autograd.grad(
        probability.square().sum(), [values["head.weight"], values["head.bias"]]
    )

    assert (logits[1, :, 1] == MASKED).all()
    assert (probability[1, :, 1] == 0).all()
    assert (rows[1, 1] == 0).all() and bias[1, 1] == 0
    assert rows[1, 0].norm() > 0
    assert torch.tensor(MASKED).half().isfinite() and torch.tensor(MASKED).half().exp() == 0


@pytest.mark.parametrize("kind", ["prototype", "label", "slots", "zero"])
def test_the_scale_is_learned_as_its_logarithm(kind) -> None:
    state = Head(kind, D, scale=4.0).init(torch.Generator())

    assert state["scale"].item() == pytest.approx(math.log(4.0))
    assert set(state) == {"scale"} | ({"slots"} if kind == "slots" else set())


def test_slots_are_learned_rows_one_a_class_position() -> None:
    head = Head("slots", D)
    state = head.init(torch.Generator().manual_seed(0))
    same, other = (head.init(torch.Generator().manual_seed(seed)) for seed in (0, 1))

    start = head.start(stack(state, T), None, N)

    assert state["slots"].shape == (SLOTS, D)
    assert torch.equal(state["slots"], same["slots"])
    assert not torch.equal(state["slots"], other["slots"])
    assert torch.equal(start["head.weight"], state["slots"][:N].expand(T, N, D))
    assert (start["head.bias"] == 0).all() and start["head.bias"].shape == (T, N)
    assert head.start(stack(state, T), None, SLOTS)["head.weight"].shape == (T, SLOTS, D)


def test_more_classes_than_slots_are_refused() -> None:
    head = Head("slots", D)
    meta = stack(head.init(torch.Generator()), T)

    with pytest.raises(ModelError, match="64 rows, the task 65 classes"):
        head.start(meta, None, SLOTS + 1)


def test_a_zero_head_warns_and_is_zero(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        head = Head("zero", D)

    assert "first inner step null" in caplog.text
    start = head.start(stack(head.init(torch.Generator()), T), None, N)
    assert (start["head.weight"] == 0).all() and start["head.weight"].shape == (T, N, D)
    assert (start["head.bias"] == 0).all()


@pytest.mark.parametrize("kind", ["prototype", "label", "slots"])
def test_the_other_heads_do_not_warn(kind, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        Head(kind, D)

    assert caplog.text == ""


@pytest.mark.parametrize(
    ("kind", "scale", "message"),
    [
        ("prototypes", 1.0, "no head 'prototypes'; known: prototype, label, slots, zero"),
        ("prototype", 0.0, "scale 0.0 must be positive"),
    ],
)
def test_mistakes_are_named(kind, scale: float, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        Head(kind, D, scale)
