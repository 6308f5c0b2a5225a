"""ASlib scenarios: read one as a problem of selection, write a problem as one.

A scenario is a folder: description.txt (YAML), algorithm_runs.arff, feature_values.arff and, where
known, feature_runstatus.arff, feature_costs.arff and cv.arff.  Utilities are, of a runtime,

    u_ta = - PAR10_ta,    PAR10 = runtime if the run ended `ok`, else 10 x cutoff,

and of a solution quality the value itself, or its negative where it is to be minimized.
Bischl et al. 2016, "ASlib: A Benchmark Library for Algorithm Selection", section 3; the
specification of the format is github.com/coseal/aslib-spec, format.md.

1. Repetitions of a run count as one, by their mean.  In a problem that `aslib_export` has written
   they are parts of the queries; its description has a key of its own, `metalearn`.
2. A feature that is missing has the mean of its column, and for each set of columns that are
   missing together there is a feature that is 1 where they are.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from metalearn.selection.arff import Arff, read
from metalearn.selection.problem import Problem

PENALTY = 10
"""What a run that did not end counts, in cutoffs: the 10 of PAR10."""
LARGEST = 1e38
DESCRIPTION = "description.txt"
RUNS = "algorithm_runs.arff"
FEATURES = "feature_values.arff"
STATUS = "feature_runstatus.arff"
COSTS = "feature_costs.arff"
FOLDS = "cv.arff"
KEYS = ("instance_id", "repetition")
UTILITY, COST, TRY = "utility", "cost", "try"
"""Measures of a problem that was written here."""


@dataclass(frozen=True)
class Measure:
    """What is measured of an algorithm.

    Attributes:
        name: Column of algorithm_runs.arff.
        maximize: Whether more is better.
        runtime: Whether it is a time, which the cutoff ends.
    """

    name: str
    maximize: bool
    runtime: bool


@dataclass(frozen=True)
class Scenario:
    """T instances, A algorithms, F features as they are in the files.

    Attributes:
        name: Of the scenario.
        measure: The measure that was read.
        cutoff: Seconds after which a run is stopped; None: not said.
        instances: Names `[T]`, in the order of feature_values.arff.
        algorithms: Names `[A]`, in the order of algorithm_runs.arff.
        features: Means over repetitions `[T, F]`; not a number where missing.
        feature_names: Names `[F]`; a column of classes is `column=class` for each.
        performance: `[R, T, A]`, with the penalty of a run that did not end; not a number where a
            repetition, or a run, is missing.
        others: Every other measure by its name `[R, T, A]`, as it is in the file.
        solved: Whether a run ended `ok` `[R, T, A]`.
        presolved: Whether an instance was solved while its features were computed `[T]`.
        feature_costs: Seconds that all feature steps took `[T]`; zeros where not known.
        folds: Fold of each instance, from 0, in each repetition of the cross-validation `[V, T]`;
            None: there is no cv.arff.
        description: All of description.txt.
    """

    name: str
    measure: Measure
    cutoff: float | None
    instances: tuple[str, ...]
    algorithms: tuple[str, ...]
    features: np.ndarray
    feature_names: tuple[str, ...]
    performance: np.ndarray
    others: Mapping[str, np.ndarray]
    solved: np.ndarray
    presolved: np.ndarray
    feature_costs: np.ndarray
    folds: np.ndarray | None
    description: Mapping[str, Any]

    def problem(self) -> Problem:
        """The problem of selection; costs are runtimes, or nothing where those are not measured.

        Each instance is a source of its own, but where the description says its `sources`.
        """
        kept = self.description.get("metalearn") or {}
        ours = bool(kept) and self.measure.name == UTILITY
        utilities = self.performance if self.measure.maximize else -self.performance
        if not ours:
            known = np.isfinite(utilities)
            total = np.where(known, utilities, 0.0).sum(0)
            utilities = np.where(known.any(0), total / np.maximum(known.sum(0), 1), np.nan)[None]
        costs = np.abs(utilities[0]) if self.measure.runtime else np.zeros(utilities.shape[1:])
        features, names = imputed(self.features, self.feature_names)
        return Problem(
            tasks=self.instances,
            sources=tuple(kept.get("sources") or self.instances),
            learners=self.algorithms,
            feature_names=names,
            features=features,
            utilities=utilities,
            costs=self.others[COST][0] if ours else costs,
            tries=self.others[TRY][0] if ours and TRY in self.others else None,
        )


def imputed(features: np.ndarray, names: tuple[str, ...]) -> tuple[np.ndarray, tuple[str, ...]]:
    """Columns with their means for what is missing, and columns that say what is missing.

    Example:
        >>> imputed(np.array([[1.0, np.nan], [3.0, 4.0]]), ("a", "b"))
        (array([[1., 4., 1.],
               [3., 4., 0.]]), ('a', 'b', 'missing:b'))
    """
    known = np.isfinite(features)
    count = np.maximum(known.sum(0), 1)
    means = np.where(known, features, 0.0).sum(0) / count
    patterns: dict[bytes, int] = {}
    for column in range(len(names)):
        if not known[:, column].all():
            patterns.setdefault(known[:, column].tobytes(), column)
    first = list(patterns.values())
    flags = (~known[:, first]).astype(np.float64)
    marked = tuple(f"missing:{names[column]}" for column in first)
    return np.concatenate([np.where(known, features, means), flags], 1), names + marked


def read_scenario(folder: Path, measure: str = "") -> Scenario:
    """Read a scenario.

    Args:
        folder: Where its files are.
        measure: Which performance measure; empty: the first, which is the main one.

    Raises:
        ValueError: If a file is missing or says what cannot be; with file and, where it has one,
            line.
    """
    folder = Path(folder)
    description = read_description(folder / DESCRIPTION)
    chosen, other = _measures(description, measure, folder / DESCRIPTION)
    cutoff = _number(description.get("algorithm_cutoff_time"))
    values = read(folder / FEATURES)
    instances = tuple(dict.fromkeys(values.texts(KEYS[0])))
    if not instances:
        raise ValueError(f"{values.path}: no instance; a scenario needs some")
    row = {name: index for index, name in enumerate(instances)}
    features, names = _features(values, row)
    runs = Runs(read(folder / RUNS), row)
    performance, solved = runs.performance(chosen, cutoff)
    return Scenario(
        name=str(description.get("scenario_id") or folder.resolve().name),
        measure=chosen,
        cutoff=cutoff,
        instances=instances,
        algorithms=runs.algorithms,
        features=features,
        feature_names=names,
        performance=performance,
        others={name: runs.array(runs.table.numbers(name)) for name in other},
        solved=solved,
        presolved=_presolved(folder / STATUS, row),
        feature_costs=_feature_costs(folder / COSTS, row),
        folds=_folds(folder / FOLDS, row),
        description=description,
    )


def read_description(path: Path) -> dict[str, Any]:
    """description.txt, every value as text, so that an algorithm called `no` stays `no`.

    Raises:
        ValueError: If it is missing or no mapping in YAML.
    """
    import yaml

    if not path.is_file():
        raise ValueError(f"{path} is missing; a scenario needs it")
    # Some have a bare ? for what is not known, which is a key in YAML.
    text = re.sub(r"(?m)(:|^\s*-)[ \t]+\?[ \t]*$", r"\1 '?'", path.read_text("utf-8", "replace"))
    try:
        found = yaml.load(text, Loader=yaml.BaseLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        reason = getattr(error, "problem", None) or "not readable"
        raise ValueError(f"{path}{line}: no YAML: {reason}") from None
    if not isinstance(found, dict):
        raise ValueError(f"{path}: no `key: value` lines; see the specification of ASlib")
    return found


def _listed(value: object) -> list[str]:
    """A list, or one value, or several behind commas."""
    if isinstance(value, list):
        return [str(entry) for entry in value]
    return [part.strip() for part in str(value or "").split(",") if part.strip()]


def _measures(description: Mapping[str, Any], wanted: str, path: Path) -> tuple[Measure, list[str]]:
    """The measure of that name, or the first, and the names of the others."""
    names = _listed(description.get("performance_measures"))
    kinds = _listed(description.get("performance_type"))
    maximize = _listed(description.get("maximize"))
    if not names or not len(names) == len(kinds) == len(maximize):
        raise ValueError(
            f"{path}: performance_measures, performance_type and maximize have {len(names)}, "
            f"{len(kinds)} and {len(maximize)} entries; each measure needs all three"
        )
    if wanted and wanted not in names:
        raise ValueError(f"{path}: no measure {wanted}, only {', '.join(names)}")
    place = names.index(wanted) if wanted else 0
    if kinds[place] not in ("runtime", "solution_quality"):
        raise ValueError(f"{path}: performance_type {kinds[place]}; runtime or solution_quality")
    larger = maximize[place].lower()
    if larger not in ("true", "false", "yes", "no"):
        raise ValueError(f"{path}: maximize {maximize[place]}; give true or false")
    measure = Measure(names.pop(place), larger in ("true", "yes"), kinds[place] == "runtime")
    return measure, names


def _number(value: object) -> float | None:
    try:
        number = float(str(value))
    except ValueError:
        return None
    return number if np.isfinite(number) else None


def _rows(table: Arff, row: Mapping[str, int]) -> list[int]:
    """Row of the instance of each line.

    Raises:
        ValueError: If an instance has no features, with the line.
    """
    found = []
    for name, line in zip(table.texts(KEYS[0]), table.lines, strict=True):
        if name not in row:
            raise ValueError(f"{table.path}, line {line}: instance {name} is not in {FEATURES}")
        found.append(row[name])
    return found


def _features(table: Arff, row: Mapping[str, int]) -> tuple[np.ndarray, tuple[str, ...]]:
    """Means over repetitions of every feature, classes as columns of 0 and 1."""
    rows, columns, names = _rows(table, row), [], []
    for name, kind in zip(table.names, table.types, strict=True):
        if name.lower() in KEYS:
            continue
        if kind == "numeric":
            columns.append(table.numbers(name))
            names.append(name)
            continue
        place = table.column(name)
        texts = [line[place] for line in table.rows]
        for value in sorted({text for text in texts if text is not None}):
            columns.append([np.nan if text is None else float(text == value) for text in texts])
            names.append(f"{name}={value}")
    values = np.array(columns, dtype=np.float64).reshape(len(names), len(rows)).T
    known = np.isfinite(values)
    total, count = np.zeros((2, len(row), len(names)))
    np.add.at(total, rows, np.where(known, values, 0.0))
    np.add.at(count, rows, known)
    # Forests compute in single precision, and some features are larger than its numbers.
    means = np.clip(total / np.maximum(count, 1), -LARGEST, LARGEST)
    return np.where(count > 0, means, np.nan), tuple(names)


class Runs:
    """algorithm_runs.arff: a run a line, put in its place `[R, T, A]`.

    Raises:
        ValueError: If a run is there twice, or an algorithm was never run on an instance.
    """

    def __init__(self, table: Arff, row: Mapping[str, int]) -> None:
        self.table = table
        names, numbers = table.texts("algorithm"), table.numbers(KEYS[1])
        self.algorithms = tuple(dict.fromkeys(names))
        column = {name: index for index, name in enumerate(self.algorithms)}
        depth = {number: index for index, number in enumerate(sorted(set(numbers)))}
        self.shape = len(depth), len(row), len(self.algorithms)
        self.places = (
            np.array([depth[number] for number in numbers], dtype=np.int64),
            np.array(_rows(table, row), dtype=np.int64),
            np.array([column[name] for name in names], dtype=np.int64),
        )
        seen = np.zeros(self.shape, dtype=bool)
        for line, place in zip(table.lines, zip(*self.places, strict=True), strict=True):
            if seen[place]:
                run = f"{self.algorithms[place[2]]} on {list(row)[place[1]]}"
                raise ValueError(f"{table.path}, line {line}: a second run of {run}; drop one")
            seen[place] = True
        lacking = np.argwhere(~seen.any(0))
        if len(lacking):
            run = f"{self.algorithms[lacking[0][1]]} on {list(row)[lacking[0][0]]}"
            raise ValueError(f"{table.path}: no run of {run}; add it, or that it failed")

    def array(self, values: Sequence[float]) -> np.ndarray:
        """The values of the lines `[R, T, A]`; not a number where there is no run."""
        found = np.full(self.shape, np.nan)
        found[self.places] = values
        return found

    def performance(self, measure: Measure, cutoff: float | None) -> tuple[np.ndarray, np.ndarray]:
        """Performances and which runs ended `ok`, both `[R, T, A]`.

        Raises:
            ValueError: If what a run brought cannot be known, with the line.
        """
        values, solved = self.table.numbers(measure.name), []
        for index, status in enumerate(self.table.texts("runstatus")):
            where = f"{self.table.path}, line {self.table.lines[index]}"
            solved.append(status.lower() == "ok")
            if solved[-1] and not np.isfinite(values[index]):
                raise ValueError(f"{where}: {measure.name} of a run that ended ok is missing")
            if measure.runtime and not solved[-1]:
                if cutoff is None:
                    raise ValueError(f"{where}: {status}, but there is no algorithm_cutoff_time")
                values[index] = PENALTY * cutoff
        return self.array(values), self.array(solved) == 1


def _presolved(path: Path, row: Mapping[str, int]) -> np.ndarray:
    """Whether a feature step solved an instance `[T]`."""
    found = np.zeros(len(row), dtype=bool)
    if path.exists():
        table = read(path)
        for index, cells in zip(_rows(table, row), table.rows, strict=True):
            found[index] |= any((cell or "").lower() == "presolved" for cell in cells[2:])
    return found


def _feature_costs(path: Path, row: Mapping[str, int]) -> np.ndarray:
    """Seconds of all feature steps, a mean over repetitions `[T]`."""
    total, count = np.zeros((2, len(row)))
    if path.exists():
        table = read(path)
        steps = [table.numbers(name) for name in table.names if name.lower() not in KEYS]
        costs = np.nansum(np.array(steps).reshape(len(steps), len(table.rows)), 0)
        rows = _rows(table, row)
        np.add.at(total, rows, costs)
        np.add.at(count, rows, 1.0)
    return total / np.maximum(count, 1)


def _folds(path: Path, row: Mapping[str, int]) -> np.ndarray | None:
    """Fold of each instance in every repetition `[V, T]`."""
    if not path.exists():
        return None
    table = read(path)
    rows, repetitions = _rows(table, row), table.numbers(KEYS[1])
    numbers = table.numbers("fold")
    depth = {number: index for index, number in enumerate(sorted(set(repetitions)))}
    found = np.full((len(depth), len(row)), -1)
    for index, line in enumerate(table.lines):
        if not numbers[index] >= 1 or numbers[index] % 1:
            raise ValueError(f"{path}, line {line}: fold {numbers[index]:g}; number them from 1")
        place = depth[repetitions[index]], rows[index]
        if found[place] >= 0:
            raise ValueError(f"{path}, line {line}: a second fold of {list(row)[rows[index]]}")
        found[place] = int(numbers[index]) - 1
    lacking = np.argwhere(found < 0)
    if len(lacking):
        raise ValueError(f"{path}: no fold of {list(row)[lacking[0][1]]}; give each instance one")
    return found
