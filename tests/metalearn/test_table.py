"""The common table: every learner against every property that applies to it.

A new algorithm is one row of TABLE.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import pytest
import torch
from torch import Tensor

from meta_models.features import FeatureStore
from meta_models.mlp import MLP
from meta_models.model import AdaptedModel, Model
from meta_models.params import Params, norm, part, stack
from metalearn.algorithms.evolution import EvolutionStrategies
from metalearn.algorithms.imaml import IMAML
from metalearn.algorithms.maml import MAML
from metalearn.algorithms.maml_plus_plus import maml_plus_plus
from metalearn.algorithms.meta_curvature import meta_curvature
from metalearn.algorithms.meta_sgd import meta_sgd
from metalearn.algorithms.protonet import ProtoNet
from metalearn.algorithms.reptile import Reptile
from metalearn.baselines.finetune import FineTuning
from metalearn.baselines.logistic_regression import LogisticRegression
from metalearn.baselines.majority import Majority
from metalearn.baselines.multitask import MultiTask
from metalearn.baselines.nearest_prototype import NearestPrototype
from metalearn.inner.loop import InnerLoop
from metalearn.inner.optimizers import Adam, Momentum
from metalearn.inner.rules import LearnedRates
from metalearn.learner import Learner, in_passes
from metalearn.training import MetaTraining, OuterLoop
from tasks.collate import Collator
from tasks.episode import Episode, EpisodeShape, TaskStream
from tasks.sources.sinusoid import Sinusoid

TASKS = 3


@dataclass(frozen=True)
class Row:
    """A learner and what is expected of it.

    Attributes:
        make: The learner from a model, its inner loop and the tasks of a pass.
        descends: It adapts by gradient descent on the support loss.
        gradient: "exact": of the query loss; "own": a test of its own checks it; None: no
            meta-gradient.
        numeric: It also learns tasks without text.
        frozen: It has no adapter.
    """

    make: Callable[[Any, InnerLoop, int], Learner]
    descends: bool = True
    gradient: Literal["exact", "own"] | None = None
    numeric: bool = True
    frozen: bool = False


def head_only(loop: InnerLoop) -> InnerLoop:
    return InnerLoop(loop.steps, {"head": loop.rates["head"]})


def body_only(loop: InnerLoop) -> InnerLoop:
    return InnerLoop(loop.steps, {n: rate for n, rate in loop.rates.items() if n != "head"})


def adam(loop: InnerLoop) -> InnerLoop:
    """Adam, whose steps are as long as its rates.

    Its first direction, g / (|g| + eps), bends within eps of zero: central differences see the
    slope only where eps is larger than their step.
    """
    rates = {name: rate / 20 for name, rate in loop.rates.items()}
    return replace(loop, rates=rates, optimizer=Adam(epsilon=1e-2))


def momentum(loop: InnerLoop) -> InnerLoop:
    """Momentum, whose later steps are longer than its rates."""
    rates = {name: rate / 4 for name, rate in loop.rates.items()}
    return replace(loop, rates=rates, optimizer=Momentum())


def one_step(loop: InnerLoop) -> InnerLoop:
    return InnerLoop(min(loop.steps, 1), loop.rates)


TABLE = {
    "maml": Row(lambda m, loop, t: MAML(m, loop, tasks_per_pass=t), gradient="exact"),
    "maml-one-step": Row(
        lambda m, loop, t: MAML(m, one_step(loop), tasks_per_pass=t), gradient="exact"
    ),
    "fomaml": Row(lambda m, loop, t: MAML(m, loop, order=1, tasks_per_pass=t), gradient="own"),
    "anil": Row(lambda m, loop, t: MAML(m, head_only(loop), tasks_per_pass=t), gradient="exact"),
    "boil": Row(lambda m, loop, t: MAML(m, body_only(loop), tasks_per_pass=t), gradient="exact"),
    "adjoint": Row(
        lambda m, loop, t: MAML(m, replace(loop, gradient="adjoint"), tasks_per_pass=t),
        gradient="exact",
    ),
    "momentum": Row(lambda m, loop, t: MAML(m, momentum(loop), tasks_per_pass=t), gradient="exact"),
    "adam": Row(lambda m, loop, t: MAML(m, adam(loop), tasks_per_pass=t), gradient="exact"),
    "adam-adjoint": Row(
        lambda m, loop, t: MAML(m, replace(adam(loop), gradient="adjoint"), tasks_per_pass=t),
        gradient="exact",
    ),
    "meta-sgd": Row(lambda m, loop, t: meta_sgd(m, loop, tasks_per_pass=t), gradient="exact"),
    "meta-curvature": Row(
        lambda m, loop, t: meta_curvature(m, loop, full=8, tasks_per_pass=t), gradient="exact"
    ),
    "maml++": Row(lambda m, loop, t: maml_plus_plus(m, loop, tasks_per_pass=t), gradient="exact"),
    "step-rates-adjoint": Row(
        lambda m, loop, t: MAML(
            m,
            replace(loop, learned=LearnedRates("tensor", loop.steps), gradient="adjoint"),
            tasks_per_pass=t,
        ),
        gradient="exact",
    ),
    "imaml": Row(
        lambda m, loop, t: IMAML(m, loop, solver_steps=2, tasks_per_pass=t), gradient="own"
    ),
    "evolution": Row(
        lambda m, loop, t: EvolutionStrategies(m, loop, pairs=2, tasks_per_pass=t),
        gradient="own",
    ),
    "reptile": Row(lambda m, loop, t: Reptile(m, loop, tasks_per_pass=t), gradient="own"),
    "protonet": Row(
        lambda m, _, t: ProtoNet(FeatureStore(m), tasks_per_pass=t),
        descends=False,
        gradient="exact",
        numeric=False,
    ),
    "finetune": Row(lambda m, loop, t: FineTuning(m, loop, tasks_per_pass=t)),
    "multitask": Row(
        lambda m, loop, t: MultiTask(m, loop, classes=6, tasks_per_pass=t),
        gradient="own",
        numeric=False,
    ),
    "prototypes": Row(
        lambda m, *_: NearestPrototype(FeatureStore(m)),
        descends=False,
        numeric=False,
        frozen=True,
    ),
    "logistic": Row(
        lambda m, *_: LogisticRegression(FeatureStore(m)),
        descends=False,
        numeric=False,
        frozen=True,
    ),
    "majority": Row(lambda *_: Majority(), descends=False, numeric=False, frozen=True),
}


def rows(keep: Callable[[Row], object] = lambda row: True) -> Any:
    """Parametrizes a test over the rows of the table to which its property applies."""
    return pytest.mark.parametrize("name", [n for n, row in TABLE.items() if keep(row)])


MODELS = [
    ("tiny-bert", "lora"),
    ("tiny-gpt2", "lora"),
    ("tiny-llama", "lora"),
    ("tiny-bert", "ia3"),
    ("tiny-gpt2", "ia3"),
    ("tiny-bert", "prefix_tuning"),
    ("tiny-gpt2", "prefix_tuning"),
]
models = pytest.mark.parametrize(("backbone", "method"), MODELS)
HEADS = ("prototype", "label", "slots")
# Ten times this rate diverges: finite differences of a loss in the thousands are mere rounding.
NUMERIC = InnerLoop(2, {"body": 0.001, "head": 0.001})


def learner(
    name: str,
    language_model: Callable[..., AdaptedModel],
    *,
    steps: int = 2,
    rate: float = 0.05,
    tasks: int = TASKS,
    **model: Any,
) -> Learner:
    """The learner of a row on a tiny language model."""
    row = TABLE[name]
    if row.frozen:
        model["method"] = "none"
    loop = InnerLoop(steps, {"adapter": rate, "head": rate})
    made = row.make(language_model(**model), loop, tasks)
    made.tasks_per_pass = tasks
    return made


def initial(learner: Learner, seed: int = 0) -> Params:
    return learner.init(torch.Generator().manual_seed(seed))


def model_of(learner: Learner) -> Model:
    assert isinstance(learner, (MAML, IMAML, EvolutionStrategies, Reptile, FineTuning, MultiTask))
    return learner.model


def model_state(state: Params) -> Params:
    """The meta-parameters that a model knows, without those that only the learner has."""
    return {
        n: value for n, value in state.items() if part(n) not in ("classifier", "rate", "metric")
    }


@pytest.fixture(scope="session")
def sinusoids() -> Episode:
    """Three regression tasks, K varying."""
    stream = TaskStream(Sinusoid(), "train", EpisodeShape(shots=(3, 8), queries=5), seed=0)
    episode = Collator(None).collate(stream.tasks(range(TASKS)), range(TASKS))
    return episode.map(lambda x: x.double() if x.is_floating_point() else x)


# --- adaptation ---------------------------------------------------------------------------------


@rows(lambda row: row.descends)
@pytest.mark.parametrize("head", HEADS)
def test_each_step_lowers_the_support_loss_of_each_task(
    name, head, language_model, make_episode
) -> None:
    made = learner(name, language_model, head=head, rate=0.02)
    episode = make_episode()

    path = made.adapt(initial(made), episode.support)

    losses = torch.stack([model_of(made).loss(phi, episode.support) for phi in path])
    assert len(path) == (2 if name == "maml-one-step" else 3)
    assert (losses[1:] < losses[:-1]).all(), losses


@models
def test_each_step_lowers_the_support_loss_with_each_adapter(
    backbone, method, language_model, make_episode
) -> None:
    model = language_model(backbone, method)
    made = learner(
        "maml", language_model, backbone=backbone, method=method, rate=0.005,
        tasks=TASKS if model.batched else 1,
    )  # fmt: skip
    for episode in in_passes(make_episode(), made.tasks_per_pass):
        path = made.adapt(initial(made), episode.support)
        losses = torch.stack([model.loss(phi, episode.support) for phi in path])
        assert (losses[1:] < losses[:-1]).all(), losses


@rows(lambda row: row.descends and row.numeric)
def test_each_step_lowers_the_support_loss_of_numeric_tasks(name, sinusoids, generic) -> None:
    made = TABLE[name].make(MLP((1, 8, 8, 1)), NUMERIC, TASKS)
    state = {n: v.double() for n, v in generic(initial(made)).items()}

    path = made.adapt(state, sinusoids.support)

    losses = torch.stack([model_of(made).loss(phi, sinusoids.support) for phi in path])
    assert (losses[1:] < losses[:-1]).all(), losses


@rows(lambda row: row.descends)
def test_no_step_is_the_start(name, language_model, make_episode) -> None:
    made = learner(name, language_model, steps=0)
    episode, state = make_episode(), initial(made)

    path = made.adapt(state, episode.support)

    start = model_of(made).start(stack(model_state(state), TASKS), episode.support)
    assert len(path) == 1
    assert path[0].keys() == start.keys()
    for key, value in start.items():
        assert_near(path[0][key], value, 1e-12, key)


@rows(lambda row: not row.descends)
def test_learners_without_steps_have_one_answer(name, language_model, make_episode) -> None:
    made = learner(name, language_model)

    assert len(made.adapt(initial(made), make_episode().support)) == 1


@rows(lambda row: row.descends)
def test_adaptation_goes_on_from_given_values(name, language_model, make_episode) -> None:
    """Two steps from the values after none are the two steps."""
    made = learner(name, language_model, head="label")
    episode, state = make_episode(), initial(made)
    whole = made.adapt(state, episode.support)

    start = {n: v for n, v in whole[0].items() if part(n) == "adapter"}
    again = made.adapt(state, episode.support, start)
    elsewhere = made.adapt(state, episode.support, {n: v + 0.1 for n, v in start.items()})

    for key, value in whole[-1].items():
        assert_near(again[-1][key], value, 1e-12, key)
    assert not torch.equal(elsewhere[-1]["head.weight"], whole[-1]["head.weight"])


@rows()
def test_adaptation_leaves_no_graph_and_the_state_alone(name, language_model, make_episode) -> None:
    made = learner(name, language_model)
    episode, state = make_episode(), initial(made)
    before = {n: value.clone() for n, value in state.items()}

    adapted = made.adapt(state, episode.support)[-1]
    outputs = made.predict(adapted, episode.query)

    assert not outputs.requires_grad
    if isinstance(adapted, dict):
        assert not any(value.requires_grad for value in adapted.values())
    assert all(torch.equal(state[n], before[n]) for n in state)


@models
@pytest.mark.parametrize("head", HEADS)
def test_the_adapter_moves_at_the_first_step(
    backbone, method, head, language_model, make_episode
) -> None:
    made = learner(
        "maml", language_model, backbone=backbone, method=method, head=head, steps=1, tasks=1
    )

    before, after = made.adapt(initial(made), make_episode(tasks=1).support)

    assert moved(before, after) > 1e-6


def test_the_zero_head_has_a_null_first_step(language_model, make_episode) -> None:
    made = learner("maml", language_model, head="zero")

    before, after, later = made.adapt(initial(made), make_episode().support)

    assert moved(before, after) == 0.0
    assert not torch.equal(before["head.weight"], after["head.weight"])
    assert moved(after, later) > 0.0


def moved(before: Params, after: Params) -> float:
    """How far the adapter's values went."""
    return max((after[n] - before[n]).abs().max().item() for n in before if part(n) == "adapter")


