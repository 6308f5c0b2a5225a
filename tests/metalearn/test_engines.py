"""The inner loop as higher and learn2learn run it, against the native one."""

from __future__ import annotations

import sys
from dataclasses import replace
from importlib.machinery import PathFinder
from typing import Any

import pytest
import torch

from meta_models.adapters import Adapter
from meta_models.backbone import load_backbone
from meta_models.errors import ModelError
from meta_models.heads import Head
from meta_models.mlp import MLP
from meta_models.model import AdaptedModel
from meta_models.params import part, stack
from metalearn.algorithms.maml import MAML
from metalearn.algorithms.maml_plus_plus import maml_plus_plus
from metalearn.algorithms.meta_curvature import Kronecker, meta_curvature
from metalearn.inner.engines import Engine
from metalearn.inner.higher_engine import Higher
from metalearn.inner.learn2learn_engine import Learn2Learn, learn2learn
from metalearn.inner.loop import InnerLoop, inner_loop
from metalearn.inner.optimizers import SGD, Adam, Momentum
from metalearn.inner.rules import LearnedRates
from tests.metalearn.table import assert_near, assert_same, initial, needs_learn2learn

ENGINES = {"higher": Higher(), "learn2learn": Learn2Learn()}
engines = pytest.mark.parametrize(
    "engine", ["higher", pytest.param("learn2learn", marks=needs_learn2learn)]
)
RATES = {"adapter": 0.05, "head": 0.02}
LOOP = InnerLoop(2, RATES)
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}


def both(model: Any, loop: InnerLoop, engine: Engine, **settings: Any) -> tuple[MAML, MAML]:
    """The same learner over the native loop and over an engine."""
    return MAML(model, loop, **settings), MAML(model, replace(loop, engine=engine), **settings)


CASES: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "prototypes": ({}, ("adapter", "head")),
    "slots": ({"head": "slots"}, ("adapter", "head")),
    "head-only": ({}, ("head",)),
    "adapter-only": ({"head": "label"}, ("adapter",)),
    "decoder": ({"backbone": "tiny-gpt2"}, ("adapter", "head")),
}


@engines
@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("case", CASES)
def test_meta_gradients_are_those_of_the_native_loop(
    case, steps, order, engine, language_model, make_episode, generic
) -> None:
    """Of every meta-parameter, with a loss after each step, at one rate or at two."""
    options, parts = CASES[case]
    model = language_model(dtype=torch.float32, **options)
    rates = {name: RATES[name] if steps == 3 else 0.05 for name in parts}
    native, other = both(
        model,
        InnerLoop(steps, rates),
        ENGINES[engine],
        order=order,
        query_weights=lambda _: [0.1] * steps + [1.0],
        tasks_per_pass=2,
    )
    episode = make_episode()
    state = generic(initial(native))

    expected, figures = native.meta_gradient(state, episode)
    found, loss = other.meta_gradient(state, episode)

    assert loss["loss"] == pytest.approx(figures["loss"], rel=1e-6)
    assert_same(found, expected, 1e-5)


@engines
@pytest.mark.parametrize("order", [1, 2])
def test_meta_gradients_of_numeric_tasks(engine, order, sinusoids, generic) -> None:
    loop = InnerLoop(3, {"body": 0.001, "head": 0.002})
    for dtype, tolerance in TOLERANCE.items():
        native, other = both(MLP((1, 8, 8, 1)), loop, ENGINES[engine], order=order)
        state = {n: v.to(dtype) for n, v in generic(initial(native)).items()}
        assert_same(
            other.meta_gradient(state, sinusoids)[0],
            native.meta_gradient(state, sinusoids)[0],
            tolerance,
        )


@engines
@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize(
    "learned", [LearnedRates(), LearnedRates("tensor"), LearnedRates("tensor", steps=2)]
)
def test_learned_rates_have_the_same_meta_gradient(
    learned, order, engine, language_model, make_episode, generic
) -> None:
    loop = replace(LOOP, learned=learned)
    native, other = both(language_model(), loop, ENGINES[engine], order=order)
    state, episode = generic(initial(native)), make_episode()
    assert any(part(name) == "rate" for name in state)

    expected = native.meta_gradient(state, episode)[0]

    assert_same(other.meta_gradient(state, episode)[0], expected, 1e-10)


