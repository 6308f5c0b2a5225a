"""Task features: each against another way of computing it, and none of them from a query."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from sklearn.metrics import silhouette_score

from meta_models.features import FeatureStore
from meta_models.params import part, stack
from metalearn.inner.loop import InnerLoop
from metalearn.selection import features
from metalearn.selection.features import GROUPS, Instruments, describe
from tasks.episode import Batch, Episode

RANDOM = np.random.default_rng(0)


@pytest.fixture(scope="module")
def instruments(language_model) -> Instruments:
    frozen = language_model(method="none")
    adapted = language_model(head="prototype")
    generator = torch.Generator().manual_seed(0)
    return Instruments(
        FeatureStore(frozen),
        frozen.init(generator),
        adapted,
        adapted.init(generator),
        InnerLoop(1, {"adapter": 0.1, "head": 0.1}),
        RANDOM.standard_normal((5, 16)),
    )


@pytest.fixture(scope="module")
def episode(make_episode) -> Episode:
    return make_episode(tasks=1, ways=3, shots=3)


def test_every_group_is_found_finite_and_timed(instruments, episode) -> None:
    found, seconds = describe(episode.support, instruments)

    assert seconds.keys() == GROUPS.keys()
    assert {name.partition(".")[0] for name in found} == set(GROUPS)
    assert len(found) == 24
    assert np.isfinite(list(found.values())).all()
    assert found["shape.ways"] == 3
    assert found["shape.shots"] == 3
    assert found["shape.balance"] == pytest.approx(1)


def test_no_query_can_leak(instruments, episode, make_episode) -> None:
    """What is described takes a support set, and nothing of it leads to the queries.

    The instruments are the same for all tasks; what they have kept of queries moves nothing.
    """
    before = describe(episode.support, instruments)[0]
    instruments.store.features(instruments.state, episode.query)
    assert describe(episode.support, instruments)[0] == before

    others = make_episode(tasks=1, ways=3, shots=3, queries=1).query
    assert {id(value) for value in _tensors(episode.support)}.isdisjoint(
        id(value) for value in (*_tensors(episode.query), *_tensors(others))
    )
    names = {field.name for field in fields(Batch)}
    assert "query" not in names


def _tensors(batch: Batch) -> list[torch.Tensor]:
    return [v for f in fields(batch) if isinstance(v := getattr(batch, f.name), torch.Tensor)]


@pytest.mark.parametrize("shots", [1, (1, 3)])
def test_tasks_of_one_example_a_class_have_all_features_too(
    instruments, make_episode, shots
) -> None:
    episode = make_episode(tasks=1, ways=4, shots=shots)
    found = describe(episode.support, instruments)[0]
    if shots == 1:
        assert found["geometry.neighbour"] == found["geometry.centroid"] == 0.25
        assert found["geometry.silhouette"] == 0.0


def test_the_silhouette_is_that_of_scikit_learn() -> None:
    rows, labels = RANDOM.standard_normal((30, 4)), RANDOM.integers(0, 3, 30)
    assert features.silhouette(rows, labels) == pytest.approx(silhouette_score(rows, labels))


def test_leave_one_out_is_what_it_says() -> None:
    rows, labels = RANDOM.standard_normal((20, 3)), RANDOM.integers(0, 3, 20)
    rows += labels[:, None]
    near, center = [], []
    for i in range(20):
        rest = np.arange(20) != i
        distances = np.linalg.norm(rows[rest] - rows[i], axis=1)
        near.append(labels[rest][distances.argmin()] == labels[i])
        means = [rows[rest & (labels == c)].mean(0) for c in range(3)]
        center.append(np.argmin(np.linalg.norm(means - rows[i], axis=1)) == labels[i])
    assert features.neighbour_accuracy(rows, labels) == np.mean(near)
    assert features.centroid_accuracy(rows, labels) == np.mean(center)


def test_gradients_are_those_of_the_support_loss(instruments, episode) -> None:
    """The norms against central differences along the gradient itself."""
    found = describe(episode.support, instruments, ["gradient"])[0]
    model = instruments.model
    with torch.no_grad():
        values = model.start(stack(instruments.start, 1), episode.support)

    for name in ("adapter", "head"):
        leaf = {n: v.detach().requires_grad_(part(n) == name) for n, v in values.items()}
        known = {n: v for n, v in leaf.items() if v.requires_grad}
        loss = model.loss(leaf, episode.support).sum()
        slopes = dict(zip(known, torch.autograd.grad(loss, list(known.values())), strict=True))
        size = sum(float(s.square().sum()) for s in slopes.values()) ** 0.5
        step = 1e-4
        ahead, behind = (
            model.loss(
                {n: v.detach() + sign * step * slopes[n] / size if n in slopes else v.detach()
                 for n, v in values.items()},
                episode.support,
            ).item()
            for sign in (1, -1)
        )  # fmt: skip
        assert found[f"gradient.{name}_gradient"] == pytest.approx(
            (ahead - behind) / (2 * step), rel=1e-3
        )
    rate = 1e-4
    small = replace(instruments, loop=InnerLoop(1, {"adapter": rate, "head": rate}))
    drop = describe(episode.support, small, ["gradient"])[0]["gradient.loss_drop"]
    norms = [found[f"gradient.{name}_gradient"] for name in ("adapter", "head")]
    assert drop == pytest.approx(rate * sum(norm**2 for norm in norms), rel=0.05)


def test_classes_that_share_no_word_are_seen(instruments, episode) -> None:
    assert episode.support.tokens is not None
    labels = episode.support.labels
    assert labels is not None
    ids = (10 + labels)[:, :, None].expand(episode.support.tokens.ids.shape)
    tokens = replace(episode.support.tokens, ids=ids.contiguous())
    found = features.words(replace(episode.support, tokens=tokens), instruments)

    assert found["shared_terms"] == 0
    assert found["tfidf_centroid"] == 1
    assert found["new_terms"] == 0


def test_unbalanced_tasks_are_told_from_balanced_ones(instruments, make_episode) -> None:
    support = make_episode(tasks=1, ways=2, shots=3).support
    labels = support.labels.clone()
    labels[0, :2] = 1 - labels[0, 0]
    found = features.shape(replace(support, labels=labels), instruments)

    share = np.array([1, 5]) / 6
    assert found["balance"] == pytest.approx(-np.sum(share * np.log(share)) / np.log(2))
    assert found["least"] == pytest.approx(1 / 3)


def test_mistakes_are_named(instruments, make_episode, episode) -> None:
    with pytest.raises(ValueError, match="one task at a time, not of 3"):
        describe(make_episode().support, instruments)
    with pytest.raises(ValueError, match="no group of features shapes; it is one of shape, words"):
        describe(episode.support, instruments, ["shapes"])
    bad = replace(instruments, anchors=np.full((5, 16), np.nan))
    with pytest.raises(ValueError, match=r"feature geometry\.leep is nan"):
        describe(episode.support, bad)
