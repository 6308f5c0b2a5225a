"""Inner optimizers against torch.optim, the adjoint against the unrolled graph, truncation."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from meta_models.errors import ModelError
from meta_models.params import Params, leaves, stack
from metalearn.algorithms.imaml import IMAML
from metalearn.algorithms.maml import MAML
from metalearn.algorithms.maml_plus_plus import maml_plus_plus, multi_step_weights
from metalearn.algorithms.meta_curvature import Kronecker
from metalearn.inner.higher_engine import Higher
from metalearn.inner.loop import InnerLoop, inner_loop
from metalearn.inner.optimizers import SGD, Adam, Momentum, Optimizer
from metalearn.inner.rules import LearnedRates

OPTIMIZERS = {
    "sgd": (SGD(), lambda p: torch.optim.SGD(p, lr=0.1)),
    "momentum": (Momentum(0.8), lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.8)),
    "adam": (Adam(), lambda p: torch.optim.Adam(p, lr=0.1)),
}
optimizers = pytest.mark.parametrize("name", OPTIMIZERS)
LOOP = InnerLoop(steps=4, rates={"adapter": 0.02, "head": 0.02})


def rosenbrock(x: Tensor) -> Tensor:
    return (1 - x[0]).square() + 10 * (x[1] - x[0].square()).square()


@optimizers
def test_inner_optimizers_walk_as_those_of_torch(name) -> None:
    ours, theirs = OPTIMIZERS[name]
    x = torch.tensor([-0.5, 0.4], dtype=torch.float64)
    y = x.clone().requires_grad_()
    stepper = theirs([y])
    slots = ours.start({"x": x})
    for step in range(5):
        x = x.detach().requires_grad_()
        gradient = torch.autograd.grad(rosenbrock(x), x)[0]
        direction, slots = ours.direction({"x": gradient}, slots, step)
        x = x - 0.1 * direction["x"]
        y.grad = torch.autograd.grad(rosenbrock(y), y)[0]
        stepper.step()
        assert torch.allclose(x, y, rtol=1e-12, atol=1e-12)


@optimizers
def test_directions_of_zero_gradients_have_finite_derivatives(name) -> None:
    """Three steps in which one coordinate never has a gradient and another has one only later."""
    ours: Optimizer = OPTIMIZERS[name][0]
    scale = torch.ones(3, dtype=torch.float64, requires_grad=True)
    slots = ours.start({"x": scale})
    total = torch.zeros((), dtype=torch.float64)
    for step, gradient in enumerate(([0.0, 0.0, 1.0], [0.0, 2.0, 1.0], [0.0, -1.0, 3.0])):
        direction, slots = ours.direction({"x": scale * torch.tensor(gradient)}, slots, step)
        assert direction["x"].isfinite().all()
        total = total + direction["x"].sum()

    (slope,) = torch.autograd.grad(total, scale)

    assert slope.isfinite().all()
    assert slope[0] == 0.0


class Held:
    """A tensor that a graph holds."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


def gradient_of(made: MAML, state: Params, episode: Any, progress: float = 1.0) -> Params:
    return made.meta_gradient(state, episode, progress)[0]


def state_of(made: MAML, generic: Callable[..., Params]) -> Params:
    return generic(made.init(torch.Generator().manual_seed(0)))


@pytest.mark.parametrize("head", ["prototype", "slots"])
@pytest.mark.parametrize(
    "optimizer", [SGD(), Momentum(), Adam(epsilon=1e-2)], ids=lambda o: type(o).__name__
)
@pytest.mark.parametrize("learned", [None, LearnedRates(), LearnedRates("tensor", 4)])
@pytest.mark.parametrize("parts", [("adapter", "head"), ("head",), ("adapter",)])
@pytest.mark.parametrize("way", ["reverse", "forward"])
def test_the_adjoint_gradient_is_the_unrolled_one(
    head, optimizer, learned, parts, way, language_model, make_episode, generic
) -> None:
    """For every meta-parameter, with a query loss after each step, adapted or not."""
    rates = {name: LOOP.rates[name] for name in parts}
    loop = replace(LOOP, rates=rates, optimizer=optimizer, learned=learned)
    weights = {"query_weights": lambda progress: (0.1, 0.2, 0.0, 0.3, 0.4)}
    model, episode = language_model(head=head), make_episode()
    unrolled = MAML(model, loop, **weights)
    adjoint = MAML(model, replace(loop, gradient="adjoint", adjoint=way), **weights)
    state = state_of(unrolled, generic)

    expected = gradient_of(unrolled, state, episode)
    found = gradient_of(adjoint, state, episode)

    assert found.keys() == expected.keys() == state.keys()
    for key, value in expected.items():
        assert torch.allclose(found[key], value, rtol=1e-9, atol=1e-12), key


