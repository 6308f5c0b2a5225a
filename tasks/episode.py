"""The nouns of the task side: `Example`, `Task`, `Batch`, `Episode` and the `TaskFamily` interface.

Text goes in as `Example` records, a family draws a `Task` (support and query examples), and
`tasks.collate` turns a list of tasks into one `Episode` of padded tensors.  Every tensor has a
leading task axis `T`; `B` is the number of examples of a task (padded to the largest of the
meta-batch), `L` the number of tokens, `N` the number of classes.  N and K may vary between the
tasks of a meta-batch: `class_mask` and `example_mask` say what is real.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any, Literal, Self

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from tasks.randomness import uniforms

LabelKind = Literal["class", "token", "sequence", "value"]
SplitName = Literal["train", "valid", "test"]

IGNORE = -100
"""Label of everything that is padding: the `ignore_index` of torch's cross-entropy."""


class TaskError(ValueError):
    """A mistake in the data or in what is asked of them; the message says what and the remedy."""


@dataclass(frozen=True, slots=True)
class Example:
    """One record of a source.  Which target field is filled follows the family's label kind.

    Attributes:
        id: Position of the record in its source; predictions refer to it.
        text: First text; for token labels, words joined by single spaces.
        text_b: Second text of a pair (entailment, similarity), or None.
        label: Class name (kind "class").
        token_labels: One tag a word of `text` (kind "token").
        targets: Reference outputs; the first one is trained on (kind "sequence").
        inputs: Numeric inputs, in place of text (kind "value").
        values: Numeric targets (kind "value").
        origins: Ids of the records it was made from by augmentation; empty: it is one itself.
    """

    id: int
    text: str = ""
    text_b: str | None = None
    label: str | None = None
    token_labels: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()
    inputs: tuple[float, ...] = ()
    values: tuple[float, ...] = ()
    origins: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Task:
    """One drawn task, before any tensor.

    Attributes:
        source: Name of the family it was drawn from; with an example's id it names a record.
        kind: What a label is.
        support: Examples to learn from.
        query: Examples to be judged on; disjoint from the support.
        label_names: Name of class c at position c (empty for kinds "sequence" and "value").
        class_ids: Index of class c among all classes of the family, in the same order.
    """

    source: str
    kind: LabelKind
    support: tuple[Example, ...]
    query: tuple[Example, ...]
    label_names: tuple[str, ...] = ()
    class_ids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Tokens:
    """Padded token ids.

    Attributes:
        ids: `[T, B, L]` int64.
        mask: `[T, B, L]` bool, True at real tokens.
        segments: `[T, B, L]` int64, 0 in the first text and 1 in the second; None without pairs.
    """

    ids: Tensor
    mask: Tensor
    segments: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """The support or the query sets of T tasks as tensors.

    Attributes:
        source: Family name, one a task.
        kind: What a label is; the same for all tasks of a batch.
        ids: `[T, B]` int64 record ids of the source, -1 at padding.
        example_mask: `[T, B]` bool, True at real examples.
        class_mask: `[T, N]` bool, True at real classes.
        class_ids: `[T, N]` int64 index of each class in its family, -1 at padding.
        label_names: Name of every real class, one tuple a task.
        tokens: Token ids of the texts (None for kind "value").
        inputs: `[T, B, F]` numeric inputs (kind "value" only).
        labels: `[T, B]` int64 class of each example (kind "class"), IGNORE at padding.
        token_labels: `[T, B, L]` int64 tag of each token (kind "token"), IGNORE at padding, at
            special tokens and at every but the first token of a word.
        targets: Token ids of the target sequence (kind "sequence").
        values: `[T, B, O]` numeric targets (kind "value").
        names: Token ids of the label names, `[T, N, L]` (kinds "class" and "token").
    """

    source: tuple[str, ...]
    kind: LabelKind
    ids: Tensor
    example_mask: Tensor
    class_mask: Tensor
    class_ids: Tensor
    label_names: tuple[tuple[str, ...], ...]
    tokens: Tokens | None = None
    inputs: Tensor | None = None
    labels: Tensor | None = None
    token_labels: Tensor | None = None
    targets: Tokens | None = None
    values: Tensor | None = None
    names: Tokens | None = None

    @property
    def tasks(self) -> int:
        """T, the number of tasks."""
        return self.ids.shape[0]

    def map(self, function) -> Self:
        """Apply `function` to every tensor: `batch.map(lambda x: x.to(device))`."""
        return _map(self, function)

    def select(self, start: int, stop: int, step: int = 1) -> Self:
        """The tasks `start..stop`, or every `step`-th; the task axis stays, widths stay too."""
        some = slice(start, stop, step)
        part = self.map(lambda tensor: tensor[some])
        return replace(part, source=self.source[some], label_names=self.label_names[some])

    def examples(self, start: int, stop: int) -> Self:
        """The examples `start..stop` of every task; classes and their names stay."""
        cut: dict[str, Any] = {}
        for name in ("ids", "example_mask", "inputs", "labels", "token_labels", "values"):
            tensor = getattr(self, name)
            cut[name] = None if tensor is None else tensor[:, start:stop]
        for name in ("tokens", "targets"):
            tokens = getattr(self, name)
            cut[name] = None if tokens is None else _map(tokens, lambda x: x[:, start:stop])
        return replace(self, **cut)


