"""A task family over a fixed list of examples: classification, tagging or generation."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import cast

import numpy as np

from tasks.episode import EpisodeShape, Example, LabelKind, SplitName, Task, TaskError, TaskFamily
from tasks.sampling import Pool, distinct, n_way_k_shot, uniform
from tasks.sources.files import did_you_mean
from tasks.splits import check_disjoint, check_task


class RecordFamily(TaskFamily):
    """Tasks drawn from the examples of one source.

    Kind "class": a task has N classes of its meta-split, and K + Q examples of each.  Kinds
    "token" and "sequence": a task has K + Q examples of its meta-split.

    Args:
        name: Unique name of the family.
        kind: What a label is: "class", "token" or "sequence".
        examples: All records, with distinct ids.
        splits: Classes of each meta-split (kind "class"), or record ids of each (otherwise).

    Attributes:
        examples: The records, in the order given.
        splits: What was given.
        all_classes: Every class (or tag) of the examples, sorted; `Task.class_ids` index it.

    Raises:
        TaskError: If a record is incomplete, a class is unknown or two meta-splits overlap.

    Example:
        >>> examples = [Example(i, f"text {i}", label="ab"[i % 2]) for i in range(12)]
        >>> family = RecordFamily("letters", "class", examples, {"train": ("a", "b")})
        >>> task = family.draw("train", EpisodeShape(2, 1, 3), np.random.default_rng(0))
        >>> len(task.support), len(task.query), sorted(task.label_names)
        (2, 6, ['a', 'b'])
    """

    def __init__(
        self,
        name: str,
        kind: LabelKind,
        examples: Sequence[Example],
        splits: Mapping[SplitName, Sequence[str]] | Mapping[SplitName, Sequence[int]],
    ) -> None:
        if kind == "value":
            raise TaskError(f"{name!r}: records have no kind 'value'; use class, token or sequence")
        self.name = name
        self.kind = kind
        self.examples = tuple(examples)
        self.splits: dict[SplitName, tuple[int | str, ...]] = {
            split: tuple(items) for split, items in splits.items()
        }
        _check_records(name, kind, self.examples)
        check_disjoint(self.splits)
        if kind == "class":
            self.all_classes = tuple(sorted({cast(str, e.label) for e in self.examples}))
            self._class_pools = self._pools_of_classes()
        else:
            tags = {tag for example in self.examples for tag in example.token_labels}
            self.all_classes = tuple(sorted(tags))
            self._record_pools = self._pools_of_records()
        self._class_index = {label: i for i, label in enumerate(self.all_classes)}

    def classes(self, split: SplitName) -> tuple[str, ...]:
        """Classes of a split, sorted; all tags (kind "token"); none (kind "sequence")."""
        if self.kind == "class":
            return tuple(self._class_pools.get(split, ()))
        return self.all_classes

    def members(self, split: SplitName) -> Iterator[Example]:
        """The records of a split."""
        chosen = set(self.splits.get(split, ()))
        for example in self.examples:
            if (example.label if self.kind == "class" else example.id) in chosen:
                yield example

    def draw(self, split: SplitName, shape: EpisodeShape, random: np.random.Generator) -> Task:
        """One task of a split: class-balanced (kind "class"), else uniform over records."""
        if not self.splits.get(split):
            raise TaskError(
                f"{self.name!r} has nothing in its split {split!r}; "
                f"its splits are: {', '.join(s for s, part in self.splits.items() if part)}"
            )
        ways, shots, queries = shape.draw(random)
        try:
            if self.kind == "class":
                pools = self._class_pools[split]
                support, query, names = n_way_k_shot(pools, ways, shots, queries, random)
            else:
                support, query = uniform(self._record_pools[split], shots, queries, random)
                names = self.all_classes
        except TaskError as error:
            raise TaskError(f"{self.name!r}, split {split!r}: {error}") from None
        class_ids = tuple(self._class_index[name] for name in names)
        task = Task(self.name, self.kind, support, query, names, class_ids)
        check_task(task)
        return task

    def _pools_of_classes(self) -> dict[SplitName, dict[str, Pool]]:
        by_class: dict[str, list[Example]] = defaultdict(list)
        for example in self.examples:
            by_class[cast(str, example.label)].append(example)
        pools: dict[SplitName, dict[str, Pool]] = {}
        for split, names in self.splits.items():
            for label in names:
                if label not in by_class:
                    raise TaskError(
                        f"{self.name!r}: class {label!r} of split {split!r} has no examples"
                        f"{did_you_mean(str(label), by_class)}; correct the splits"
                    )
            # Sorted, so that the order of names in a folds file does not move the draws.
            pools[split] = {label: distinct(by_class[label]) for label in sorted(map(str, names))}
        return pools

    def _pools_of_records(self) -> dict[SplitName, Pool]:
        by_id = {example.id: example for example in self.examples}
        pools: dict[SplitName, Pool] = {}
        for split, ids in self.splits.items():
            for i in ids:
                if i not in by_id:
                    raise TaskError(
                        f"{self.name!r}: split {split!r} names record {i!r}, which does not exist; "
                        "give ids of the examples"
                    )
            pools[split] = distinct(by_id[cast(int, i)] for i in ids)
        owner: dict = {}
        for split, pool in pools.items():
            for key, example in zip(pool.keys, pool.examples, strict=True):
                if owner.setdefault(key, split) != split:
                    raise TaskError(
                        f"{self.name!r}: the text {key[0][:40]!r} (record {example.id}) is in both "
                        f"{owner[key]!r} and {split!r}; remove it from one"
                    )
        return pools


def _check_records(name: str, kind: LabelKind, examples: Sequence[Example]) -> None:
    """Refuse a record without text or label, and an id that names two records."""
    seen: set[int] = set()
    for example in examples:
        where = f"{name!r}, record {example.id}"
        if example.id in seen:
            raise TaskError(f"{where}: the id names two records; give every record its own")
        seen.add(example.id)
        if not example.text.strip():
            raise TaskError(f"{where}: the text is empty; remove the record or fill it in")
        words = len(example.text.split(" "))
        if kind == "class" and not example.label:
            raise TaskError(f"{where}: the label is missing; remove the record or fill it in")
        if kind == "token" and len(example.token_labels) != words:
            raise TaskError(
                f"{where}: {len(example.token_labels)} tags for {words} words; give one tag a word"
            )
        if kind == "sequence" and not any(example.targets[:1]):
            raise TaskError(f"{where}: the target is missing; remove the record or fill it in")
