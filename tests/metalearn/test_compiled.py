"""Compiled functions equal what they were traced from, and give way where there can be no graph."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor

from meta_models.mlp import MLP
from meta_models.params import Params
from metalearn.algorithms.cavia import cavia
from metalearn.algorithms.maml import MAML
from metalearn.algorithms.maml_plus_plus import maml_plus_plus
from metalearn.algorithms.meta_curvature import meta_curvature
from metalearn.algorithms.meta_sgd import meta_sgd
from metalearn.compiled import Compiler
from metalearn.inner.loop import InnerLoop
from metalearn.inner.optimizers import Adam
from metalearn.training import MetaTraining, OuterLoop
from tasks.episode import Episode, EpisodeShape, TaskStream, tensors
from tasks.sources.sinusoid import Sinusoid

SIZES = (1, 5, 1)
RATES = {"body": 0.05, "head": 0.02}

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
own_warnings = pytest.mark.filterwarnings(
    "ignore:`torch.jit:DeprecationWarning"
)  # torch's, of torch


@pytest.fixture(autouse=True, scope="module")
def caches(tmp_path_factory):
    """What the compiler keeps goes to a folder of the tests; one process compiles."""
    from torch._inductor import config

    with pytest.MonkeyPatch.context() as patch, config.patch(compile_threads=1):
        patch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path_factory.mktemp("compiled")))
        yield


def draw(first: int, tasks: int = 3) -> Episode:
    stream = TaskStream(Sinusoid(), "train", EpisodeShape(shots=4, queries=6), seed=0)
    episode = stream.episode(range(first, first + tasks))
    assert episode is not None
    return episode.map(lambda x: x.double() if x.is_floating_point() else x)


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What the compiler logged; torch traces its own work in the same log."""
    return [r.getMessage() for r in caplog.records if r.name == "metalearn.compiled"]


LEARNERS: dict[str, Callable[[], MAML]] = {
    "maml": lambda: MAML(MLP(SIZES), InnerLoop(3, RATES)),
    "fomaml": lambda: MAML(MLP(SIZES), InnerLoop(3, RATES), order=1),
    "anil": lambda: MAML(MLP(SIZES), InnerLoop(3, {"head": 0.02})),
    "truncated": lambda: MAML(MLP(SIZES), InnerLoop(3, RATES, exact_steps=1)),
    "adjoint": lambda: MAML(MLP(SIZES), InnerLoop(3, RATES, gradient="adjoint")),
    "adam": lambda: MAML(MLP(SIZES), InnerLoop(2, RATES, optimizer=Adam(epsilon=1e-2))),
    "meta-sgd": lambda: meta_sgd(MLP(SIZES), InnerLoop(2, RATES)),
    "maml++": lambda: maml_plus_plus(MLP(SIZES), InnerLoop(2, RATES), first_order_until=0.0),
    "meta-curvature": lambda: meta_curvature(MLP(SIZES), InnerLoop(2, RATES)),
    "cavia": lambda: cavia(MLP(SIZES, context=2), InnerLoop(2, {"context": 0.5})),
    "clamped": lambda: MAML(MLP(SIZES), InnerLoop(2, RATES), clamp=0.1),
}


def check(name: str, generic: Callable[..., Params]) -> None:
    """Meta-gradients on other tasks and values than those the graph was traced on."""
    learner, plain = LEARNERS[name](), LEARNERS[name]()
    learner.compiler = Compiler(name, limit=1)
    state = learner.init(torch.Generator().manual_seed(0))
    state = generic({n: v.double() for n, v in state.items()})
    for first, progress in ((0, 0.02), (3, 0.05)):
        episode = draw(first)
        found, figures = learner.meta_gradient(state, episode, progress)
        expected, others = plain.meta_gradient(state, episode, progress)
        assert list(found) == list(expected)
        for part, gradient in expected.items():
            torch.testing.assert_close(found[part], gradient, rtol=1e-10, atol=1e-12)
        assert figures["losses"] == pytest.approx(others["losses"], rel=1e-12)
        assert figures["loss"] == pytest.approx(others["loss"], rel=1e-12)
        state = generic(state, seed=1)