@pytest.mark.parametrize("graph", ["first", "unrolled", "adjoint"])
@pytest.mark.parametrize("parts", [("adapter", "head"), ("head",)])
@pytest.mark.parametrize("chunks", [2, 3, 20])
def test_parts_of_the_support_add_up_to_its_gradient(
    chunks, parts, graph, language_model, make_episode, generic
) -> None:
    """Also where K varies, so that some parts of a task are padding."""
    loop = replace(
        LOOP,
        rates={name: LOOP.rates[name] for name in parts},
        gradient="unrolled" if graph == "first" else graph,
    )
    model, episode = language_model(), make_episode()
    order = 1 if graph == "first" else 2
    whole = MAML(model, loop, order=order)
    parted = MAML(model, replace(loop, chunks=chunks), order=order)
    state = state_of(whole, generic)

    expected, found = (gradient_of(made, state, episode) for made in (whole, parted))
    for key, value in expected.items():
        assert torch.allclose(found[key], value, rtol=1e-9, atol=1e-12), key
    ours, theirs = (made.adapt(state, episode.support)[-1] for made in (whole, parted))
    for key, value in ours.items():
        assert torch.allclose(theirs[key], value, rtol=1e-9, atol=1e-12), key


def test_another_engine_takes_the_support_whole() -> None:
    with pytest.raises(ModelError, match=r"inner\.chunks to 1"):
        replace(LOOP, chunks=2, engine=Higher())


def test_an_unknown_device_is_timed_once_and_the_log_says_what_is_faster(
    language_model, make_episode, generic, monkeypatch, caplog
) -> None:
    monkeypatch.setattr("metalearn.inner.adjoint._faster", {})
    model, episode = language_model(), make_episode()
    made = MAML(model, replace(LOOP, gradient="adjoint"))
    state = state_of(made, generic)
    with caplog.at_level(logging.INFO):
        found = gradient_of(made, state, episode)
    expected = gradient_of(MAML(model, LOOP), state, episode)
    for key, value in expected.items():
        assert torch.allclose(found[key], value, rtol=1e-9, atol=1e-12), key
    said = [r.message for r in caplog.records if r.message.startswith("adjoint on cpu")]
    assert len(said) == 1 and "from now on" in said[0]


def test_the_adjoint_keeps_no_graph_of_the_steps(language_model, make_episode, generic) -> None:
    """What a backward holds on to, in adapters: the states alone, not what the steps computed."""
    model, episode = language_model(), make_episode()

    def kept(steps: int, gradient: Any) -> float:
        made = MAML(model, replace(LOOP, steps=steps, gradient=gradient))
        state = state_of(made, generic)
        adapted = sum(v.numel() for n, v in state.items() if n.startswith("adapter"))
        held: weakref.WeakSet[Held] = weakref.WeakSet()

        def pack(tensor: Tensor) -> Held:
            box = Held(tensor)
            held.add(box)
            return box

        meta = stack(leaves(state), episode.tasks)
        phi = model.start(meta, episode.support)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda box: box.tensor):
            path = inner_loop(model, phi, episode.support, made.loop, graph="second", meta=meta)
            assert len(path) == steps + 1
        return sum(box.tensor.numel() for box in held) / (episode.tasks * adapted)

    per_step = (kept(12, "adjoint") - kept(2, "adjoint")) / 10
    assert per_step < 3  # adapter and head
    assert kept(3, "unrolled") - kept(2, "unrolled") > 100 * per_step


def test_truncation_lies_between_first_and_second_order(
    language_model, make_episode, generic
) -> None:
    model, episode = language_model(), make_episode()
    exact, first = MAML(model, LOOP), MAML(model, LOOP, order=1)
    state = state_of(exact, generic)

    def truncated(steps: int) -> Params:
        return gradient_of(MAML(model, replace(LOOP, exact_steps=steps)), state, episode)

    second, one = gradient_of(exact, state, episode), gradient_of(first, state, episode)
    for key in state:
        assert torch.allclose(truncated(4)[key], second[key], rtol=1e-12, atol=1e-14)
        assert torch.allclose(truncated(0)[key], one[key], rtol=1e-12, atol=1e-14)

    def distance(gradient: Params) -> float:
        return sum(float((gradient[n] - second[n]).square().sum()) for n in state)

    distances = [distance(truncated(steps)) for steps in range(5)]
    assert distances[0] > distances[-1]
    assert distances[2] not in (distances[0], distances[-1])


def test_annealing_changes_the_order_once(language_model, make_episode, generic) -> None:
    model, episode = language_model(), make_episode()
    annealed = MAML(model, LOOP, first_order_until=0.3)
    state = state_of(annealed, generic)

    early, late = (gradient_of(annealed, state, episode, progress) for progress in (0.29, 0.3))

    first = gradient_of(MAML(model, LOOP, order=1), state, episode)
    second = gradient_of(MAML(model, LOOP), state, episode)
    assert all(torch.equal(early[n], first[n]) for n in state)
    assert all(torch.equal(late[n], second[n]) for n in state)


