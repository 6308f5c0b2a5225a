"""Meta-gradients against closed forms of their own, and against a second implementation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from meta_models.features import shared_features
from meta_models.mlp import MLP
from meta_models.model import AdaptedModel
from meta_models.params import Params, part, stack
from metalearn.algorithms.cavia import cavia
from metalearn.algorithms.maml import MAML
from metalearn.algorithms.reptile import Reptile
from metalearn.baselines.multitask import MultiTask
from metalearn.inner.loop import InnerLoop
from metalearn.learner import in_passes
from tasks.episode import Batch, Episode, union

TASKS = 3
LOOP = InnerLoop(steps=2, rates={"adapter": 0.05, "head": 0.02})
SEED = 0


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(SEED)


# --- ProtoMAML without the inner loop, heads, padding and batching of this project ---------------


class PlainProtoMAML:
    """MAML from prototypes, one task at a time, by nested `torch.func.grad`.

    `grad` differentiates a function in its arguments, so the inner gradient is the partial one by
    construction: the head's rows are an argument beside the adapter's values.
    """

    def __init__(self, model: AdaptedModel, loop: InnerLoop) -> None:
        self.network = model.adapter.model
        self.loop = loop

    def features(self, adapter: Params, batch: Batch) -> Tensor:
        assert batch.tokens is not None
        real = batch.example_mask[0]
        mask = batch.tokens.mask[0][real].long()
        inputs = {"input_ids": batch.tokens.ids[0][real], "attention_mask": mask}
        states = torch.func.functional_call(self.network, adapter, (), inputs).last_hidden_state
        mean = torch.stack([row[: int(n)].mean(0) for row, n in zip(states, mask.sum(1))])  # noqa: B905
        return mean / mean.norm(dim=1, keepdim=True)

    def loss(self, phi: Params, scale: Tensor, batch: Batch) -> Tensor:
        assert batch.labels is not None
        adapter = {n: v for n, v in phi.items() if n not in ("W", "b")}
        logits = scale.exp() * (self.features(adapter, batch) @ phi["W"].T + phi["b"])
        return cross_entropy(logits, batch.labels[0][batch.example_mask[0]])

    def adapted(self, theta: Params, task: Episode) -> Params:
        phi = {n: v for n, v in theta.items() if n != "scale"}
        features = self.features(phi, task.support)
        labels = task.support.labels[0][task.support.example_mask[0]]
        centers = torch.stack(
            [features[labels == c].mean(0) for c in range(int(task.support.class_mask.sum()))]
        )
        phi |= {"W": 2 * centers, "b": -(centers**2).sum(1)}
        for _ in range(self.loop.steps):
            slope = torch.func.grad(self.loss)(phi, theta["scale"], task.support)
            rates = {n: self.loop.rates["head" if n in ("W", "b") else "adapter"] for n in phi}
            phi = {n: phi[n] - rates[n] * slope[n] for n in phi}
        return phi

    def meta_gradient(self, theta: Params, tasks: list[Episode]) -> Params:
        def loss(theta: Params) -> Tensor:
            losses = [
                self.loss(self.adapted(theta, task), theta["scale"], task.query) for task in tasks
            ]
            return torch.stack(losses).mean()

        return torch.func.grad(loss)(theta)


def plain_name(name: str) -> str:
    return {"head.weight": "W", "head.bias": "b"}.get(name, name.removeprefix("adapter."))


@pytest.mark.parametrize("rates", [{"adapter": 0.05, "head": 0.02}, {"adapter": 0.3, "head": 0.3}])
def test_maml_from_prototypes_agrees_with_a_second_implementation(
    rates, language_model, make_episode, generic
) -> None:
    model = language_model()
    maml = MAML(model, InnerLoop(steps=2, rates=rates), tasks_per_pass=TASKS)
    plain = PlainProtoMAML(model, maml.loop)
    episode = make_episode(TASKS)
    tasks = list(in_passes(episode, 1))
    state = generic(maml.init(seeded()))
    theta = {plain_name(n): v for n, v in state.items()}

    adapted = maml.adapt(state, episode.support)[-1]
    gradient, _ = maml.meta_gradient(state, episode)

    for number, task in enumerate(tasks):
        ways = int(task.support.class_mask.sum())
        expected = plain.adapted(theta, task)
        for name, value in adapted.items():
            if name != "scale":
                mine = value[number][:ways] if part(name) == "head" else value[number]
                torch.testing.assert_close(mine, expected[plain_name(name)], rtol=0, atol=1e-10)
    expected = plain.meta_gradient(theta, tasks)
    for name, value in gradient.items():
        torch.testing.assert_close(value, expected[plain_name(name)], rtol=1e-10, atol=1e-10)


def test_the_inner_gradient_of_anil_leaves_the_adapter(
    language_model, make_episode, generic
) -> None:
    """ANIL's meta-gradient is MAML's with an adapter rate of zero."""
    model, episode = language_model(), make_episode(TASKS)
    anil = MAML(model, InnerLoop(2, {"head": 0.05}))
    maml = MAML(model, InnerLoop(2, {"adapter": 0.0, "head": 0.05}))
    state = generic(anil.init(seeded()))

    ours, _ = anil.meta_gradient(state, episode)
    theirs, _ = maml.meta_gradient(state, episode)

    for name in state:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-10, atol=1e-12)


# --- closed forms -------------------------------------------------------------------------------


@pytest.mark.parametrize("head", ["prototype", "label", "slots"])
def test_the_first_order_gradient_takes_each_step_for_the_identity(
    head, language_model, make_episode, generic
) -> None:
    """grad L_query at phi_S, carried back through `start` alone."""
    model, episode = language_model(head=head), make_episode(TASKS)
    fomaml = MAML(model, LOOP, order=1)
    state = generic(fomaml.init(seeded()))

    phi = {n: v.requires_grad_() for n, v in fomaml.adapt(state, episode.support)[-1].items()}
    slope = torch.autograd.grad(model.loss(phi, episode.query).mean(), list(phi.values()))
    theta = {n: v.clone().requires_grad_() for n, v in state.items()}
    start = model.start(stack(theta, TASKS), episode.support)
    # A sum whose gradient in theta is the slope at phi_S times d start / d theta.
    carried = sum((start[n] * s).sum() for n, s in zip(phi, slope, strict=True))
    expected = torch.autograd.grad(carried, list(theta.values()), materialize_grads=True)

    gradient, _ = fomaml.meta_gradient(state, episode)

    for value, name in zip(expected, theta, strict=True):
        torch.testing.assert_close(gradient[name], value, rtol=1e-10, atol=1e-13)
    exact, _ = MAML(model, LOOP).meta_gradient(state, episode)
    assert any((exact[n] - gradient[n]).abs().max() > 1e-4 for n in exact)


@pytest.mark.parametrize("head", ["prototype", "slots"])
def test_reptile_moves_towards_what_each_task_adapts_to(
    head, language_model, make_episode, generic
) -> None:
    """theta - mean phi_S, where phi_S learns from support and query together."""
    model, episode = language_model(head=head), make_episode(TASKS)
    reptile = Reptile(model, LOOP)
    state = generic(reptile.init(seeded()))
    joined = union(episode.support, episode.query)

    phi = reptile.adapt(state, joined)[-1]
    gradient, figures = reptile.meta_gradient(state, episode)

    for name in state:
        if part(name) == "adapter":
            torch.testing.assert_close(gradient[name], state[name] - phi[name].mean(0))
            assert gradient[name].norm() > 0
    scale = phi["scale"].clone().requires_grad_()
    loss = model.loss(phi | {"scale": scale}, joined).mean()
    (slope,) = torch.autograd.grad(loss, [scale])
    torch.testing.assert_close(gradient["scale"], slope.sum())
    assert figures["loss"] == pytest.approx(loss.item())


def test_serial_reptile_goes_on_from_task_to_task(language_model, make_episode, generic) -> None:
    """Plain descent at rate epsilon T is algorithm 1 of the paper; the order of tasks matters."""
    model, episode = language_model(), make_episode(TASKS)
    reptile = Reptile(model, LOOP, epsilon=0.25)
    state = generic(reptile.init(seeded()))

    theta = {n: v for n, v in state.items() if part(n) == "adapter"}
    for task in in_passes(episode, 1):
        joined = union(task.support, task.query)
        phi = reptile.adapt(state | theta, joined)[-1]
        theta = {n: v + 0.25 * (phi[n][0] - v) for n, v in theta.items()}

    gradient, _ = reptile.meta_gradient(state, episode)
    batched, _ = Reptile(model, LOOP).meta_gradient(state, episode)
    slowly, _ = Reptile(model, LOOP, epsilon=1e-6).meta_gradient(state, episode)

    for name, value in theta.items():
        there = state[name] - 0.25 * TASKS * gradient[name]
        torch.testing.assert_close(there, value, rtol=1e-12, atol=1e-14)
        torch.testing.assert_close(slowly[name], batched[name], rtol=1e-4, atol=1e-9)
    assert any((gradient[n] - batched[n]).norm() > 1e-3 * batched[n].norm() for n in theta)


@pytest.mark.parametrize("epsilon", [0.0, -1.0, 1.5])
def test_serial_reptile_refuses_fractions_that_are_none(epsilon, language_model) -> None:
    with pytest.raises(ValueError, match="epsilon"):
        Reptile(language_model(), LOOP, epsilon=epsilon)


def test_the_context_alone_adapts_and_starts_at_zero(language_model, make_episode) -> None:
    model = language_model(context=3)
    learner = cavia(model, InnerLoop(2, {"context": 0.1}))
    state = learner.init(seeded())

    path = learner.adapt(state, make_episode(TASKS).support)

    assert not [n for n in state if part(n) == "context"]
    assert path[0]["context.vectors"].shape == (TASKS, 3, model.head.width)
    assert path[0]["context.vectors"].count_nonzero() == 0
    changed = {n for n in path[0] if not torch.equal(path[0][n], path[-1][n])}
    assert changed == {"context.vectors"}


def test_a_zero_context_of_a_perceptron_changes_nothing(sinusoids) -> None:
    """With zeros beside x the first layer sees x alone."""
    plain, wide = MLP((1, 8, 1)), MLP((1, 8, 1), context=3)
    state = {n: v.double() for n, v in wide.init(seeded()).items()}
    narrow = state | {"body.weight0": state["body.weight0"][:, :1]}

    batch = sinusoids.query
    ours = wide.logits(wide.start(stack(state, TASKS), batch), batch)

    theirs = plain.logits(plain.start(stack(narrow, TASKS), batch), batch)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-14)


def test_the_meta_gradient_of_each_task_is_clamped(sinusoids) -> None:
    made = cavia(MLP((1, 8, 1), context=2), InnerLoop(1, {"context": 0.1}), clamp=0.5)
    free = cavia(MLP((1, 8, 1), context=2), InnerLoop(1, {"context": 0.1}))
    state = {n: v.double() for n, v in made.init(seeded()).items()}

    found, _ = made.meta_gradient(state, sinusoids)

    each = [free.meta_gradient(state, task)[0] for task in in_passes(sinusoids, 1)]
    assert any((g.abs() > 0.5).any() for task in each for g in task.values())
    for name, value in found.items():
        mean = torch.stack([g[name].clamp(-0.5, 0.5) for g in each]).mean(0)
        torch.testing.assert_close(value, mean, rtol=1e-10, atol=1e-12)


def test_the_multitask_gradient_is_that_of_one_classifier_over_all_classes(
    language_model, make_episode, generic, check_gradient
) -> None:
    model, episode = language_model(), make_episode(TASKS)
    multitask = MultiTask(model, LOOP, classes=6)
    state = generic(multitask.init(seeded()))

    def loss(state: Params) -> float:
        """Plain classification of each task's support and query among the six classes."""
        losses = []
        for task in in_passes(episode, 1):
            features: list[Tensor] = []
            classes: list[Tensor] = []
            for batch in (task.support, task.query):
                real = batch.example_mask[0]
                features.append(shared_features(model, state, batch)[0][real])
                classes.append(batch.class_ids[0][batch.labels[0][real]])
            logits = torch.cat(features) @ state["classifier.weight"].T
            logits = state["scale"].exp() * (logits + state["classifier.bias"])
            losses.append(cross_entropy(logits, torch.cat(classes)))
        return torch.stack(losses).mean().item()

    gradient, figures = multitask.meta_gradient(state, episode)

    assert figures["loss"] == pytest.approx(loss(state), rel=1e-10)
    check_gradient(loss, state, gradient)


