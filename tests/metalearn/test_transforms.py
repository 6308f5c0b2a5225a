"""learn2learn's learnable transforms of the gradients, and its GBML that runs them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from meta_models.errors import ModelError
from meta_models.mlp import MLP
from meta_models.params import Params, norm, part, stack
from metalearn.algorithms.gbml import gbml
from metalearn.algorithms.maml import MAML
from metalearn.algorithms.meta_curvature import Kronecker
from metalearn.inner.engines import SupportLoss
from metalearn.inner.learn2learn_engine import Learn2Learn, learn2learn, named_transform
from metalearn.inner.loop import InnerLoop
from metalearn.inner.optimizers import Adam
from metalearn.inner.rules import LearnedRates
from tests.metalearn.table import assert_near, assert_same, initial, needs_learn2learn

pytestmark = needs_learn2learn
TRANSFORMS = ("kronecker", "curvature", "linear")
LOOP = InnerLoop(3, dict.fromkeys(("body", "head"), 0.001))


@pytest.mark.parametrize("kind", TRANSFORMS)
def test_transformed_meta_gradients_are_finite_differences(
    kind, language_model, make_episode, generic, query_loss, check_gradient
) -> None:
    made = gbml(language_model(head="slots"), InnerLoop(2), named_transform(kind))
    state, episode = generic(initial(made)), make_episode(tasks=1)

    gradient, _ = made.meta_gradient(state, episode)

    check_gradient(lambda s: query_loss(made, s, episode), state, gradient, coordinates=0)
    assert {part(name) for name in state} >= {"adapter", "metric"}
    assert all(norm({name: value}) > 0 for name, value in gradient.items())


@pytest.mark.parametrize("kind", TRANSFORMS)
def test_a_fresh_transform_is_none(kind, sinusoids, generic) -> None:
    plain = MAML(MLP((1, 8, 8, 1)), LOOP)
    made = gbml(MLP((1, 8, 8, 1)), LOOP, named_transform(kind))
    fresh = {n: v.double() for n, v in initial(made).items()}
    state = {n: v for n, v in fresh.items() if part(n) != "metric"}

    for order in (1, 2):
        plain.order = made.order = order
        found, expected = (m.meta_gradient(fresh, sinusoids)[0] for m in (made, plain))
        assert {part(name) for name in found} - {part(name) for name in state} == {"metric"}
        assert_same({n: found[n] for n in state}, {n: expected[n] for n in state}, 1e-12)


@pytest.mark.parametrize("order", [1, 2])
def test_curvature_of_learn2learn_is_the_native_one(
    order, language_model, make_episode, generic
) -> None:
    """The same factors: M_in is the transpose of axis 0, the factor of a row its diagonal."""
    loop = InnerLoop(2, dict.fromkeys(("adapter", "head"), 0.05))
    model, episode = language_model(), make_episode()
    native = MAML(model, replace(loop, preconditioner=Kronecker(full=64)), order=order)
    made = gbml(model, loop, named_transform("curvature"), order=order)
    state = generic(initial(native))
    row = "metric.head.weight.axis0"
    state[row] = state[row].diagonal().diag()

    def renamed(params: Params) -> Params:
        theirs = {}
        for name, value in params.items():
            owner, _, axis = name.rpartition(".axis")
            if not owner:
                theirs[name] = value
            elif name == row:
                theirs[f"{owner}.mc"] = value.diagonal()
            elif axis == "0":
                theirs[f"{owner}.mc_in"] = value.T
            else:
                theirs[f"{owner}.mc_out"] = value
        return theirs

    expected = renamed(native.meta_gradient(state, episode)[0])

    assert_same(made.meta_gradient(renamed(state), episode)[0], expected, 1e-10)


def test_any_module_of_a_parameter_is_a_transform(language_model, make_episode) -> None:
    """A network with a random start: always the same one, and no random number is used up."""

    def layers(n: int, m: int) -> torch.nn.Module:
        return torch.nn.Sequential(torch.nn.Linear(n, 3), torch.nn.Tanh(), torch.nn.Linear(3, m))

    states = []
    for seed in (1, 2):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = learn2learn().optim.ModuleTransform(layers)
            made = gbml(language_model(), InnerLoop(2), network)
            before = torch.get_rng_state()
            states.append(initial(made))
            gradient, _ = made.meta_gradient(states[-1], make_episode())
            assert torch.equal(torch.get_rng_state(), before)

    first, again = states
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert "metric.head.weight.transform.2.bias" in first
    assert not any(name.startswith("metric.head.bias") for name in first)
    assert all(norm({n: g}) > 0 for n, g in gradient.items() if n.startswith("metric.head"))


def test_their_learnable_optimizer_takes_the_same_steps(sinusoids, generic) -> None:
    """On the module that engines use; it cuts the graph at each step, so only values compare."""
    model, support = MLP((1, 6, 5, 1)), sinusoids.select(0, 1).support
    made = gbml(model, LOOP, named_transform("curvature"))
    state = {n: v.double() for n, v in generic(initial(made)).items()}
    expected = made.adapt(state, support)[-1]

    values = {n: v for n, v in state.items() if part(n) != "metric"}
    module = SupportLoss(lambda phi: model.loss(stack(phi, 1), support).sum(), values)
    package = learn2learn()
    stepper = package.optim.LearnableOptimizer(module, named_transform("curvature"), lr=0.001)
    for name, transform in zip(values, stepper.transforms, strict=True):
        for key, parameter in transform.named_parameters():
            parameter.data = state[f"metric.{name}.{key}"]
    for _ in range(3):
        stepper.zero_grad()
        module().backward()
        stepper.step()

    for name, value in module.values().items():
        assert_near(value, expected[name][0], 1e-12, name)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rates": {"body": 0.1, "head": 0.2}}, "one fixed rate .* set inner.head_rate to inner"),
        ({"learned": LearnedRates()}, "one fixed rate"),
        ({"optimizer": Adam()}, "plain gradient steps; set inner.optimizer to sgd$"),
        ({"gradient": "adjoint"}, "no adjoint; set inner.gradient to unrolled$"),
    ],
)
def test_what_gbml_cannot_do_is_refused(settings, message) -> None:
    with pytest.raises(ModelError, match=f"learn2learn's GBML .*{message}"):
        gbml(MLP(), replace(LOOP, **settings), named_transform("linear"))


def test_a_transform_refuses_shapes_that_it_does_not_know() -> None:
    engine = Learn2Learn(named_transform("curvature"))
    with pytest.raises(ModelError, match=r"does not take values of shape \[2, 3, 4\]; choose"):
        engine.init({"adapter.a": (2, 3, 4)})
