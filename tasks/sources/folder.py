"""A folder of files, each of which is a task with classes of its own: `TaskFamily` over tasks.

    FOLDER/*.csv                    meta-splits drawn over the files, by seed or from a folds file
    FOLDER/{train,valid,test}/*.csv meta-splits given

An episode takes one task of its meta-split, and N of its classes: all of them, where it has fewer.
So what is learned on some tasks is judged on others, never seen.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from tasks.episode import EpisodeShape, Example, SplitName, Task, TaskError, TaskFamily
from tasks.sampling import Pool, TextKey, distinct, text_key
from tasks.sources.files import ENDINGS, find, read_examples
from tasks.sources.records import RecordFamily
from tasks.splits import SPLITS, draw_splits, read_folds

Splits = dict[SplitName, tuple[str, ...]]


@dataclass(frozen=True)
class TaskFile:
    """One file of a folder.

    Attributes:
        name: Name of the task: of the file, without its ending.
        path: The file.
        examples: Its records; their ids are unique in the folder.
    """

    name: str
    path: Path
    examples: tuple[Example, ...]


def read_folder(
    path: str | Path,
    *,
    text: str = "text",
    label: str = "label",
    text_b: str = "",
    seed: int = 0,
    folds: str = "",
    fold: str = "",
    problems: list[str] | None = None,
) -> tuple[list[TaskFile], Splits]:
    """The tasks of a folder, by name, and their meta-splits.

    Args:
        path: The folder; relative paths are also looked up in the data folder.
        text: Column of the text.
        label: Column of the class name.
        text_b: Column of the second text of a pair; empty: none.
        seed: Seed of the meta-splits where the folder does not give them.
        folds: JSON file {fold: {train, valid, test: [names of tasks]}}; empty: none.
        fold: Which fold of it.
        problems: Takes up what is wrong with a file, one line each, so that all is found at once;
            such files are left out.  None: the first one is raised.

    Raises:
        TaskError: If there is no such folder, or there are too few files to split.
    """
    folder = find(path)
    if not folder.is_dir():
        raise TaskError(f"{path} is a file; name the folder that holds a file for each task")
    given: dict[str, SplitName] = {}
    found: dict[str, Path] = {}
    for file, split in _files(folder):
        name = file.name.removesuffix(next(end for end in ENDINGS if file.name.endswith(end)))
        if name in found:
            raise TaskError(f"{file} and {found[name]} are both task {name!r}; rename one of them")
        found[name] = file
        if split:
            given[name] = split
    if not found:
        raise TaskError(f"{path} holds no file that ends in {', '.join(ENDINGS)}; add one a task")
    if given and len(given) < len(found):
        name = next(name for name in found if name not in given)
        raise TaskError(f"{found[name]} lies beside train, valid and test; move it into one")
    tasks: list[TaskFile] = []
    count = 0
    for name, file in sorted(found.items()):
        try:
            examples = read_examples(file, text=text, label=label, text_b=text_b, problems=problems)
        except TaskError as error:
            if problems is None:
                raise
            problems.append(str(error))
            continue
        numbered = tuple(replace(e, id=count + i) for i, e in enumerate(examples))
        count += len(numbered)
        tasks.append(TaskFile(name, file, numbered))
    return tasks, _splits(path, sorted(found), given, seed, folds, fold)


def _files(folder: Path) -> Iterator[tuple[Path, SplitName | None]]:
    for split in (None, *SPLITS):
        place = folder / split if split else folder
        for file in sorted(place.iterdir()) if place.is_dir() else ():
            if file.is_file() and file.name.endswith(ENDINGS) and not file.name.startswith("."):
                yield file, split


def _splits(
    path: str | Path,
    names: Sequence[str],
    given: Mapping[str, SplitName],
    seed: int,
    folds: str,
    fold: str,
) -> Splits:
    if folds and given:
        raise TaskError(f"{path} has folders of its splits; leave out the folds file")
    if folds:
        return read_folds(find(folds), fold, names)
    if not given:
        if len(names) < len(SPLITS):
            raise TaskError(
                f"{path} has {len(names)} tasks, and meta-splits need one each; add files, or "
                "give it as folders train, valid and test"
            )
        return draw_splits(names, seed)
    return {split: tuple(n for n in names if given[n] == split) for split in SPLITS}


def count_problems(task: TaskFile, shape: EpisodeShape) -> Iterator[str]:
    """What a task lacks for episodes of a shape, one line each.

    Example:
        >>> texts = [Example(i, f"text {i}", label="yes") for i in range(3)]
        >>> list(count_problems(TaskFile("mood", Path("mood.csv"), tuple(texts)), EpisodeShape()))
        ["mood.csv: a single class, 'yes'; a task needs two", "mood.csv: class 'yes' has 3 \
distinct texts, but 1 shots + 5 queries need 6; lower shots or queries, or add examples"]
    """
    pools = _pools(task.examples)
    if len(pools) == 1:
        yield f"{task.path}: a single class, {next(iter(pools))!r}; a task needs two"
    shots = shape.shots if isinstance(shape.shots, int) else shape.shots[1]
    for label, pool in pools.items():
        if len(pool) < shots + shape.queries:
            yield (
                f"{task.path}: class {label!r} has {len(pool)} distinct texts, but {shots} shots + "
                f"{shape.queries} queries need {shots + shape.queries}; lower shots or queries, or "
                "add examples"
            )


def _pools(examples: Sequence[Example]) -> dict[str, Pool]:
    labels = sorted({str(example.label) for example in examples})
    return {label: distinct(e for e in examples if e.label == label) for label in labels}


def leaks(tasks: Sequence[TaskFile], splits: Splits) -> Iterator[tuple[str, str, str]]:
    """Texts that have the same class in two meta-splits: the text, and the two tasks."""
    where = {name: split for split, names in splits.items() for name in names}
    first: dict[tuple[TextKey, str | None], str] = {}
    told: set[tuple[TextKey, str, str]] = set()
    for task in tasks:
        for example in task.examples if task.name in where else ():
            other = first.setdefault((text_key(example), example.label), task.name)
            place = (text_key(example), other, task.name)
            if where[other] != where[task.name] and place not in told:
                told.add(place)
                yield example.text, other, task.name


class FolderFamily(TaskFamily):
    """Tasks of single files: an episode has classes of one of them.

    Args:
        name: Unique name of the family.
        tasks: The files, see `read_folder`.
        splits: Names of the tasks of each meta-split.

    Attributes:
        tasks: What was given.
        splits: What was given.
        all_classes: Every class as "task/class", task by task; `Task.class_ids` index it.

    Raises:
        TaskError: If a task has a single class, or two meta-splits share a labelled text.

    Example:
        >>> def task(name: str, first: int) -> TaskFile:
        ...     texts = [Example(first + i, f"{name} {i}", label="no yes"[i % 2 * 3:][:3].strip())
        ...              for i in range(8)]
        ...     return TaskFile(name, Path(name), tuple(texts))
        >>> family = FolderFamily("mine", [task("a", 0), task("b", 8)], {"train": ("a", "b")})
        >>> drawn = family.draw("train", EpisodeShape(5, 1, 2), np.random.default_rng(0))
        >>> len(drawn.support), len(drawn.query), sorted(drawn.label_names)
        (2, 4, ['no', 'yes'])
    """

    kind = "class"

    def __init__(self, name: str, tasks: Sequence[TaskFile], splits: Splits) -> None:
        self.name = name
        self.tasks = tuple(tasks)
        self.splits = dict(splits)
        self._parts: dict[str, RecordFamily] = {}
        self._first: dict[str, int] = {}
        self._checked: set[tuple[SplitName, int, int]] = set()
        where: dict[str, SplitName] = {t: split for split, names in splits.items() for t in names}
        classes: list[str] = []
        for task in self.tasks:
            labels = tuple(sorted({str(example.label) for example in task.examples}))
            if len(labels) == 1:
                raise TaskError(f"{task.path}: a single class, {labels[0]!r}; a task needs two")
            own: Splits = {where[task.name]: labels}
            part = RecordFamily(f"{name}/{task.name}", "class", task.examples, own)
            self._parts[task.name] = part
            self._first[task.name] = len(classes)
            classes += [f"{task.name}/{label}" for label in labels]
        self.all_classes = tuple(classes)
        for text, one, other in leaks(self.tasks, self.splits):
            raise TaskError(
                f"{name!r}: the text {text[:40]!r} has the same class in {one!r} ({where[one]}) "
                f"and {other!r} ({where[other]}); remove it from one, or put both into one split"
            )

    def classes(self, split: SplitName) -> tuple[str, ...]:
        """Classes of the tasks of a split, as "task/class"."""
        names = self.splits.get(split, ())
        return tuple(label for label in self.all_classes if label.split("/", 1)[0] in names)

    def members(self, split: SplitName) -> Iterator[Example]:
        """The records of a split."""
        for name in self.splits.get(split, ()):
            yield from self._parts[name].examples

    def draw(self, split: SplitName, shape: EpisodeShape, random: np.random.Generator) -> Task:
        """One task of a split, all equally likely, and N of its classes, or all if it has fewer."""
        names = self.splits.get(split, ())
        if not names:
            has = ", ".join(name for name, part in self.splits.items() if part)
            raise TaskError(f"{self.name!r} has no task in its split {split!r}; it has {has}")
        self._check(split, shape)
        ways, shots, queries = shape.draw(random)
        name = names[int(random.integers(len(names)))]
        part = self._parts[name]
        shape = EpisodeShape(min(ways, len(part.all_classes)), shots, queries)
        drawn = part.draw(split, shape, random)
        first = self._first[name]
        return replace(
            drawn, source=self.name, class_ids=tuple(first + index for index in drawn.class_ids)
        )

    def _check(self, split: SplitName, shape: EpisodeShape) -> None:
        """Refuse at the first task what a later one could not supply."""
        shots = shape.shots if isinstance(shape.shots, int) else shape.shots[1]
        key = (split, shots, shape.queries)
        if key in self._checked:
            return
        for task in self.tasks:
            if task.name in self.splits[split]:
                for problem in count_problems(task, shape):
                    raise TaskError(problem)
        self._checked.add(key)