@engines
def test_truncated_meta_gradients_are_the_same(
    engine, language_model, make_episode, generic
) -> None:
    loop = replace(LOOP, steps=3, exact_steps=1)
    native, other = both(language_model(), loop, ENGINES[engine])
    state, episode = generic(initial(native)), make_episode()

    expected = native.meta_gradient(state, episode)[0]

    assert_same(other.meta_gradient(state, episode)[0], expected, 1e-10)


@engines
def test_maml_plus_plus_runs_in_an_engine(engine, language_model, make_episode, generic) -> None:
    native = maml_plus_plus(language_model(), LOOP)
    other = maml_plus_plus(language_model(), replace(LOOP, engine=ENGINES[engine]))
    state, episode = generic(initial(native)), make_episode()

    for progress in (0.05, 0.5):
        expected = native.meta_gradient(state, episode, progress)[0]
        assert_same(other.meta_gradient(state, episode, progress)[0], expected, 1e-10)


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("optimizer", [Momentum(0.8), Adam(), Adam(0.8, 0.9, 1e-3)])
@pytest.mark.parametrize("learned", [None, LearnedRates()])
def test_higher_has_momentum_and_adam(
    learned, optimizer, order, language_model, make_episode, generic
) -> None:
    rates = dict.fromkeys(RATES, 0.002)
    loop = InnerLoop(3, rates, optimizer, learned)
    native, other = both(language_model(), loop, Higher(), order=order)
    state, episode = generic(initial(native)), make_episode()

    expected = native.meta_gradient(state, episode)[0]

    assert_same(other.meta_gradient(state, episode)[0], expected, 1e-8)


def test_adam_of_higher_has_no_slope_where_no_gradient_was(language_model, make_episode) -> None:
    """A fresh LoRA: the first gradient of A is zero, where Adam's direction turns by 1/eps."""
    loop = InnerLoop(3, dict.fromkeys(RATES, 0.002), Adam())
    native, other = both(language_model(), loop, Higher())
    state, episode = initial(native), make_episode()

    expected = native.meta_gradient(state, episode)[0]

    assert_same(other.meta_gradient(state, episode)[0], expected, 1e-8)


def test_higher_runs_preconditioners(language_model, make_episode, generic) -> None:
    native = meta_curvature(language_model(), LOOP, full=8)
    other = meta_curvature(language_model(), replace(LOOP, engine=Higher()), full=8)
    state, episode = generic(initial(native)), make_episode()

    expected = native.meta_gradient(state, episode)[0]

    assert_same(other.meta_gradient(state, episode)[0], expected, 1e-10)


@engines
@pytest.mark.parametrize("parts", [("adapter", "head"), ("head",)])
def test_adaptation_without_a_graph_is_the_same(
    parts, engine, language_model, make_episode, generic
) -> None:
    loop = InnerLoop(3, {name: RATES[name] for name in parts}, learned=LearnedRates())
    native, other = both(language_model(), loop, ENGINES[engine])
    state, episode = generic(initial(native)), make_episode()

    expected = native.adapt(state, episode.support)
    found = other.adapt(state, episode.support)

    assert len(found) == 4
    for step, values in enumerate(expected):
        assert not any(value.requires_grad for value in found[step].values())
        assert found[step].keys() == values.keys()
        for name, value in values.items():
            assert_near(found[step][name], value, 1e-12, f"{name} {step}")


