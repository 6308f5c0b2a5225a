"""Augmentation of training tasks: classes made of two, and edited words.

    task i = augment(task i of the stream, generator of (seed, i))

so that an augmented stream is as pure as the one below it, and draws the same records.  Only a
training stream can be augmented: validation and test tasks stay as they are drawn.

A made example has an id of its own, above those of all records, and names the records it was made
from in `origins`; the leakage check of a task looks at both.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from tasks.episode import Example, Task, TaskError, TaskStream
from tasks.sampling import text_key
from tasks.splits import check_task

AUGMENT = 4
"""Second part of the key of the augmentation's generators; a stream's is its split: 0, 1 or 2."""

MADE = 1 << 61
"""Smallest id of a made example, and of a made class: no source has so many records."""


def mix_classes(task: Task) -> Task:
    """A task of as many new classes, each made of two of the task's own.

        class n of the new task: (x^n_j, x^{n+1}_j) for j = 1..K,    n + 1 counted modulo N

    where x^n_j is example j of class n: an example is a pair of texts, one of each class in this
    order.  Support is made of support and query of query, so that no record is in both.

    Deviations from the paper, which interpolates the hidden features and the labels of two tasks:

    1. The second task is the first one with its classes turned by one place, which needs no more
       classes than a task has; as in the paper where labels are not shared, each class of one
       task meets one class of the other, and the two make a new class.
    2. Texts are put side by side, where hidden features are averaged.

    Args:
        task: Task of at least three classes with equally many examples each, of one text each.

    Raises:
        TaskError: If it is no such task.

    Example:
        >>> texts = tuple(Example(i, f"text {c}", label=c) for i, c in enumerate("abc"))
        >>> mixed = mix_classes(Task("s", "class", texts, (), ("a", "b", "c"), (0, 1, 2)))
        >>> [(example.label, example.origins) for example in mixed.support]
        [('a + b', (0, 1)), ('b + c', (1, 2)), ('c + a', (2, 0))]

    Source: Yao et al. 2022, "Meta-Learning with Fewer Tasks through Task Interpolation", section 3;
    new classes by augmentation: Ni et al. 2021, "Data Augmentation for Meta-Learning", section 3.
    """
    _check_ways(task.source, len(task.label_names))
    names, ids = task.label_names, task.class_ids
    after = [*range(1, len(names)), 0]
    labels = tuple(f"{name} + {names[after[c]]}" for c, name in enumerate(names))
    if len(set(labels)) < len(labels):
        raise TaskError(f"two mixed classes of {task.source!r} have one name; rename {names}")

    def mixed(examples: Sequence[Example]) -> tuple[Example, ...]:
        of = [[example for example in examples if example.label == name] for name in names]
        if len({len(rows) for rows in of}) > 1:
            raise TaskError(f"a class of {task.source!r} has fewer examples; mixing needs as many")
        return tuple(
            _pair(task.source, one, other, labels[c])
            for c in range(len(names))
            for one, other in zip(of[c], of[after[c]], strict=True)
        )

    return replace(
        task,
        support=mixed(task.support),
        query=mixed(task.query),
        label_names=labels,
        class_ids=tuple(MADE + (c << 30) + ids[after[n]] for n, c in enumerate(ids)),
    )


@dataclass(frozen=True)
class WordEdits:
    """Random edits of the words of a text, each word by itself and in this order.

        delete      left out; of a text that would lose all words, one stays
        mask        replaced by `mask_word`
        duplicate   written twice
        swap        exchanged with another word of the text, uniformly

    Deviations from the paper:

    1. Every word is edited with a probability, where the paper edits a fixed number of words by
       one operation a copy; the expected number is the same.
    2. Words are doubled or masked, where the paper inserts or takes synonyms, which need a lexicon.

    Attributes:
        delete: Probability of each word.
        swap: Likewise.
        duplicate: Likewise.
        mask: Likewise.
        mask_word: What stands for a masked word: the mask token of the tokenizer.

    Raises:
        ValueError: If a probability is none.

    Example:
        >>> WordEdits(duplicate=1.0)("where is my card", np.random.default_rng(0))
        'where where is is my my card card'

    Source: Wei and Zou 2019, "EDA: Easy Data Augmentation Techniques for Boosting Performance on
    Text Classification Tasks", section 2.
    """

    delete: float = 0.0
    swap: float = 0.0
    duplicate: float = 0.0
    mask: float = 0.0
    mask_word: str = "[MASK]"

    def __post_init__(self) -> None:
        for name in ("delete", "swap", "duplicate", "mask"):
            _check_probability(name, getattr(self, name))

    def __call__(self, text: str, random: np.random.Generator) -> str:
        """The edited text; the text itself where no word was hit."""
        before = text.split()
        words = [word for word, hit in _draw(before, self.delete, random) if not hit]
        words = words or [before[random.integers(len(before))]]
        words = [self.mask_word if hit else word for word, hit in _draw(words, self.mask, random)]
        doubled = _draw(words, self.duplicate, random)
        words = [word for each, hit in doubled for word in [each] * (1 + hit)]
        for i, (_, hit) in enumerate(_draw(list(words), self.swap, random)):
            if hit and len(words) > 1:
                j = (i + 1 + random.integers(len(words) - 1)) % len(words)
                words[i], words[j] = words[j], words[i]
        return text if words == before else " ".join(words)


@dataclass(frozen=True)
class Augmentation:
    """A random function from tasks to tasks; ways, shots and queries stay.

    Attributes:
        mix: Probability that the classes of a task are mixed.
        edits: What is done to its words then; None: nothing.
        sets: Where words are edited.

    Raises:
        ValueError: If `mix` is no probability.

    Example:
        >>> text = Example(0, "one two three", label="numbers")
        >>> task = Task("s", "class", (text,), (), ("numbers",), (0,))
        >>> edited = Augmentation(edits=WordEdits(swap=1.0))(task, np.random.default_rng(0))
        >>> edited.support[0].text, edited.support[0].origins
        ('three two one', (0,))
    """

    mix: float = 0.0
    edits: WordEdits | None = None
    sets: tuple[Literal["support", "query"], ...] = ("support",)

    def __post_init__(self) -> None:
        _check_probability("mix", self.mix)

    def __call__(self, task: Task, random: np.random.Generator) -> Task:
        """The augmented task.

        Raises:
            TaskError: If classes cannot be mixed, see `mix_classes`.
        """
        if random.random() < self.mix:
            task = mix_classes(task)
        if self.edits is not None:
            task = self._edited(task, self.edits, random)
        check_task(task)
        return task

    def _edited(self, task: Task, edits: WordEdits, random: np.random.Generator) -> Task:
        taken = {text_key(example) for example in (*task.support, *task.query)}

        def edited(example: Example) -> Example:
            second = example.text_b
            texts = edits(example.text, random), second and edits(second, random)
            origins = example.origins or (example.id,)
            made = _made(task.source, origins, example.label, *texts)
            # A text may not become another one of the task, which may lie on its other side.
            if texts == (example.text, second) or (key := text_key(made)) in taken:
                return example
            taken.add(key)
            return made

        return replace(
            task, **{name: tuple(map(edited, getattr(task, name))) for name in self.sets}
        )


class AugmentedStream:
    """The tasks of a training stream, augmented: task i is a pure function of (seed, i).

    Args:
        stream: The training tasks.
        augmentation: What is done to each.

    Raises:
        TaskError: If the stream is none of training tasks with classes, or its classes cannot be
            mixed.

    Example:
        >>> from tasks.episode import EpisodeShape
        >>> from tasks.sources.builtin import builtin
        >>> stream = TaskStream(builtin(), "train", EpisodeShape(ways=3), seed=0)
        >>> task = AugmentedStream(stream, Augmentation(mix=1.0)).task(5)
        >>> task.label_names == mix_classes(stream.task(5)).label_names
        True
    """

    def __init__(self, stream: TaskStream, augmentation: Augmentation) -> None:
        family, ways = stream.family, stream.shape.ways
        if stream.split != "train":
            raise TaskError(
                f"only training tasks are augmented; those of the split {stream.split!r} of "
                f"{family.name!r} stay as they are drawn"
            )
        if family.kind != "class":
            raise TaskError(
                f"only texts with a class are augmented, but {family.name!r} is of kind "
                f"{family.kind!r}; leave augmentation out"
            )
        if augmentation.mix:
            if not isinstance(ways, int):
                _check_ways(family.name, ways[0])
            mix_classes(stream.task(0))  # what cannot be mixed is refused before the training
        self.stream = stream
        self.augmentation = augmentation

    def task(self, index: int) -> Task:
        """Task `index` of the stream, augmented."""
        random = np.random.default_rng((self.stream.seed, AUGMENT, index))
        return self.augmentation(self.stream.task(index), random)

    def tasks(self, indices: Sequence[int]) -> list[Task]:
        """The tasks at `indices`."""
        return [self.task(index) for index in indices]

    def episode(self, indices: Sequence[int]) -> None:
        """Texts have to be drawn and collated, see `TaskStream.episode`."""


def _pair(source: str, one: Example, other: Example, label: str) -> Example:
    if one.text_b is not None or other.text_b is not None:
        raise TaskError(
            f"the examples of {source!r} are pairs of texts already, which cannot be mixed; "
            "leave class mixing out"
        )
    origins = (*(one.origins or (one.id,)), *(other.origins or (other.id,)))
    return _made(source, origins, label, one.text, other.text)


def _made(
    source: str, origins: tuple[int, ...], label: str | None, text: str, text_b: str | None
) -> Example:
    """An example whose id is a function of everything in it: equal ids, equal examples."""
    content = repr((source, origins, label, text, text_b)).encode()
    digest = int.from_bytes(hashlib.blake2b(content, digest_size=8).digest())
    return Example(MADE + digest % MADE, text, text_b, label, origins=origins)


def _draw(
    words: Sequence[str], probability: float, random: np.random.Generator
) -> Iterator[tuple[str, bool]]:
    """Each word, and whether it is hit."""
    return zip(words, (random.random(len(words)) < probability).tolist(), strict=True)


def _check_ways(source: str, ways: int) -> None:
    if ways < 3:
        raise TaskError(
            f"mixing the classes of a task needs at least 3 of them, but tasks of {source!r} have "
            f"{ways}; ask for more ways or leave class mixing out"
        )


def _check_probability(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"{name} {value} is no probability; give a number from 0 to 1")
