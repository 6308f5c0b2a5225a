"""The episode protocol on learners made by hand, whose every answer is known."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from meta_models.mlp import MLP
from meta_models.params import Params
from metalearn.algorithms.maml import MAML
from metalearn.baselines.finetune import FineTuning
from metalearn.baselines.majority import Majority
from metalearn.evaluation import evaluate, validation_score
from metalearn.inner.loop import InnerLoop
from metalearn.learner import Learner
from tasks.collate import Collator
from tasks.episode import IGNORE, Batch, Episode, EpisodeShape, TaskStream, Tokens
from tasks.sources.sinusoid import Sinusoid

SURE = 3.0  # logit of the class that is said; the others have zero


class Improving(Learner):
    """After step s of 2 it says the right class of the first s items of a task, else class 0."""

    def __init__(self, tasks_per_pass: int = 4) -> None:
        self.tasks_per_pass = tasks_per_pass
        self.supports: list[tuple[int, ...]] = []

    def init(self, generator: torch.Generator) -> Params:
        return {}

    def adapt(self, state: Params, support: Batch, start: Params | None = None) -> list[int]:
        self.supports.append(tuple(support.ids[:, 0].tolist()))
        return [0, 1, 2]

    def predict(self, adapted: int, query: Batch) -> Tensor:
        labels = query.labels if query.labels is not None else query.token_labels.flatten(1)
        said = torch.zeros_like(labels)
        for task, row in enumerate(labels):
            real = (row != IGNORE).nonzero()[:adapted, 0]
            said[task, real] = row[real]
        return SURE * torch.nn.functional.one_hot(said, query.class_mask.shape[1]).double()


def two_tasks() -> Episode:
    """A task of three classes and one of two, with three and two query examples."""
    support = Batch(
        source=("hand", "hand"),
        kind="class",
        ids=torch.tensor([[1, 2, 3], [4, 5, -1]]),
        example_mask=torch.tensor([[True, True, True], [True, True, False]]),
        class_mask=torch.tensor([[True, True, True], [True, True, False]]),
        class_ids=torch.tensor([[7, 8, 9], [8, 7, -1]]),
        label_names=(("a", "b", "c"), ("b", "a")),
        labels=torch.tensor([[0, 1, 2], [0, 1, IGNORE]]),
    )
    query = replace(
        support,
        ids=torch.tensor([[11, 12, 13], [14, 15, -1]]),
        labels=torch.tensor([[1, 2, 0], [1, 1, IGNORE]]),
    )
    return Episode((40, 41), support, query)


def loss(right: int, wrong: int, classes: int) -> float:
    """Mean cross-entropy when the said class has logit SURE."""
    total = math.log(math.exp(SURE) + classes - 1)
    return (right * (total - SURE) + wrong * total) / (right + wrong)


def score(judged: Any, episode: int, split: str, step: int) -> dict[str, Any]:
    [row] = [
        r for r in judged.scores if (r["episode"], r["split"], r["step"]) == (episode, split, step)
    ]
    return row


def test_scores_and_predictions_are_those_of_the_learner() -> None:
    judged = evaluate(Improving(), {}, [two_tasks()])

    assert judged.tasks == 2
    assert len(judged.scores) == 2 * 2 * 3  # tasks, splits, steps
    assert len(judged.predictions) == (3 + 3 + 2 + 2) * 3
    for step, right in ((0, 1), (1, 2), (2, 3)):  # the query labels are 1, 2, 0
        row = score(judged, 40, "query", step)
        assert row["accuracy"] == pytest.approx(right / 3)
        # Padding columns are logits of the made learner like any other: three classes in all.
        assert row["loss"] == pytest.approx(loss(right, 3 - right, 3))
    assert [score(judged, 41, "query", step)["accuracy"] for step in range(3)] == [0.0, 0.5, 1.0]
    # b is never meant in the query of the second task: F1 is a mean over the classes meant.
    assert score(judged, 41, "query", 1)["macro_f1"] == pytest.approx(2 / 3)
    assert score(judged, 40, "query", 2)["macro_f1"] == 1.0
    shown = [
        (r["example"], r["label"], r["prediction"])
        for r in judged.predictions
        if (r["split"], r["step"]) == ("query", 1)
    ]
    assert shown == [
        (11, "b", "b"),
        (12, "c", "a"),
        (13, "a", "a"),
        (14, "a", "a"),
        (15, "a", "b"),
    ]
    probability = math.exp(SURE) / (math.exp(SURE) + 2)
    assert all(r["probability"] == pytest.approx(probability) for r in judged.predictions)


def test_without_the_curve_only_the_last_query_answers_are_judged() -> None:
    judged = evaluate(Improving(), {}, [two_tasks()], curve=False)
    whole = evaluate(Improving(), {}, [two_tasks()])

    assert {(r["split"], r["step"]) for r in judged.scores} == {("query", 2)}
    assert judged.scores == [r for r in whole.scores if (r["split"], r["step"]) == ("query", 2)]
    assert len(judged.predictions) == 5


def test_the_final_scores_are_ordered_by_episode() -> None:
    first, second = two_tasks().select(0, 1), two_tasks().select(1, 2)

    judged = evaluate(Improving(), {}, [second, first])

    assert [row["episode"] for row in judged.scores[:1]] == [41]
    assert judged.final(step=1).tolist() == pytest.approx([2 / 3, 1 / 2])
    assert judged.final("loss").tolist() == pytest.approx([loss(3, 0, 3), loss(2, 0, 3)])


def test_tasks_reach_the_learner_as_many_at_a_time_as_it_takes() -> None:
    learner, done = Improving(tasks_per_pass=1), []

    evaluate(learner, {}, [two_tasks(), two_tasks()], progress=done.append)

    assert learner.supports == [(1,), (4,), (1,), (4,)]
    assert done == [2, 4]


def test_validation_is_the_mean_accuracy_after_the_last_step() -> None:
    assert validation_score(Improving(), [two_tasks()])({}) == 1.0
    assert validation_score(Majority(), [two_tasks()])({}) == pytest.approx((1 / 3 + 0) / 2)


def test_every_token_with_a_tag_is_judged() -> None:
    """Two sentences of two and one tagged words, beside special tokens and padding."""
    tags = torch.tensor([[[IGNORE, 1, 0, IGNORE], [IGNORE, 1, IGNORE, IGNORE]]])
    batch = Batch(
        source=("tags",),
        kind="token",
        ids=torch.tensor([[21, 22]]),
        example_mask=torch.tensor([[True, True]]),
        class_mask=torch.tensor([[True, True]]),
        class_ids=torch.tensor([[0, 1]]),
        label_names=(("O", "PER"),),
        tokens=Tokens(torch.ones_like(tags), tags > -200),
        token_labels=tags,
    )

    judged = evaluate(Improving(), {}, [Episode((5,), batch, batch)])

    assert [r["accuracy"] for r in judged.scores if r["split"] == "query"] == pytest.approx(
        [1 / 3, 2 / 3, 2 / 3]
    )
    shown = [
        (r["example"], r["label"], r["prediction"])
        for r in judged.predictions
        if (r["split"], r["step"]) == ("query", 1)
    ]
    assert shown == [(21, "PER", "PER"), (21, "O", "O"), (22, "PER", "O")]


def sinusoids(indices: range) -> Episode:
    stream = TaskStream(Sinusoid(), "test", EpisodeShape(shots=(3, 8), queries=4), seed=0)
    return Collator(None).collate(stream.tasks(indices), indices)


def test_values_are_judged_by_their_squared_error() -> None:
    learner = FineTuning(MLP((1, 8, 1)), InnerLoop(2, {"body": 0.01, "head": 0.01}))
    state = learner.init(torch.Generator().manual_seed(0))
    episode = sinusoids(range(3))

    judged = evaluate(learner, state, [episode])

    assert judged.predictions == []
    assert len(judged.scores) == 3 * 2 * 3
    path = learner.adapt(state, episode.support)
    for split in ("support", "query"):
        batch = getattr(episode, split)
        for step, values in enumerate(path):
            for task, expected in enumerate(learner.model.loss(values, batch).tolist()):
                row = score(judged, task, split, step)
                assert row["loss"] == pytest.approx(expected, rel=1e-5)
                assert math.isnan(row["accuracy"]) and math.isnan(row["macro_f1"])
    assert validation_score(learner, [episode])(state) == pytest.approx(
        -judged.final("loss").mean()
    )


def test_neither_order_nor_grouping_of_the_tasks_matters(language_model, make_episode) -> None:
    """One at a time or all at once, forwards or backwards: the same rows."""
    learner = MAML(language_model(), InnerLoop(2, {"adapter": 0.05, "head": 0.05}))
    state = learner.init(torch.Generator().manual_seed(0))
    singles = [make_episode(1, first=i) for i in range(4)]
    whole = make_episode(4)

    def key(row: dict[str, Any]) -> tuple:
        return row["episode"], row["split"], row["step"], row.get("example", 0)

    forwards = evaluate(learner, state, singles)
    backwards = evaluate(learner, state, singles[::-1])
    together = evaluate(learner, state, [whole])

    for rows in ("scores", "predictions"):
        expected = sorted(getattr(forwards, rows), key=key)
        assert sorted(getattr(backwards, rows), key=key) == expected
        for found, row in zip(sorted(getattr(together, rows), key=key), expected, strict=True):
            for name, value in row.items():
                near = pytest.approx(value, rel=1e-9) if isinstance(value, float) else value
                assert found[name] == near
    assert np.array_equal(forwards.final(), backwards.final())


def test_learners_are_judged_on_the_same_items(language_model, make_episode) -> None:
    maml = MAML(language_model(), InnerLoop(1, {"adapter": 0.05, "head": 0.05}))
    episodes = [make_episode(2), make_episode(2, first=2)]

    def items(learner: Learner) -> set:
        state = learner.init(torch.Generator().manual_seed(0))
        judged = evaluate(learner, state, episodes, curve=False)
        return {(r["episode"], r["example"], r["label"]) for r in judged.predictions}

    assert items(maml) == items(Majority())
    assert len(items(maml)) == sum(int(e.query.example_mask.sum()) for e in episodes)