@dataclass(frozen=True, slots=True)
class Episode:
    """Support and query of T tasks.

    Attributes:
        index: Position of each task in its stream: task i is a pure function of (seed, i).
        support: What a learner adapts on.
        query: What it is judged on.
    """

    index: tuple[int, ...]
    support: Batch
    query: Batch

    @property
    def tasks(self) -> int:
        """T, the number of tasks."""
        return len(self.index)

    def map(self, function) -> Self:
        """Apply `function` to every tensor of support and query."""
        return replace(self, support=self.support.map(function), query=self.query.map(function))

    def select(self, start: int, stop: int, step: int = 1) -> Self:
        """The tasks `start..stop`, or every `step`-th of them."""
        return replace(
            self,
            index=self.index[start:stop:step],
            support=self.support.select(start, stop, step),
            query=self.query.select(start, stop, step),
        )


def tensors(value: Episode | Batch | Tokens, prefix: str = "") -> dict[str, Tensor]:
    """Every tensor by its place ("support.tokens.ids"), in the order in which `map` meets them."""
    found: dict[str, Tensor] = {}
    for name in value.__slots__:
        item = getattr(value, name)
        if isinstance(item, Tensor):
            found[prefix + name] = item
        elif isinstance(item, (Batch, Tokens)):
            found |= tensors(item, f"{prefix}{name}.")
    return found


def named(batch: Batch) -> Batch:
    """The label names of a batch as its texts: example c of a task is the name of class c.

    Raises:
        ValueError: If the batch has no label names.
    """
    if batch.names is None:
        raise ValueError("a batch without label names has no texts to make of them")
    classes = torch.arange(batch.class_mask.shape[1]).expand(batch.class_mask.shape)
    classes = classes.to(batch.class_ids)
    return replace(
        batch,
        ids=batch.class_ids,
        example_mask=batch.class_mask,
        tokens=batch.names,
        labels=classes.masked_fill(~batch.class_mask, IGNORE),
    )


def _map(value, function):
    changed = {}
    for field in fields(value):
        item = getattr(value, field.name)
        if isinstance(item, Tensor):
            changed[field.name] = function(item)
        elif isinstance(item, Tokens):
            changed[field.name] = _map(item, function)
    return replace(value, **changed)


@dataclass(frozen=True, slots=True)
class EpisodeShape:
    """What a drawn task looks like; a pair (low, high) is drawn uniformly for every task.

    Attributes:
        ways: N, classes a task (kinds "class"; 0 means every class of the split).
        shots: K, support examples a class (kinds "sequence", "token" and "value": in all).
        queries: Q, query examples a class (likewise).
    """

    ways: int | tuple[int, int] = 5
    shots: int | tuple[int, int] = 1
    queries: int = 5

    def draw(self, random: np.random.Generator) -> tuple[int, int, int]:
        """One (N, K, Q)."""

        def pick(size: int | tuple[int, int]) -> int:
            return size if isinstance(size, int) else int(random.integers(size[0], size[1] + 1))

        return pick(self.ways), pick(self.shots), self.queries


