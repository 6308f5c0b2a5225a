"""The functional language model: features, logits and losses of batches of tasks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from meta_models.adapters import Adapter
from meta_models.backbone import load_backbone
from meta_models.errors import ModelError
from meta_models.heads import Head, prototypes
from meta_models.mlp import MLP, Weights
from meta_models.model import AdaptedModel
from meta_models.params import Params, part, pick, stack
from tasks.collate import Collator
from tasks.episode import IGNORE, Batch, Episode, EpisodeShape, Example, TaskStream
from tasks.sources.records import RecordFamily
from tasks.sources.sinusoid import Sinusoid

MODELS = [("tiny-bert", "lora"), ("tiny-gpt2", "lora"), ("tiny-bert", "ia3")]
models = pytest.mark.parametrize(("backbone", "method"), MODELS)
TASKS = 3


def meta_of(model: AdaptedModel, generic: Any, tasks: int = TASKS) -> Params:
    """Meta-parameters that differ from task to task."""
    states = [
        generic(model.init(torch.Generator().manual_seed(0)), seed=task) for task in range(tasks)
    ]
    return {name: torch.stack([state[name] for state in states]) for name in states[0]}


def adapter_of(values: Params, task: int) -> Params:
    return {n.removeprefix("adapter."): v[task] for n, v in values.items() if part(n) == "adapter"}


def one_batch(model: AdaptedModel, values: Params, batch: Batch) -> Tensor:
    """Features without length groups and vmap: every task in one padded batch of its own."""
    assert batch.tokens is not None
    found = []
    for task in range(batch.tasks):
        mask = batch.tokens.mask[task].clone()
        mask[:, 0] = True
        segments = None if batch.tokens.segments is None else batch.tokens.segments[task]
        states = model.adapter.hidden(
            adapter_of(values, task), batch.tokens.ids[task], mask, segments
        )
        rows = []
        for row, n in zip(states, mask.sum(1).tolist(), strict=True):
            pooled = {"mean": row[:n].mean(0), "first": row[0], "last": row[n - 1]}
            rows.append(pooled[model.pooling])
        found.append(torch.stack(rows))
    features = torch.stack(found)
    return normalize(features, dim=-1) if model.unit else features


# --- features -----------------------------------------------------------------------------------


@models
@pytest.mark.parametrize("shots", [(1, 3), 12])  # within one length group, and over several
def test_grouped_features_are_those_of_one_batch(
    backbone, method, shots, language_model, make_episode, generic
) -> None:
    """In value, in order and in gradient."""
    model = language_model(backbone, method)
    shape = {"shots": shots} if shots != 12 else {"ways": 4, "shots": 8}
    batch = make_episode(TASKS, **shape).support
    values = {n: v.requires_grad_() for n, v in meta_of(model, generic).items()}
    values = pick(values, ("adapter",))

    ours, plain = model.features(values, batch), one_batch(model, values, batch)

    real = batch.example_mask
    torch.testing.assert_close(ours[real], plain[real], rtol=1e-10, atol=1e-12)
    weight = torch.randn_like(plain) * real[..., None]
    slopes = [
        torch.autograd.grad((weight * found).sum(), list(values.values()))
        for found in (ours, plain)
    ]
    for found, expected in zip(*slopes, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


@models
def test_tasks_in_one_pass_are_tasks_by_themselves(
    backbone, method, language_model, make_episode, generic
) -> None:
    model = language_model(backbone, method)
    batch = make_episode(TASKS).query
    values = meta_of(model, generic)

    together = model.features(values, batch)

    for task in range(TASKS):
        one = {n: v[task : task + 1] for n, v in values.items()}
        alone = model.features(one, batch.select(task, task + 1))
        torch.testing.assert_close(together[task : task + 1], alone, rtol=1e-10, atol=1e-12)


@models
def test_more_padding_changes_nothing(
    backbone, method, language_model, make_episode, generic
) -> None:
    """Longer rows, more rows: the real features and the loss stay."""
    model = language_model(backbone, method)
    batch = make_episode(TASKS).support
    wider = padded(batch, rows=2, tokens=3)
    values = meta_of(model, generic)

    features, again = (model.features(values, b) for b in (batch, wider))

    real = batch.example_mask
    rows = batch.ids.shape[1]
    torch.testing.assert_close(again[:, :rows][real], features[real], rtol=1e-10, atol=1e-12)
    start = model.start(values, batch)
    for name, value in model.start(values, wider).items():
        torch.testing.assert_close(value, start[name], rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(model.loss(start, wider), model.loss(start, batch))


def padded(batch: Batch, rows: int, tokens: int) -> Batch:
    """The batch with empty rows below and empty tokens on the right."""
    assert batch.tokens is not None and batch.labels is not None

    def grow(tensor: Tensor, fill: int | bool, wide: int = 0) -> Tensor:
        sides = (0, tokens, 0, rows) if wide else (0, rows)
        return torch.nn.functional.pad(tensor, sides, value=fill)

    return replace(
        batch,
        ids=grow(batch.ids, -1),
        example_mask=grow(batch.example_mask, False),
        labels=grow(batch.labels, IGNORE),
        tokens=replace(
            batch.tokens,
            ids=grow(batch.tokens.ids, 0, 1),
            mask=grow(batch.tokens.mask, False, 1),
        ),
    )


@pytest.mark.parametrize("backbone", ["tiny-bert", "tiny-gpt2"])
def test_second_derivatives_are_finite_beside_empty_rows(
    backbone, language_model, make_episode, generic
) -> None:
    model = language_model(backbone)
    batch = padded(make_episode(TASKS).support, rows=2, tokens=0)
    values = {n: v.requires_grad_() for n, v in meta_of(model, generic).items()}

    loss = model.loss(model.start(values, batch), batch).sum()
    first = torch.autograd.grad(loss, list(values.values()), create_graph=True)
    second = torch.autograd.grad(
        sum(slope.square().sum() for slope in first), list(values.values())
    )

    assert all(slope.isfinite().all() for slope in (*first, *second))


@pytest.mark.parametrize("pooling", ["mean", "first", "last"])
@pytest.mark.parametrize("unit", [True, False])
def test_poolings(pooling, unit, make_episode, generic) -> None:
    frozen = load_backbone("tiny-bert", dtype=torch.float64)
    model = AdaptedModel(
        Adapter(frozen, "lora", {"r": 2}), Head("prototype", 16), pooling=pooling, unit=unit
    )
    batch = make_episode(TASKS).support
    values = meta_of(model, generic)

    features = model.features(values, batch)

    real = batch.example_mask
    plain = one_batch(model, values, batch)
    torch.testing.assert_close(features[real], plain[real], rtol=1e-10, atol=1e-12)
    lengths = features[real].norm(dim=-1)
    assert torch.allclose(lengths, torch.ones_like(lengths)) is unit


def test_the_pooling_follows_the_kind_of_model(language_model) -> None:
    assert language_model("tiny-bert").pooling == "mean"
    assert language_model("tiny-gpt2").pooling == "last"
    with pytest.raises(ModelError, match="no pooling 'max'; known: mean, first, last"):
        AdaptedModel(language_model().adapter, Head("prototype", 16), pooling="max")


def test_both_texts_of_a_pair_count_and_are_told_apart(language_model, generic) -> None:
    records = [
        Example(i, f"one {'abcdefghij'[i]}", text_b=f"two {'xyz'[i % 3]}", label="ab"[i % 2])
        for i in range(10)
    ]
    family = RecordFamily("pairs", "class", records, {"train": ("a", "b")})
    stream = TaskStream(family, "train", EpisodeShape(2, 2, 1), seed=0)
    model = language_model()
    collator = Collator(model.adapter.backbone.tokenizer)
    batch = collator.collate(stream.tasks(range(TASKS)), range(TASKS)).support
    values = meta_of(model, generic)

    features = model.features(values, batch)

    assert batch.tokens is not None and batch.tokens.segments is not None
    torch.testing.assert_close(features, one_batch(model, values, batch))
    flat = replace(batch, tokens=replace(batch.tokens, segments=None))
    assert not torch.allclose(features, model.features(values, flat), atol=1e-3)


# --- tokens -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tagged(language_model: Any) -> Episode:
    """Two tasks of sentences with a tag a word."""
    records = [
        Example(i, f"met {'abcdefghij'[i]}{'so' * (i % 3)} now", token_labels=("O", "P", "O"))
        for i in range(10)
    ]
    family = RecordFamily("tags", "token", records, {"train": tuple(range(10))})
    stream = TaskStream(family, "train", EpisodeShape(shots=(2, 4), queries=2), seed=0)
    collator = Collator(language_model().adapter.backbone.tokenizer)
    return collator.collate(stream.tasks([0, 1]), [0, 1])


def test_token_features_are_the_hidden_states(tagged: Episode, language_model, generic) -> None:
    model, batch = language_model(), tagged.support
    values = meta_of(model, generic, tasks=2)
    assert batch.tokens is not None

    features = model.features(values, batch)

    assert features.shape == (2, batch.tokens.ids[0].numel(), 16)
    for task in range(2):
        mask = batch.tokens.mask[task]
        full = mask.clone()
        full[:, 0] = True
        states = model.adapter.hidden(adapter_of(values, task), batch.tokens.ids[task], full, None)
        torch.testing.assert_close(features[task][mask.flatten()], normalize(states[mask], dim=-1))


def test_token_prototypes_and_loss_are_over_tagged_tokens(
    tagged: Episode, language_model, generic
) -> None:
    model, batch = language_model(), tagged.support
    values = meta_of(model, generic, tasks=2)
    assert batch.token_labels is not None

    start = model.start(values, batch)
    loss = model.loss(start, batch)
    logits = model.logits(start, batch)

    labels = batch.token_labels.flatten(1)
    centers = prototypes(model.features(values, batch), labels, 2)
    torch.testing.assert_close(start["head.weight"], 2 * centers)
    for task in range(2):
        tags = labels[task] != IGNORE
        torch.testing.assert_close(
            loss[task], cross_entropy(logits[task][tags], labels[task][tags])
        )


# --- heads and losses ---------------------------------------------------------------------------


def test_the_loss_of_a_task_is_the_mean_over_its_own_examples(
    language_model, make_episode, generic
) -> None:
    model, episode = language_model(), make_episode(TASKS)
    start = model.start(meta_of(model, generic), episode.support)

    loss = model.loss(start, episode.query)

    logits = model.logits(start, episode.query)
    for task in range(TASKS):
        real = episode.query.example_mask[task]
        ways = int(episode.query.class_mask[task].sum())
        labels = episode.query.labels[task][real]
        torch.testing.assert_close(loss[task], cross_entropy(logits[task][real][:, :ways], labels))


def test_given_features_are_not_computed_again(language_model, make_episode, generic) -> None:
    model, episode = language_model(), make_episode(TASKS)
    start = model.start(meta_of(model, generic), episode.support)
    head = {n: v for n, v in start.items() if part(n) != "adapter"}  # nothing to compute with

    features = model.features(start, episode.query)

    assert torch.equal(model.loss(head, episode.query, features), model.loss(start, episode.query))


def test_label_names_make_rows_of_their_features(language_model, make_episode, generic) -> None:
    model, batch = language_model(head="label"), make_episode(TASKS, ways=3).support
    values = meta_of(model, generic)
    as_texts = replace(batch, tokens=batch.names, example_mask=batch.class_mask)

    start = model.start(values, batch)

    torch.testing.assert_close(start["head.weight"], 2 * one_batch(model, values, as_texts))


def test_what_is_not_adapted_stays_with_the_values(language_model, make_episode) -> None:
    model = language_model(head="slots")
    state = model.init(torch.Generator().manual_seed(0))

    start = model.start(stack(state, TASKS), make_episode(TASKS).support)

    assert set(start) == {n for n in state if n != "slots"} | {"head.weight", "head.bias"}


# --- refusals -----------------------------------------------------------------------------------


def test_an_adapter_without_vmap_refuses_several_tasks(make_episode) -> None:
    frozen = load_backbone("tiny-bert", dtype=torch.float64)
    adapter = Adapter(frozen, "loha", {"r": 2, "target_modules": ["query"]})
    model = AdaptedModel(adapter, Head("prototype", 16))
    state = model.init(torch.Generator().manual_seed(0))
    batch = make_episode(2).support

    assert not model.batched
    assert model.features(stack(state, 1), batch.select(0, 1)).isfinite().all()
    with pytest.raises(
        ModelError, match=r"'loha' runs one task at a time; set inner\.tasks_per_pass"
    ):
        model.features(stack(state, 2), batch)


def test_numbers_for_a_language_model_and_text_for_an_mlp_are_refused(
    language_model, make_episode
) -> None:
    stream = TaskStream(Sinusoid(), "train", EpisodeShape(shots=2, queries=2), seed=0)
    numbers = Collator(None).collate(stream.tasks([0]), [0]).support
    text = make_episode(1).support

    for model, batch, message in (
        (language_model(), numbers, "needs text; these tasks have numbers"),
        (MLP(), text, "needs numeric inputs; these tasks have text"),
    ):
        state = stack(model.init(torch.Generator()), 1)
        with pytest.raises(ModelError, match=message):
            model.features(state, batch)


def test_tasks_without_label_names_are_refused_by_a_label_head(
    language_model, make_episode
) -> None:
    model = language_model(head="label")
    batch = replace(make_episode(1).support, names=None)

    with pytest.raises(ModelError, match="needs label names"):
        model.start(stack(model.init(torch.Generator()), 1), batch)


# --- the MLP ------------------------------------------------------------------------------------


def test_the_fresh_weights_of_an_mlp() -> None:
    def layers(weights: Weights) -> tuple[Tensor, Tensor]:
        values = MLP((1, 400, 400, 1), weights=weights).init(torch.Generator().manual_seed(0))
        return values["body.weight1"], values["body.bias1"]

    weight, bias = layers("he")
    assert weight.std().item() == pytest.approx((2 / 400) ** 0.5, rel=0.01) and not bias.any()
    weight, bias = layers("small")
    assert weight.abs().max() <= 0.02 and not bias.any()
    # a normal distribution cut at two deviations
    assert weight.std().item() == pytest.approx(0.0088, rel=0.01)
    for value in layers("uniform"):
        assert 0.049 < value.abs().max() <= 0.05
        assert value.std().item() == pytest.approx(0.05 / 3**0.5, rel=0.1)


def test_the_mlp_is_that_of_torch() -> None:
    stream = TaskStream(Sinusoid(), "train", EpisodeShape(shots=(3, 6), queries=2), seed=0)
    batch = Collator(None).collate(stream.tasks([0, 1]), [0, 1]).support
    model = MLP((1, 5, 4, 1))
    states = [model.init(torch.Generator().manual_seed(seed)) for seed in (0, 1)]
    values = {n: torch.stack([s[n] for s in states]) for n in states[0]}

    outputs, loss = model.logits(values, batch), model.loss(values, batch)

    assert batch.inputs is not None and batch.values is not None
    for task, state in enumerate(states):
        layers = [torch.nn.Linear(*size) for size in ((1, 5), (5, 4), (4, 1))]
        for number, layer in enumerate(layers):
            name = "head" if number == 2 else "body"
            layer.weight.data = state[f"{name}.weight{number}"]
            layer.bias.data = state[f"{name}.bias{number}"] + 0.0
        relu = torch.nn.ReLU()
        network = torch.nn.Sequential(layers[0], relu, layers[1], relu, layers[2])
        torch.testing.assert_close(outputs[task], network(batch.inputs[task]))
        real = batch.example_mask[task]
        error = (outputs[task] - batch.values[task])[real].square().mean()
        torch.testing.assert_close(loss[task], error)
