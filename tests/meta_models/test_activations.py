"""Closed second derivatives are those of PyTorch, to rounding, in values of every precision."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.autograd import forward_ad, grad, gradcheck, gradgradcheck
from transformers.activations import ACT2FN

from meta_models.activations import Closed


def _layer(closed: bool) -> nn.Module:
    layer = nn.Sequential(ACT2FN["gelu"])
    if not closed:
        return layer
    found = Closed(layer)
    for module in found._modules:
        module.closed = True
    return layer


def test_derivatives_equal_central_differences() -> None:
    x = torch.linspace(-4, 4, 9, dtype=torch.float64, requires_grad=True)
    assert gradcheck(_layer(True), x) and gradgradcheck(_layer(True), x)


def test_tangents_through_the_backward_equal_the_backward_of_the_backward() -> None:
    layer = _layer(True)
    x, v = torch.randn(2, 7, dtype=torch.float64)
    with forward_ad.dual_level():
        at = forward_ad.make_dual(x, v)
        slope = grad((layer(at.requires_grad_()) ** 2).sum(), at)[0]
        forward = forward_ad.unpack_dual(slope).tangent
    x.requires_grad_()
    slope = grad((layer(x) ** 2).sum(), x, create_graph=True)[0]
    torch.testing.assert_close(forward, grad(slope, x, v)[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_all_but_the_curvature_is_pytorchs_own_bit_for_bit(dtype) -> None:
    inputs = torch.randn(3, 500, dtype=dtype, generator=torch.Generator().manual_seed(0))

    def derivatives(closed: bool, inputs: torch.Tensor) -> list[torch.Tensor]:
        x, g, v = inputs
        x, g = x.clone().requires_grad_(), g.clone().requires_grad_()
        y = _layer(closed)(x)
        slope = grad(y, x, g, create_graph=True)[0]
        return [y, slope, *grad(slope, (g, x), v)]

    (*mine, bend), (*theirs, usual) = derivatives(True, inputs), derivatives(False, inputs)
    assert all(torch.equal(a, b) for a, b in zip(mine, theirs, strict=True))
    exact = derivatives(False, inputs.double())[-1]
    assert (bend - exact).norm() < 1.5 * (usual - exact).norm()


def test_it_is_closed_where_asked_alone_and_leaves_other_activations() -> None:
    model = nn.Sequential(nn.GELU(), nn.GELU("tanh"), nn.ReLU())
    closed, again = Closed(model), Closed(model)
    assert [type(m).__name__ for m in model] == ["_GELU", "GELU", "ReLU"]
    x = torch.ones(1, requires_grad=True)
    for one in (closed, again):
        with one.active():
            assert "_Value" in type(model[0](x).grad_fn).__name__
        assert "Gelu" in type(model[0](x).grad_fn).__name__


def test_a_third_derivative_is_exact_too() -> None:
    found = []
    for closed in (True, False):
        x = torch.linspace(-3, 3, 7, dtype=torch.float64).requires_grad_()
        derivative = _layer(closed)(x)
        for _ in range(3):
            derivative = grad(derivative.sum(), x, create_graph=True)[0]
        found.append(derivative)
    torch.testing.assert_close(*found)
