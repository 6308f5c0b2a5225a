"""Learners on a quadratic, where everything can be written down."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from meta_models.model import Model
from meta_models.params import Params
from metalearn.algorithms.evolution import EvolutionStrategies
from metalearn.algorithms.imaml import IMAML
from metalearn.algorithms.maml import MAML
from metalearn.algorithms.reptile import Reptile
from metalearn.baselines.finetune import FineTuning
from metalearn.inner.loop import InnerLoop
from metalearn.learner import Learner
from tasks.episode import Batch, Episode, union

SIZE, TASKS, RATE = 4, 3, 0.05


class Quadratic(Model):
    """L(phi) = 1/2 |A phi - y|^2, with A and y from the batch.

    Its gradient is A^T (A phi - y) = H (phi - c) with H = A^T A and H c = A^T y.
    """

    encoder = ("body",)
    batched = True

    def init(self, generator: torch.Generator) -> Params:
        return {"body.phi": torch.randn(SIZE, generator=generator, dtype=torch.float64)}

    def start(self, meta: Params, support: Batch, features: Tensor | None = None) -> Params:
        return dict(meta)

    def features(self, values: Params, batch: Batch) -> Tensor:
        assert batch.inputs is not None
        return batch.inputs

    def logits(self, values: Params, batch: Batch, features: Tensor | None = None) -> Tensor:
        return torch.einsum("tbp,tp->tb", self.features(values, batch), values["body.phi"])

    def loss(self, values: Params, batch: Batch, features: Tensor | None = None) -> Tensor:
        assert batch.values is not None
        return 0.5 * (self.logits(values, batch) - batch.values[..., 0]).square().sum(1)


def quadratics(rows: int, seed: int) -> Batch:
    """Tasks of random A and y."""
    generator = torch.Generator().manual_seed(seed)
    real = torch.ones(TASKS, rows, dtype=torch.bool)
    return Batch(
        source=("quadratic",) * TASKS,
        kind="value",
        ids=torch.arange(rows).expand(TASKS, rows),
        example_mask=real,
        class_mask=real[:, :0],
        class_ids=torch.zeros(TASKS, 0, dtype=torch.int64),
        label_names=((),) * TASKS,
        inputs=torch.randn(TASKS, rows, SIZE, generator=generator, dtype=torch.float64),
        values=torch.randn(TASKS, rows, 1, generator=generator, dtype=torch.float64),
    )


def slope(batch: Batch, phi: Tensor) -> Tensor:
    """A^T (A phi - y) of each task, `[T, P]`."""
    assert batch.inputs is not None and batch.values is not None
    error = torch.einsum("tbp,tp->tb", batch.inputs, phi) - batch.values[..., 0]
    return torch.einsum("tbp,tb->tp", batch.inputs, error)


def contraction(batch: Batch, steps: int) -> Tensor:
    """(I - alpha H)^S of each task."""
    assert batch.inputs is not None
    hessian = batch.inputs.transpose(1, 2) @ batch.inputs
    return torch.linalg.matrix_power(torch.eye(SIZE, dtype=torch.float64) - RATE * hessian, steps)


def fixed_point(batch: Batch) -> Tensor:
    """c of each task: the least squares solution."""
    assert batch.inputs is not None and batch.values is not None
    return torch.linalg.lstsq(batch.inputs, batch.values).solution[..., 0]


def descended(batch: Batch, theta: Tensor, steps: int) -> Tensor:
    """phi_S = c + (I - alpha H)^S (theta - c)."""
    c = fixed_point(batch)
    return c + torch.einsum("tij,tj->ti", contraction(batch, steps), theta - c)


EPISODE = Episode(tuple(range(TASKS)), quadratics(rows=6, seed=0), quadratics(rows=5, seed=1))
LOOP = {steps: InnerLoop(steps, {"body": RATE}) for steps in (0, 1, 2, 5)}
every_length = pytest.mark.parametrize("steps", list(LOOP))


def theta_of(learner: Learner) -> Tensor:
    return learner.init(torch.Generator().manual_seed(0))["body.phi"]


def assert_equal(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@every_length
def test_gradient_descent_contracts_towards_the_solution(steps: int) -> None:
    learner = FineTuning(Quadratic(), LOOP[steps])
    theta = theta_of(learner)

    path = learner.adapt({"body.phi": theta}, EPISODE.support)

    assert len(path) == steps + 1
    for step, values in enumerate(path):
        expected = descended(EPISODE.support, theta.expand(TASKS, SIZE), step)
        assert_equal(values["body.phi"], expected)


@every_length
@pytest.mark.parametrize("tasks_per_pass", [1, 2, TASKS])
def test_maml_is_the_contraction_times_the_query_gradient(steps: int, tasks_per_pass: int) -> None:
    """d/d theta = 1/T sum_t (I - alpha H)^S grad L_query(phi_S)."""
    learner = MAML(Quadratic(), LOOP[steps], tasks_per_pass=tasks_per_pass)
    theta = theta_of(learner)
    phi = descended(EPISODE.support, theta.expand(TASKS, SIZE), steps)
    turned = contraction(EPISODE.support, steps).transpose(1, 2)
    expected = torch.einsum("tij,tj->ti", turned, slope(EPISODE.query, phi)).mean(0)

    gradient, figures = learner.meta_gradient({"body.phi": theta}, EPISODE)

    assert_equal(gradient["body.phi"], expected)
    loss = Quadratic().loss({"body.phi": phi}, EPISODE.query).mean()
    assert figures["loss"] == pytest.approx(loss.item(), rel=1e-12)


@every_length
def test_first_order_is_the_query_gradient_alone(steps: int) -> None:
    learner = MAML(Quadratic(), LOOP[steps], order=1)
    theta = theta_of(learner)
    phi = descended(EPISODE.support, theta.expand(TASKS, SIZE), steps)

    gradient, _ = learner.meta_gradient({"body.phi": theta}, EPISODE)

    assert_equal(gradient["body.phi"], slope(EPISODE.query, phi).mean(0))


@every_length
def test_reptile_is_the_way_that_was_gone(steps: int) -> None:
    """theta - mean phi_S = mean (I - (I - alpha H)^S) (theta - c), on all of a task's data."""
    learner = Reptile(Quadratic(), LOOP[steps])
    theta = theta_of(learner)
    joined = union(EPISODE.support, EPISODE.query)

    gradient, _ = learner.meta_gradient({"body.phi": theta}, EPISODE)

    phi = descended(joined, theta.expand(TASKS, SIZE), steps)
    assert_equal(gradient["body.phi"], (theta - phi).mean(0))