def test_multitask_drops_its_classifier_at_test_time(language_model, make_episode) -> None:
    multitask = MultiTask(language_model(), LOOP, classes=6)
    state = multitask.init(seeded())
    support = make_episode(TASKS).support

    other = state | {"classifier.weight": state["classifier.weight"] + 1}
    ours, theirs = (multitask.adapt(s, support)[-1] for s in (state, other))

    assert not [n for n in ours if part(n) == "classifier"]
    assert all(torch.equal(ours[n], theirs[n]) for n in ours)


@pytest.mark.parametrize("kind", ["maml", "reptile"])
def test_meta_gradients_need_no_other_task(
    kind: str, language_model: Callable[..., Any], make_episode, generic
) -> None:
    """The gradient of a meta-batch is the mean of its tasks' own."""
    make = {"maml": MAML, "reptile": Reptile}[kind]
    learner = make(language_model(), LOOP)
    state = generic(learner.init(seeded()))
    episode = make_episode(TASKS)

    whole, _ = learner.meta_gradient(state, episode)
    each = [learner.meta_gradient(state, task)[0] for task in in_passes(episode, 1)]

    for name, value in whole.items():
        mean = torch.stack([gradient[name] for gradient in each]).mean(0)
        torch.testing.assert_close(value, mean, rtol=1e-10, atol=1e-12)
