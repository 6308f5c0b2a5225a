"""learn2learn, where it is installed, serves as a second implementation of MAML."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from meta_models.errors import ModelError
from metalearn.inner.learn2learn_engine import learn2learn

RATE = 0.1


@pytest.fixture
def algorithms() -> Any:
    """`learn2learn.algorithms`; the test skips where learn2learn is not installed."""
    try:
        return learn2learn().algorithms
    except ModelError as missing:
        pytest.skip(str(missing))


def _linear(weight: list[float]) -> torch.nn.Linear:
    model = torch.nn.Linear(len(weight), 1, bias=False).double()
    with torch.no_grad():
        model.weight.copy_(torch.tensor([weight]))
    return model


def _loss(model: torch.nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return (model(x) - y).square().mean()


def test_adapting_a_clone_is_a_gradient_step_and_leaves_the_original(algorithms: Any) -> None:
    model = _linear([1.0, -2.0])
    x = torch.tensor([[1.0, 2.0], [3.0, -1.0]], dtype=torch.float64)
    y = torch.tensor([[1.0], [2.0]], dtype=torch.float64)
    (gradient,) = torch.autograd.grad(_loss(model, x, y), [model.weight])

    clone = algorithms.MAML(model, lr=RATE).clone()
    clone.adapt(_loss(clone, x, y))

    torch.testing.assert_close(clone.module.weight, model.weight - RATE * gradient)
    assert model.weight.tolist() == [[1.0, -2.0]]


def test_meta_gradient_on_a_quadratic_is_second_order(algorithms: Any) -> None:
    """d/dw L_query(w - a L_support'(w)) = (I - a H_support) L_query'(w')."""
    model = _linear([1.0, -2.0])
    support = torch.tensor([[1.0, 2.0], [3.0, -1.0]], dtype=torch.float64)
    query = torch.tensor([[2.0, 1.0]], dtype=torch.float64)
    target = torch.zeros(1, 1, dtype=torch.float64)

    clone = algorithms.MAML(model, lr=RATE).clone()
    clone.adapt(_loss(clone, support, target.expand(2, 1)))
    _loss(clone, query, target).backward()

    adapted = clone.module.weight.detach()
    hessian = 2 * support.T @ support / len(support)
    at_adapted = 2 * (adapted @ query.T) @ query
    expected = at_adapted @ (torch.eye(2, dtype=torch.float64) - RATE * hessian)
    torch.testing.assert_close(model.weight.grad, expected)


def test_parameters_that_do_not_train_are_left_alone(algorithms: Any) -> None:
    frozen = _linear([1.0, 1.0]).requires_grad_(False)
    model = torch.nn.Sequential(frozen, _linear([0.5]))
    x = torch.tensor([[1.0, 2.0]], dtype=torch.float64)

    clone = algorithms.MAML(model, lr=RATE, allow_nograd=True).clone()
    clone.adapt(_loss(clone, x, torch.zeros(1, 1, dtype=torch.float64)))

    assert clone.module[0].weight.tolist() == [[1.0, 1.0]]
    assert clone.module[1].weight.item() != 0.5