@engines
def test_known_features_are_used(engine, language_model, make_episode, monkeypatch) -> None:
    """Where the encoder stays, its features are computed once for all tasks and steps."""
    model, episode = language_model(head="slots"), make_episode()
    loop = InnerLoop(3, {"head": 0.1}, engine=ENGINES[engine])
    meta = stack(model.init(torch.Generator().manual_seed(0)), episode.tasks)
    phi = model.start(meta, episode.support)
    calls = []
    features = model.features
    monkeypatch.setattr(model, "features", lambda *a: calls.append(a) or features(*a))

    computed = inner_loop(model, phi, episode.support, loop, graph="none")
    assert len(calls) == 1
    known = features(meta, episode.support)
    given = inner_loop(model, phi, episode.support, loop, graph="none", features=known)
    twice = inner_loop(model, phi, episode.support, loop, graph="none", features=2 * known)

    assert len(calls) == 1
    assert torch.equal(computed[-1]["head.weight"], given[-1]["head.weight"])
    assert not torch.equal(given[-1]["head.weight"], twice[-1]["head.weight"])


@engines
@pytest.mark.parametrize("graph", ["none", "first", "second"])
def test_no_step_is_the_start(engine, graph, language_model, make_episode) -> None:
    model, episode = language_model(), make_episode()
    phi = model.start(stack(model.init(torch.Generator()), episode.tasks), episode.support)
    loop = InnerLoop(0, RATES, engine=ENGINES[engine])

    (only,) = inner_loop(model, phi, episode.support, loop, graph=graph)

    assert only.keys() == phi.keys()
    assert all(torch.equal(only[name], value) for name, value in phi.items())


@engines
def test_values_that_the_loss_does_not_use_stay(engine, make_episode, generic) -> None:
    """LoRA on the pooler, whose output no one reads."""
    backbone = load_backbone("tiny-bert", dtype=torch.float64)
    adapter = Adapter(backbone, "lora", {"r": 2, "target_modules": ["query", "pooler.dense"]})
    model, episode = AdaptedModel(adapter, Head("slots", backbone.width)), make_episode()
    for rates in (RATES, dict.fromkeys(RATES, 0.02)):
        native, other = both(model, InnerLoop(2, rates), ENGINES[engine])
        state = generic(initial(native))
        idle = [name for name in state if "pooler" in name]
        assert idle

        expected = native.meta_gradient(state, episode)[0]
        found = other.meta_gradient(state, episode)[0]

        assert all(not expected.pop(name).any() and not found.pop(name).any() for name in idle)
        assert_same(found, expected, 1e-10)


# --- what engines refuse ------------------------------------------------------------------------


@engines
def test_the_adjoint_is_refused(engine) -> None:
    with pytest.raises(
        ModelError, match=rf"{engine} has no adjoint; set inner.gradient to unrolled, or"
    ):
        InnerLoop(2, gradient="adjoint", engine=ENGINES[engine])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"optimizer": Adam()}, "set inner.optimizer to sgd, or inner.engine to higher"),
        (
            {"preconditioner": Kronecker()},
            "no preconditioner Kronecker; set inner.engine to higher or native",
        ),
    ],
)
@needs_learn2learn
def test_what_learn2learn_cannot_run_is_refused(settings, message) -> None:
    with pytest.raises(ModelError, match=message):
        InnerLoop(2, engine=Learn2Learn(), **settings)


def test_optimizers_that_higher_lacks_are_refused() -> None:
    class Lion(SGD):
        """An optimizer that only the native loop knows."""

    with pytest.raises(
        ModelError, match=r"higher has no optimizer Lion; set inner.optimizer to sgd"
    ):
        InnerLoop(2, optimizer=Lion(), engine=Higher())


def test_a_missing_learn2learn_is_named_with_its_remedy(monkeypatch) -> None:
    monkeypatch.setattr(PathFinder, "find_spec", lambda name: None)
    learn2learn.cache_clear()

    with pytest.raises(ModelError, match="learn2learn is not installed; `make install`"):
        InnerLoop(2, engine=Learn2Learn())


@needs_learn2learn
def test_loading_learn2learn_leaves_no_trace() -> None:
    """Who imports the whole package later gets the whole package."""
    learn2learn.cache_clear()
    sys.modules["learn2learn"] = mine = type(sys)("learn2learn")
    try:
        package = learn2learn()
        assert package is not mine
        assert sys.modules["learn2learn"] is mine
        assert [n for n in sys.modules if n.startswith("learn2learn.")] == []
    finally:
        del sys.modules["learn2learn"]