def test_every_task_descends_from_values_of_its_own() -> None:
    learner = FineTuning(Quadratic(), LOOP[2])
    theta = theta_of(learner)
    start = theta + torch.arange(TASKS, dtype=torch.float64)[:, None]

    path = learner.adapt({"body.phi": theta}, EPISODE.support, {"body.phi": start})

    assert_equal(path[0]["body.phi"], start)
    assert_equal(path[-1]["body.phi"], descended(EPISODE.support, start, 2))


# --- implicit gradients and evolution strategies --------------------------------------------------


def test_imaml_is_ridge_regression() -> None:
    """phi* = (H + l I)^-1 (A^T y + l theta), and its derivative l (H + l I)^-1."""
    strength = 2.0
    loop = InnerLoop(steps=2000, rates={"body": 0.02})
    learner = IMAML(Quadratic(), loop, strength=strength, solver_steps=SIZE, tasks_per_pass=TASKS)
    theta = theta_of(learner)
    support, query = EPISODE.support, EPISODE.query
    assert support.inputs is not None and support.values is not None
    transposed = support.inputs.transpose(1, 2)
    pulled = transposed @ support.inputs + strength * torch.eye(SIZE, dtype=torch.float64)
    right = (transposed @ support.values)[..., 0] + strength * theta

    adapted = learner.adapt({"body.phi": theta}, support)[-1]["body.phi"]
    gradient, figures = learner.meta_gradient({"body.phi": theta}, EPISODE)

    best = torch.linalg.solve(pulled, right)
    assert_equal(adapted, best)
    expected = strength * torch.linalg.solve(pulled, slope(query, best))
    assert_equal(gradient["body.phi"], expected.mean(0))
    loss = Quadratic().loss({"body.phi": best}, query).mean().item()
    assert figures["loss"] == pytest.approx(loss, rel=1e-10)


def test_evolution_strategies_see_the_slope_along_each_direction() -> None:
    """On a quadratic the antithetic difference is exact: 1/n sum_i (grad F . e_i) e_i."""
    learner = EvolutionStrategies(Quadratic(), LOOP[2], pairs=3, deviation=0.5)
    theta = theta_of(learner)
    exact, _ = MAML(Quadratic(), LOOP[2]).meta_gradient({"body.phi": theta}, EPISODE)

    gradient, _ = learner.meta_gradient({"body.phi": theta}, EPISODE)

    noise = [e["body.phi"] for e in learner.noise({"body.phi": theta}, EPISODE)]
    expected = torch.stack([(exact["body.phi"] @ e) * e for e in noise]).mean(0)
    assert_equal(gradient["body.phi"], expected)
    assert not torch.equal(noise[0], noise[1])