# --- batched = one task at a time ---------------------------------------------------------------

KINDS = pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)], ids=["fp32", "fp64"]
)


def assert_near(found: Tensor, expected: Tensor, tolerance: float, what: str) -> None:
    """The distance is at most `tolerance` of the length."""
    distance = (found - expected).double().norm()
    assert distance <= tolerance * expected.double().norm() + 1e-12, (what, distance)


@rows()
@KINDS
def test_batched_adaptation_is_one_task_at_a_time(
    name, dtype, tolerance, language_model, make_episode, generic
) -> None:
    together = learner(name, language_model, dtype=dtype)
    alone = learner(name, language_model, dtype=dtype, tasks=1)
    episode = make_episode()
    state = generic(initial(together))

    batched = together.adapt(state, episode.support)
    single = [alone.adapt(state, task.support) for task in in_passes(episode, 1)]

    for step, adapted in enumerate(batched):
        for split in ("support", "query"):
            outputs = together.predict(adapted, getattr(episode, split))
            one = torch.cat(
                [
                    alone.predict(path[step], getattr(task, split))
                    for path, task in zip(single, in_passes(episode, 1), strict=True)
                ]
            )
            real = getattr(episode, split).example_mask
            assert_near(outputs[real], one[real], tolerance, f"{split} {step}")
        if TABLE[name].descends:
            for key, values in adapted.items():
                one = torch.cat([path[step][key] for path in single])
                assert_near(values, one, tolerance, f"{key} {step}")