def test_first_order_rates_follow_the_gradients(language_model, make_episode, generic) -> None:
    """With d phi_S / d alpha = - sum_s g_s, d loss / d alpha = - grad . sum_s g_s."""
    loop = replace(LOOP, learned=LearnedRates("tensor"))
    model, episode = language_model(head="slots"), make_episode()
    made = MAML(model, loop, order=1)
    state = state_of(made, generic)

    gradient = gradient_of(made, state, episode)

    path = made.adapt(state, episode.support)
    last = {n: v.detach().requires_grad_() for n, v in path[-1].items()}
    loss = model.loss(last, episode.query).mean()
    for name in (n for n in state if n.startswith("adapter.") or n == "slots"):
        value = "head.weight" if name == "slots" else name
        (slope,) = torch.autograd.grad(loss, last[value], retain_graph=True)
        rate = state[f"rate.{value}"]
        total = (path[0][value] - path[-1][value]) / rate  # sum_s g_s
        expected = -(slope * total).sum()
        assert torch.allclose(gradient[f"rate.{value}"], expected, rtol=1e-9, atol=1e-14), value


def test_the_multi_step_loss_is_differentiated_exactly(
    language_model, make_episode, generic, check_gradient
) -> None:
    model, episode = language_model(), make_episode()
    made = maml_plus_plus(model, LOOP, multi_step_until=0.5, first_order_until=0.1)
    state = state_of(made, generic)

    gradient, figures = made.meta_gradient(state, episode, progress=0.2)

    def objective(state: Params) -> float:
        weights = multi_step_weights(0.2, LOOP.steps, 0.5)
        path = made.adapt(state, episode.support)
        losses = [model.loss(phi, episode.query).mean() for phi in path]
        return sum(w * loss.item() for w, loss in zip(weights, losses, strict=True))

    assert figures["loss"] == pytest.approx(objective(state), rel=1e-10)
    check_gradient(objective, state, gradient, coordinates=0)


@pytest.mark.parametrize("progress", [0.0, 0.03, 0.0999, 0.1, 1.0])
def test_multi_step_weights_sum_to_one_and_move_to_the_last(progress) -> None:
    weights = multi_step_weights(progress, steps=5, until=0.1)

    assert sum(weights) == pytest.approx(1.0, abs=1e-15)
    assert weights[0] == 0.0
    assert len(set(weights[1:-1])) == 1 and weights[-1] > weights[1] - 1e-15
    assert (weights[1] == 0.0) == (progress >= 0.1)


@pytest.mark.parametrize("full", [0, 3, 8])
def test_curvature_is_a_product_with_a_factor_of_each_axis(full) -> None:
    """M_out^T G M_in, the factors of long axes diagonal; rows of N classes are left alone."""
    generator = torch.Generator().manual_seed(0)
    curvature = Kronecker(full)
    shapes = {"adapter.a": (3, 5), "head.weight": (5,), "head.bias": ()}
    meta = {
        name: torch.randn(2, *value.shape, generator=generator)
        for name, value in curvature.init(shapes).items()
    }
    gradient = {
        "adapter.a": torch.randn(2, 3, 5, generator=generator),
        "head.weight": torch.randn(2, 4, 5, generator=generator),
        "head.bias": torch.randn(2, 4, generator=generator),
    }

    mapped = curvature(meta, gradient)

    for task in range(2):

        def factor(name: str, task: int = task) -> Tensor:
            found = meta[f"metric.{name}"][task]
            return found if found.dim() == 2 else found.diag()

        left, right = factor("adapter.a.axis0"), factor("adapter.a.axis1")
        assert torch.allclose(
            mapped["adapter.a"][task], left.T @ gradient["adapter.a"][task] @ right, atol=1e-5
        )
        rows = gradient["head.weight"][task] @ factor("head.weight.axis0")
        assert torch.allclose(mapped["head.weight"][task], rows, atol=1e-5)
        assert torch.equal(mapped["head.bias"][task], gradient["head.bias"][task])


@pytest.mark.parametrize("parts", [("adapter", "head"), ("head",)])
def test_implicit_gradients_are_finite_differences_at_the_optimum(
    parts, language_model, make_episode, generic, check_gradient, query_loss
) -> None:
    """For every meta-parameter, adapted or not, where the inner problem is solved."""
    model, episode = language_model(head="slots"), make_episode()
    loop = InnerLoop(steps=40, rates=dict.fromkeys(parts, 0.1))
    made = IMAML(model, loop, strength=5.0, solver_steps=40)
    state = generic(made.init(torch.Generator().manual_seed(0)), deviation=0.1)
    state["scale"] = state["scale"] / 10  # a flat support loss: 40 steps end at the optimum

    gradient, _ = made.meta_gradient(state, episode)

    check_gradient(lambda s: query_loss(made, s, episode), state, gradient, coordinates=0)
