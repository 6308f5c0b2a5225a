"""Batched = one task at a time, and meta-gradients, for every row of the common table."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from meta_models.errors import ModelError
from meta_models.params import norm
from metalearn.algorithms.maml import MAML
from metalearn.learner import in_passes
from tests.metalearn.table import (
    TABLE,
    TASKS,
    assert_near,
    initial,
    learner,
    models,
    numeric_learner,
    rows,
    rows_and_heads,
)

KINDS = pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)], ids=["fp32", "fp64"]
)


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
            if key == "scale" and dtype is torch.float32:
                # A sum that cancels: what rounding costs it is of the size of its terms, not of it.
                distance = (batched[key] - gradient[key]).abs()
                assert distance <= tolerance * norm(gradient)
            else:
                assert_near(batched[key], gradient[key], tolerance, key)
        assert same.keys() == figures.keys()
        for key, figure in figures.items():
            assert same[key] == pytest.approx(figure, rel=tolerance)


@rows(lambda row: row.gradient and row.numeric)
def test_batched_meta_gradients_of_numeric_tasks(name, sinusoids, generic) -> None:
    together, alone = (numeric_learner(name, t) for t in (TASKS, 1))
    state = {n: v.double() for n, v in generic(initial(together)).items()}

    batched, _ = together.meta_gradient(state, sinusoids)
    single, _ = alone.meta_gradient(state, sinusoids)

    for key in state:
        assert_near(batched[key], single[key], 1e-10, key)


@rows_and_heads(lambda row: row.gradient == "exact")
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


@rows(lambda row: row.gradient == "exact")
def test_meta_gradients_are_finite_differences_on_a_decoder(
    name, language_model, make_episode, generic, query_loss, check_gradient
) -> None:
    made = learner(name, language_model, backbone="tiny-gpt2", tasks=2)
    episode = make_episode(tasks=2)
    state = generic(initial(made))

    gradient, _ = made.meta_gradient(state, episode)

    few = {"per_tensor": 0, "coordinates": 0, "joint": 3}
    check_gradient(lambda s: query_loss(made, s, episode), state, gradient, **few)


@rows(lambda row: row.gradient == "exact" and row.descends)
def test_the_adjoint_is_the_unrolled_gradient(name, language_model, make_episode, generic) -> None:
    made = learner(name, language_model)
    assert isinstance(made, MAML)
    episode = make_episode()
    state = generic(initial(made))
    if made.loop.engine is not None:  # a library that only unrolls says so
        with pytest.raises(ModelError, match="adjoint"):
            replace(made.loop, gradient="adjoint")
        return

    gradients = []
    for kind in ("unrolled", "adjoint"):
        made.loop = replace(made.loop, gradient=kind)
        gradients.append(made.meta_gradient(state, episode)[0])

    unrolled, adjoint = gradients
    assert unrolled.keys() == adjoint.keys() == state.keys()
    for key, value in unrolled.items():
        assert_near(adjoint[key], value, 1e-10, key)


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
    made = numeric_learner(name)
    state = {n: v.double() for n, v in generic(initial(made)).items()}

    gradient, _ = made.meta_gradient(state, sinusoids)

    check_gradient(lambda s: query_loss(made, s, sinusoids), state, gradient)