@rows(lambda row: row.gradient)
@KINDS
def test_batched_meta_gradients_are_the_sum_of_single_ones(
    name, dtype, tolerance, language_model, make_episode, generic
) -> None:
    together = learner(name, language_model, dtype=dtype)
    alone = learner(name, language_model, dtype=dtype, tasks=1)
    pairs = learner(name, language_model, dtype=dtype, tasks=2)  # passes of unequal size
    episode = make_episode()
    state = generic(initial(together))

    batched, figures = together.meta_gradient(state, episode)

    for other in (alone, pairs):
        gradient, same = other.meta_gradient(state, episode)
        assert gradient.keys() == batched.keys() == state.keys()
        for key in gradient:
            assert_near(batched[key], gradient[key], tolerance, key)
        assert same == pytest.approx(figures, rel=tolerance)


@rows(lambda row: row.gradient and row.numeric)
def test_batched_meta_gradients_of_numeric_tasks(name, sinusoids, generic) -> None:
    together, alone = (TABLE[name].make(MLP((1, 8, 8, 1)), NUMERIC, t) for t in (TASKS, 1))
    state = {n: v.double() for n, v in generic(initial(together)).items()}

    batched, _ = together.meta_gradient(state, sinusoids)
    single, _ = alone.meta_gradient(state, sinusoids)

    for key in state:
        assert_near(batched[key], single[key], 1e-10, key)