@pytest.mark.parametrize("name", LEARNERS)
def test_the_traced_meta_gradient_is_the_plain_one(name, generic, monkeypatch, caplog) -> None:
    made = []
    monkeypatch.setattr(torch, "compile", lambda graph, **_: made.append(graph) or graph)
    check(name, generic)
    assert len(made) == 1 and said(caplog) == []


@needs_compiler
@own_warnings
def test_a_compiled_training_is_exact_and_goes_on_bit_for_bit(caplog) -> None:
    """The only test of what the C++ compiler makes, since that takes its time."""

    def fresh() -> MetaTraining:
        learner, start = LEARNERS["maml"](), LEARNERS["maml"]().init
        learner.compiler = Compiler("maml", limit=1)
        learner.init = lambda generator: {n: v.double() for n, v in start(generator).items()}
        loop = OuterLoop(steps=4, rate=0.1)
        generator = torch.Generator().manual_seed(0)
        return MetaTraining(learner, lambda step: draw(3 * step), None, loop, generator)

    whole, first, second = fresh(), fresh(), fresh()
    for _ in range(4):
        expected, _ = LEARNERS["maml"]().meta_gradient(whole.state, draw(30))
        found, _ = whole.learner.meta_gradient(whole.state, draw(30))
        for name, gradient in expected.items():
            torch.testing.assert_close(found[name], gradient, rtol=1e-10, atol=1e-12)
        whole.take_step()
    for _ in range(2):
        first.take_step()
    second.restore(*first.snapshot())
    while not second.done:
        second.take_step()
    assert all(torch.equal(value, whole.state[name]) for name, value in second.state.items())
    assert said(caplog) == []


def scaled(factor: float, x: Tensor) -> tuple[Tensor]:
    return (factor * x,)


def doubled(x: Tensor) -> tuple[Tensor]:
    return (2 * x,)


def test_a_function_of_values_is_run_as_it_is(caplog) -> None:
    def longest(x: Tensor) -> tuple[Tensor]:
        return (x[: int(x.max())],)

    run = Compiler("the longest")
    for size in (2.0, 3.0):
        (found,) = run("key", longest, [torch.tensor([1.0, size, 1.0])])
        assert len(found) == size
    (line,) = said(caplog)
    assert line.startswith("the longest is not compiled") and "depend on the values" in line


def test_without_a_compiler_it_is_run_as_it_is(caplog) -> None:
    from torch._inductor import config, cpp_builder

    cpp_builder.cpp_compiler_search.cache_clear()
    run = Compiler("the double")
    with config.patch({"cpp.cxx": ("no-such-compiler",)}):
        for size in (2, 3):
            assert run("key", doubled, [torch.ones(size)])[0].tolist() == [2.0] * size
    cpp_builder.cpp_compiler_search.cache_clear()
    assert said(caplog) == [
        "the double is not compiled from here on: no C++ compiler; install g++, or set CXX"
    ]


def test_a_result_that_differs_is_not_taken(caplog, monkeypatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda graph, **_: lambda x: (2.01 * x,))
    run = Compiler("the double")
    assert run("key", doubled, [torch.ones(2)])[0].tolist() == [2.0, 2.0]
    assert "the double is not compiled from here on: the compiled result is off" in said(caplog)[0]


def test_a_mistake_of_the_function_is_its_own() -> None:
    with pytest.raises(RuntimeError, match="size"):
        Compiler("a sum")("key", lambda x, y: (x + y,), [torch.ones(2), torch.ones(3)])


def test_each_key_and_shape_has_a_graph_up_to_the_limit(caplog, monkeypatch) -> None:
    made = []
    monkeypatch.setattr(torch, "compile", lambda graph, **_: made.append(graph) or graph)
    run = Compiler("a product", limit=3)
    for key, factor in (("double", 2.0), ("treble", 3.0)):
        for size in (1, 2, 1, 2):
            found = run(key, partial(scaled, factor), [torch.ones(size)])
            assert found[0].tolist() == [factor] * size
    assert len(made) == 3
    assert said(caplog) == ["a product is not compiled from here on: more than 3 different shapes"]


def test_tensors_are_met_in_the_order_of_map() -> None:
    episode, met = draw(0), []
    episode.map(lambda x: met.append(x) or x)
    found = tensors(episode)
    assert [id(x) for x in found.values()] == [id(x) for x in met]
    assert found["query.inputs"] is episode.query.inputs
