"""Disjoint meta-train, validation and test parts, and the checks that refuse leakage."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Hashable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar, get_args

import numpy as np

from tasks.episode import Example, SplitName, Task, TaskError
from tasks.sampling import TextKey, text_key
from tasks.sources.files import did_you_mean, find

SPLITS: tuple[SplitName, ...] = get_args(SplitName)

Item = TypeVar("Item", bound=Hashable)
"""What a meta-split is made of: class names, or record ids where there are no classes."""

ClassSplits = dict[SplitName, tuple[str, ...]]
RecordSplits = dict[SplitName, tuple[int, ...]]


def draw_splits(
    items: Collection[Item], seed: int, fractions: tuple[float, float, float] = (0.6, 0.2, 0.2)
) -> dict[SplitName, tuple[Item, ...]]:
    """Split classes (or record ids) at random, the same way for the same set and seed.

    Args:
        items: What is split; its order does not matter.
        seed: Seed of the split.
        fractions: Shares of train, valid and test; they sum to one.

    Raises:
        TaskError: If a part with a positive share would stay empty, or the shares are no shares.

    Example:
        >>> {name: len(part) for name, part in draw_splits("abcdefghij", seed=0).items()}
        {'train': 6, 'valid': 2, 'test': 2}
    """
    if min(fractions) < 0 or abs(sum(fractions) - 1) > 1e-6:
        raise TaskError(f"fractions {fractions} must not be negative and must sum to 1")
    known = sorted(set(items))  # type: ignore[type-var]
    shuffled = [known[i] for i in np.random.default_rng(seed).permutation(len(known))]
    # Validation and test get at least one item each, however few there are.
    valid, test = (max(round(len(known) * share), int(share > 0)) for share in fractions[1:])
    train = len(known) - valid - test
    if train < int(fractions[0] > 0):
        raise TaskError(
            f"{len(known)} classes are too few to split by {fractions}; "
            "give the splits, or data with more classes"
        )
    return {
        "train": tuple(shuffled[:train]),
        "valid": tuple(shuffled[train : train + valid]),
        "test": tuple(shuffled[train + valid :]),
    }


def draw_record_splits(
    examples: Sequence[Example],
    seed: int,
    fractions: tuple[float, float, float] = (0.6, 0.2, 0.2),
) -> RecordSplits:
    """Split records where there are no classes; records with the same text stay together.

    Example:
        >>> examples = [Example(i, f"text {i // 2}") for i in range(20)]
        >>> splits = draw_record_splits(examples, seed=0)
        >>> {name: len(part) for name, part in splits.items()}
        {'train': 12, 'valid': 4, 'test': 4}
        >>> {i // 2 for i in splits["train"]} & {i // 2 for i in splits["test"]}
        set()
    """
    groups: dict[TextKey, list[int]] = defaultdict(list)
    for example in examples:
        groups[text_key(example)].append(example.id)
    parts = draw_splits(groups.keys(), seed, fractions)
    return {name: tuple(i for key in keys for i in groups[key]) for name, keys in parts.items()}


def read_folds(path: str | Path, fold: str, known_classes: Collection[str]) -> ClassSplits:
    """The class splits of one fold of a JSON file {fold: {train, valid, test: [class names]}}.

    Folds may lie in groups ({group: {fold: ...}}): they are named "group/fold".  Other keys of a
    fold are ignored.

    Args:
        path: The file; relative paths are also looked up in the data folder.
        fold: Name of the fold.
        known_classes: Class names of the data, which the names in the file must be among.

    Raises:
        TaskError: If the file, the fold, a part or a class is missing, or a class is in two parts.
    """
    file = find(path)
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TaskError(f"{path} is no JSON file of folds: {error}") from error
    folds = dict(_folds(content)) if isinstance(content, dict) else {}
    if fold not in folds:
        raise TaskError(
            f"{path} has no fold {fold!r}{did_you_mean(fold, folds)}; "
            f"its folds are: {', '.join(folds) or 'none'}"
        )
    splits: ClassSplits = {}
    known = set(known_classes)
    for split in SPLITS:
        names = folds[fold].get(split)
        if not isinstance(names, list):
            raise TaskError(f"{path}: fold {fold!r} has no list of classes {split!r}; add it")
        splits[split] = tuple(str(name) for name in names)
        for name in splits[split]:
            if name not in known:
                raise TaskError(
                    f"{path}: class {name!r} of fold {fold!r} is not in the data"
                    f"{did_you_mean(name, known)}; correct the folds file or the label column"
                )
    check_disjoint(splits)
    return splits


def _folds(content: dict, prefix: str = ""):
    """Every (name, fold) of nested groups of folds."""
    for name, value in content.items():
        if isinstance(value, dict) and any(split in value for split in SPLITS):
            yield prefix + name, value
        elif isinstance(value, dict):
            yield from _folds(value, f"{prefix}{name}/")


def check_disjoint(splits: Mapping[SplitName, Sequence[Hashable]]) -> None:
    """Refuse a class (or record) that is in two meta-splits.

    Raises:
        TaskError: Naming it and both splits.

    Example:
        >>> check_disjoint({"train": ("cat",), "test": ("dog", "cat")})  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ...
        tasks.episode.TaskError: 'cat' is in both 'train' and 'test'; meta-splits must share ...
    """
    seen: dict[Hashable, SplitName] = {}
    for split, items in splits.items():
        for item in set(items):
            if item in seen:
                raise TaskError(
                    f"{item!r} is in both {seen[item]!r} and {split!r}; "
                    "meta-splits must share nothing, remove it from one"
                )
            seen[item] = split


def check_task(task: Task) -> None:
    """Refuse a task whose query holds a record or a text of its support.

    A made example counts as all the records that it was made from.

    Raises:
        TaskError: Naming the record, or the start of the text.
    """
    ids = {i for example in task.support for i in (example.id, *example.origins)}
    keys = {text_key(example) for example in task.support} if task.kind != "value" else set()
    for example in task.query:
        if shared := ids & {example.id, *example.origins}:
            raise TaskError(
                f"record {min(shared)} of {task.source!r} is in support and query of one task; "
                "draw without replacement"
            )
        if keys and (key := text_key(example)) in keys:
            start = " / ".join(part[:40] for part in key if part)
            raise TaskError(
                f"the text {start!r} of {task.source!r} is in support and query of one task; "
                "remove the duplicate"
            )