# --- meta-gradients -----------------------------------------------------------------------------


@rows(lambda row: row.gradient == "exact")
@pytest.mark.parametrize("head", HEADS)
def test_meta_gradients_are_finite_differences(
    name, head, language_model, make_episode, generic, query_loss, check_gradient
) -> None:
    made = learner(name, language_model, head=head)
    episode = make_episode()
    state = generic(initial(made))

    gradient, figures = made.meta_gradient(state, episode)

    assert figures["loss"] == pytest.approx(query_loss(made, state, episode), rel=1e-10)
    few = {"coordinates": 0} if head != "prototype" else {}
    check_gradient(lambda s: query_loss(made, s, episode), state, gradient, **few)
    assert all(norm({n: g}) > 0 for n, g in gradient.items())


@models
def test_meta_gradients_are_finite_differences_with_each_adapter(
    backbone,
    method,
    language_model,
    make_episode,
    generic,
    query_loss,
    check_gradient,
    llama_in_double,
) -> None:
    model = language_model(backbone, method)
    tasks = 2 if model.batched else 1
    made = learner("maml", language_model, backbone=backbone, method=method, tasks=tasks)
    episode = make_episode(tasks=tasks)
    state = generic(initial(made))

    gradient, _ = made.meta_gradient(state, episode)

    check_gradient(lambda s: query_loss(made, s, episode), state, gradient, coordinates=0)


@rows(lambda row: row.gradient == "exact" and row.numeric)
def test_meta_gradients_of_numeric_tasks(
    name, sinusoids, generic, query_loss, check_gradient
) -> None:
    made = TABLE[name].make(MLP((1, 8, 8, 1)), NUMERIC, TASKS)
    state = {n: v.double() for n, v in generic(initial(made)).items()}

    gradient, _ = made.meta_gradient(state, sinusoids)

    check_gradient(lambda s: query_loss(made, s, sinusoids), state, gradient)


# --- meta-training ------------------------------------------------------------------------------


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
