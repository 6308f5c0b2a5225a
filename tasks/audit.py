"""What a folder of tasks holds: sizes, duplicates, contradictions, and what meta-splits share.

Two texts are the same if they differ in case and white space alone (`tasks.sampling.text_key`): of
these a task draws one.  They are nearly the same if they differ also in punctuation, accents or
numbers; what is nearly the same is told and left to the reader.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median

from tasks.episode import Example
from tasks.sampling import text_key
from tasks.sources.folder import Splits, TaskFile, leaks


def near_key(example: Example) -> tuple[str, str]:
    """The texts of an example without case, white space, punctuation, accents and numbers.

    Example:
        >>> near_key(Example(0, "Où est le n° 12?")) == near_key(Example(1, "ou est le n 7"))
        True
    """
    return _bare(example.text), _bare(example.text_b or "")


def _bare(text: str) -> str:
    parts = unicodedata.normalize("NFKD", text.casefold())
    plain = "".join(c for c in parts if not unicodedata.combining(c))
    return " ".join(re.findall(r"[^\W\d_]+|#", re.sub(r"\d+", " # ", plain))) or plain


@dataclass(frozen=True)
class Sizes:
    """One task in numbers.

    Attributes:
        examples: Records.
        classes: Records of each class, by name.
        duplicates: Records whose text was there before, in the same class.
        near: Records whose text was nearly there before, duplicates not counted.
        contradictions: Texts that have two classes.
        tokens: Median and largest number of tokens of a text.
        cut: Texts that are longer than the backbone reads.
    """

    examples: int
    classes: dict[str, int]
    duplicates: int
    near: int
    contradictions: int
    tokens: tuple[float, int]
    cut: int


def measure(
    task: TaskFile, count_tokens: Callable[[Sequence[Example]], list[int]], longest: int
) -> Sizes:
    """One task in numbers.

    Args:
        task: The task.
        count_tokens: Tokens of each example, uncut.
        longest: Tokens that the backbone reads.

    Example:
        >>> from pathlib import Path
        >>> texts = ["good", "Good ", "good!", "bad", "good"]
        >>> labels = ["yes", "yes", "yes", "no", "no"]
        >>> rows = tuple(Example(i, t, label=l) for i, (t, l) in enumerate(zip(texts, labels)))
        >>> sizes = measure(TaskFile("mood", Path("mood.csv"), rows), lambda es: [3] * len(es), 128)
        >>> sizes.classes, sizes.duplicates, sizes.near, sizes.contradictions
        ({'no': 2, 'yes': 3}, 1, 1, 1)
    """
    examples = task.examples
    same = _repeats((text_key(e), e.label) for e in examples)
    near = _repeats((near_key(e), e.label) for e in examples)
    labels: dict[Hashable, set[str | None]] = defaultdict(set)
    for example in examples:
        labels[text_key(example)].add(example.label)
    tokens = count_tokens(examples)
    return Sizes(
        examples=len(examples),
        classes=dict(sorted(Counter(str(example.label) for example in examples).items())),
        duplicates=same,
        near=near - same,
        contradictions=sum(len(found) > 1 for found in labels.values()),
        tokens=(median(tokens), max(tokens)),
        cut=sum(count > longest for count in tokens),
    )


def _repeats(keys: Iterable[Hashable]) -> int:
    found = list(keys)
    return len(found) - len(set(found))


@dataclass(frozen=True)
class Shared:
    """Texts that two tasks share.

    Attributes:
        one: A task.
        other: A task after it.
        texts: Distinct texts, the same or nearly so, of both.
        near: Of these, the nearly same ones.
        example: One of them.
    """

    one: str
    other: str
    texts: int
    near: int
    example: str


def shared(tasks: Sequence[TaskFile]) -> Iterator[Shared]:
    """The pairs of tasks that share texts, whatever their classes."""
    exact: dict[Hashable, set[str]] = defaultdict(set)
    near: dict[Hashable, dict[str, str]] = defaultdict(dict)
    for task in tasks:
        for example in task.examples:
            exact[text_key(example)].add(task.name)
            near[near_key(example)].setdefault(task.name, example.text)
    same: Counter[tuple[str, str]] = Counter()
    pairs: dict[tuple[str, str], list[str]] = defaultdict(list)
    for names in exact.values():
        same.update(_pairs(names))
    for texts in near.values():
        for pair in _pairs(texts):
            pairs[pair].append(texts[pair[0]])
    for (one, other), texts in sorted(pairs.items()):
        near_only = max(0, len(texts) - same[one, other])
        yield Shared(one, other, len(texts), near_only, texts[0])


def _pairs(names: Iterable[str]) -> Iterator[tuple[str, str]]:
    ordered = sorted(names)
    for i, one in enumerate(ordered):
        yield from ((one, other) for other in ordered[i + 1 :])


def leak_problems(tasks: Sequence[TaskFile], splits: Splits, most: int = 5) -> Iterator[str]:
    """The labelled texts that meta-splits share, one line each, the first ones of every pair.

    Args:
        tasks: The tasks.
        splits: Their meta-splits.
        most: Lines a pair of tasks.
    """
    where = {name: split for split, names in splits.items() for name in names}
    paths = {task.name: task.path for task in tasks}
    found: dict[tuple[str, str], list[str]] = defaultdict(list)
    for text, one, other in leaks(tasks, splits):
        found[one, other].append(text)
    for (one, other), texts in found.items():
        for text in texts[:most]:
            yield (
                f"{paths[other]}: the text {text[:40]!r} ({where[other]}) has the same class in "
                f"{paths[one]} ({where[one]}); remove it from one"
            )
        if len(texts) > most:
            yield f"{paths[other]}: {len(texts) - most} more such texts of {paths[one]}"