class TaskFamily(ABC):
    """A distribution over tasks with disjoint meta-train, validation and test parts.

    Attributes:
        name: Unique name; also the key under which tokens and features are kept.
        kind: What a label is.
    """

    name: str
    kind: LabelKind

    @abstractmethod
    def classes(self, split: SplitName) -> tuple[str, ...]:
        """Class names of a split; empty where the family has no classes."""

    @abstractmethod
    def draw(self, split: SplitName, shape: EpisodeShape, random: np.random.Generator) -> Task:
        """One task of a split.  All randomness comes from `random`.

        Raises:
            TaskError: If the split cannot supply such a task (too few classes or examples).
        """

    def draw_episode(
        self,
        split: SplitName,
        shape: EpisodeShape,
        numbers: Callable[[int], np.ndarray],
        indices: Sequence[int],
    ) -> Episode | None:
        """The tasks that `draw` makes of the stream's generators, at once and as tensors.

        A family whose tasks are numbers may answer; the episode is then the one that collating
        the tasks gives, bit for bit.  None: the tasks have to be drawn and collated.

        Args:
            split: The split.
            shape: What a task looks like.
            numbers: The first n uniform numbers `[T, n]` of each task's generator, by n.
            indices: Position of each task in its stream.

        Raises:
            TaskError: Where `draw` would.
        """
        return None


class TaskStream:
    """The endless sequence of tasks of one split: task i is a pure function of (seed, i).

    A stream keeps nothing, so resuming, sharding over ranks and evaluating on the same tasks are
    exact; what a curriculum learns is its own state, see `tasks.curriculum`.

    Example:
        >>> from tasks.sources.sinusoid import Sinusoid
        >>> stream = TaskStream(Sinusoid(), "train", EpisodeShape(shots=5, queries=5), seed=0)
        >>> stream.task(7) == stream.task(7)
        True
    """

    def __init__(
        self, family: TaskFamily, split: SplitName, shape: EpisodeShape, *, seed: int
    ) -> None:
        self.family = family
        self.split: SplitName = split
        self.shape = shape
        self.seed = seed

    def task(self, index: int) -> Task:
        """Task `index` of the stream."""
        random = np.random.default_rng((*self._key, index))
        return self.family.draw(self.split, self.shape, random)

    def tasks(self, indices: Sequence[int]) -> list[Task]:
        """The tasks at `indices`."""
        return [self.task(index) for index in indices]

    def episode(self, indices: Sequence[int]) -> Episode | None:
        """The tasks at `indices` as tensors, where the family draws them as such."""
        numbers = partial(uniforms, self._key, indices)
        return self.family.draw_episode(self.split, self.shape, numbers, indices)

    @property
    def _key(self) -> tuple[int, int]:
        # The split is part of the key, so that validation never replays the draws of training.
        return self.seed, ("train", "valid", "test").index(self.split)


def union(first: Batch, second: Batch) -> Batch:
    """The examples of both batches, task by task; L grows to the longer of the two.

    Raises:
        ValueError: If they are not batches of the same tasks.
    """
    if first.source != second.source or first.class_mask.shape != second.class_mask.shape:
        raise ValueError("only support and query of the same tasks can be united")

    def join(one: Tensor | None, other: Tensor | None, padding: int) -> Tensor | None:
        if one is None or other is None:
            return None
        if one.dim() == 3 and one.shape[2] != other.shape[2]:
            width = max(one.shape[2], other.shape[2])
            one, other = (pad(x, (0, width - x.shape[2]), value=padding) for x in (one, other))
        return torch.cat([one, other], dim=1)

    def tokens(one: Tokens | None, other: Tokens | None) -> Tokens | None:
        if one is None or other is None:
            return None
        ids, mask = join(one.ids, other.ids, 0), join(one.mask, other.mask, 0)
        assert ids is not None and mask is not None
        return Tokens(ids, mask, join(one.segments, other.segments, 0))

    return replace(
        first,
        ids=torch.cat([first.ids, second.ids], dim=1),
        example_mask=torch.cat([first.example_mask, second.example_mask], dim=1),
        tokens=tokens(first.tokens, second.tokens),
        inputs=join(first.inputs, second.inputs, 0),
        labels=join(first.labels, second.labels, IGNORE),
        token_labels=join(first.token_labels, second.token_labels, IGNORE),
        targets=tokens(first.targets, second.targets),
        values=join(first.values, second.values, 0),
    )
