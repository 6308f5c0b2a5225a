"""`metalearn compare RUN RUN`: is the difference between two runs more than chance?

Both runs must have been judged on the same test tasks: the same records in support and query, which
is read from their predictions.  The differences of a learner's final scores on these tasks are
resampled (folds, then seeds and tasks); training seeds that both runs have are paired, others are
drawn apart.  A difference is called real where p < 0.05 after Holm's correction for all
comparisons of the table.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from experiments.arguments import Parser
from experiments.errors import UserError
from experiments.files import write_json
from experiments.judged import METRICS, JudgedRun, Place
from experiments.tables import bounds, plain
from metalearn.comparison import Shared, difference, holm

LEVEL = 0.05
"""Below it a p counts as real."""
FEW = 20
"""Tasks below which percentile intervals are clearly too narrow."""
TASKS = ("family.", "folds", "episodes.ways", "episodes.queries", "evaluation.seed")
"""Settings that say which the test tasks are, beside the number of shots."""
SILENT = ("description", "tracking.")
"""Settings that no number depends on."""


@dataclass(frozen=True)
class Compared:
    """One learner of each run at one number of shots; differences are second minus first.

    Attributes:
        learners: Name in the first run and in the second.
        shots: K.
        metric: Name of the score.
        means: Mean score of each on the compared tasks.
        difference: Mean, low and high (95%).
        p: Two-sided.
        p_holm: The same, corrected for all comparisons made at once.
        tasks: Test tasks of each run behind it.
        seeds: Training seeds of each run.
        shared: What the two sides have in common: seeds and tasks, tasks, or nothing.
        trained: Whether either was meta-trained.
        verdict: In words.
    """

    learners: tuple[str, str]
    shots: int
    metric: str
    means: tuple[float, float]
    difference: dict[str, float]
    p: float
    p_holm: float
    tasks: tuple[int, int]
    seeds: tuple[int, int]
    shared: Shared
    trained: bool
    verdict: str


@dataclass(frozen=True)
class Comparison:
    """Two runs held against each other.

    Attributes:
        runs: Their folders.
        rows: One a learner and number of shots.
        settings: Settings that differ, with both values.
        versions: Versions, revision and machine where they differ, with both values.
        notes: What a reader must know besides.
    """

    runs: tuple[str, str]
    rows: list[Compared]
    settings: dict[str, tuple[Any, Any]]
    versions: dict[str, tuple[Any, Any]]
    notes: list[str]


def compare(
    first: JudgedRun,
    second: JudgedRun,
    *,
    learners: tuple[str, str] | None = None,
    metric: str | None = None,
    unpaired: bool = False,
    resamples: int = 2000,
) -> Comparison:
    """Compare two runs.

    Args:
        first: A run.
        second: Another one, or the same with other learners.
        learners: One of the first and one of the second; None: each that both have.
        metric: accuracy, macro_f1 or loss; None: what the first run is judged by.
        unpaired: The runs may have been judged on different tasks.
        resamples: Bootstrap resamples.

    Raises:
        UserError: If the runs share no learner or number of shots, or (unless `unpaired`) no tasks.
    """
    metric = metric or first.metric
    pairs = _pairs(first, second, learners)
    common = [shots for shots in first.shots if shots in second.shots]
    if not common:
        raise UserError(
            f"{first.path} has {_list(first.shots)} shots, {second.path} {_list(second.shots)}: "
            "nothing to compare; judge both with metalearn evaluate --episodes.shots K"
        )
    if not unpaired:
        _refuse_other_tasks(first, second, common)
    found = [
        _one(first, second, pair, shots, metric, unpaired, resamples)
        for shots in common
        for pair in pairs
    ]
    corrected = holm([row.p for row in found])
    rows = [_judge(row, p) for row, p in zip(found, corrected, strict=True)]
    settings = _differing(first.settings, second.settings, SILENT)
    versions = _differing(first.environment, second.environment, ("resumed",))
    paths = (str(first.path), str(second.path))
    return Comparison(paths, rows, settings, versions, _notes(rows, unpaired))


def _pairs(
    first: JudgedRun, second: JudgedRun, learners: tuple[str, str] | None
) -> list[tuple[str, str]]:
    if learners is not None:
        for run, name in zip((first, second), learners, strict=True):
            if name not in run.learners:
                raise UserError(
                    f"run {run.path} has no learner {name}; it has {', '.join(run.learners)}"
                )
        return [learners]
    common = [(name, name) for name in first.learners if name in second.learners]
    if not common:
        raise UserError(
            f"no learner is in both runs ({', '.join(first.learners)}; "
            f"{', '.join(second.learners)}); name one of each with --learners"
        )
    return common


def _refuse_other_tasks(first: JudgedRun, second: JudgedRun, shots: list[int]) -> None:
    """Refuse runs that have no test task in common, or another one under the same number."""
    common = first.tasks.keys() & second.tasks.keys()
    enough = all(any(task[1] == k for task in common) for k in shots)
    differing = _differing(first.settings, second.settings)
    names = [n for n in differing if n.startswith(TASKS)]
    if first.tasks and second.tasks:
        # The records decide: a data set may have moved, or changed under the same settings.
        if enough and all(first.tasks[task] == second.tasks[task] for task in common):
            return
    elif not first.tasks and not second.tasks and not names:
        return
    reason = f"{', '.join(names)} differ" if names else "their data differ"
    raise UserError(
        f"{first.path} and {second.path} were judged on different tasks ({reason}); judge both on "
        f"the same with metalearn evaluate {first.path} {second.path}, or add --unpaired"
    )


def _one(
    first: JudgedRun,
    second: JudgedRun,
    learners: tuple[str, str],
    shots: int,
    metric: str,
    unpaired: bool,
    resamples: int,
) -> Compared:
    sides = [
        run.scores(name, shots, metric) for run, name in zip((first, second), learners, strict=True)
    ]
    for run, name, side in zip((first, second), learners, sides, strict=True):
        if not side or not all(np.isfinite(list(s.values())).all() for s in side.values()):
            raise UserError(
                f"{name} of {run.path} has no {metric} at {shots} shots; choose another"
            )
    seeds = [{seed for _, seed in side} for side in sides]
    shared: Shared = "nothing" if unpaired else "seeds" if seeds[0] == seeds[1] else "tasks"
    before, after = _groups(sides[0], sides[1], unpaired), _groups(sides[1], sides[0], unpaired)
    found = difference(after, before, shared=shared, resamples=resamples)
    trained = any(
        run.row(name, shots).get("train_seconds", 0) > 0
        for run, name in zip((first, second), learners, strict=True)
    )
    means = [float(np.mean([group.mean() for group in groups])) for groups in (before, after)]
    tasks = [sum(group.shape[1] for group in groups) for groups in (before, after)]
    return Compared(
        learners=learners,
        shots=shots,
        metric=metric,
        means=(means[0], means[1]),
        difference=found.interval.as_dict(),
        p=found.p,
        p_holm=found.p,
        tasks=(tasks[0], tasks[1]),
        seeds=(len(seeds[0]), len(seeds[1])),
        shared=shared,
        trained=trained,
        verdict="",
    )


def _groups(
    side: dict[Place, dict[int, float]], other: dict[Place, dict[int, float]], unpaired: bool
) -> list[np.ndarray]:
    """`[seeds, episodes]` of each fold; of the episodes that both have, unless unpaired."""
    groups = []
    for fold in sorted({fold for fold, _ in side}):
        runs = [side[place] for place in sorted(side) if place[0] == fold]
        others = [] if unpaired else [other[place] for place in other if place[0] == fold]
        if not unpaired and not others:
            continue
        episodes = sorted(set.intersection(*(set(one) for one in [*runs, *others])))
        groups.append(np.array([[one[episode] for episode in episodes] for one in runs]))
    return groups


def _judge(row: Compared, p: float) -> Compared:
    """The row with its corrected p and its verdict."""
    low, high = row.difference["low"], row.difference["high"]
    up = row.difference["mean"] > 0
    better = "second" if up != (row.metric == "loss") else "first"
    if low == high == 0:
        verdict = "no difference: the same on every task"
    elif p < LEVEL:
        verdict = f"real: the {better} is better"
    elif row.p < LEVEL:
        verdict = "no difference can be seen: among so many comparisons this is chance"
    else:
        unit = "" if row.metric == "loss" else " points"
        within = f"{plain(low, row.metric)} to {plain(high, row.metric)}{unit}"
        verdict = f"no difference can be seen: anything from {within} fits"
    values = asdict(row) | {"p_holm": p, "verdict": verdict}
    return Compared(**values)


def _notes(rows: Sequence[Compared], unpaired: bool) -> list[str]:
    notes = []
    counts = sorted({row.tasks for row in rows})
    if unpaired:
        spans = " and ".join(str(n) for n in counts[0])
        notes.append(
            f"Not paired: {spans} test tasks drawn apart; a difference may be that of the tasks."
        )
    else:
        notes.append(f"Paired over {_list([c[0] for c in counts])} test tasks that both have.")
    if min(min(row.tasks) for row in rows) < FEW:
        notes.append(f"Fewer than {FEW} tasks: a bootstrap of so few is too sure of itself.")
    if any(row.trained and row.seeds == (1, 1) for row in rows):
        notes.append(
            "One training seed each: the verdict holds for these trained models, and another seed "
            "could turn it; for the settings, train with --seeds 0 1 2."
        )
    elif any(row.trained and 1 in row.seeds for row in rows):
        notes.append(
            "One side has one training seed: how far seeds move it is not in the interval."
        )
    if any(row.trained and row.shared == "tasks" for row in rows):
        notes.append("Their training seeds differ and are drawn apart.")
    return notes


def _differing(
    first: dict[str, Any], second: dict[str, Any], but: tuple[str, ...] = ()
) -> dict[str, tuple[Any, Any]]:
    """Names whose values differ; None where a side has no such name."""
    names = [name for name in first | second if not (but and name.startswith(but))]
    return {
        name: (first.get(name), second.get(name))
        for name in names
        if first.get(name) != second.get(name)
    }


def _list(values: Sequence[Any]) -> str:
    return ", ".join(map(str, values))


HEADERS = ("learner", "shots", "first", "second", "difference", "p", "p (Holm)", "verdict")
"""Columns of the table of a comparison."""


def cells(found: Comparison) -> list[list[str]]:
    """The body of the table: one row a learner and number of shots, under `HEADERS`."""
    return [
        [
            " / ".join(dict.fromkeys(row.learners)),
            str(row.shots),
            *(plain(mean, row.metric, sign=False) for mean in row.means),
            bounds(row.difference, row.metric),
            f"{row.p:.3f}",
            f"{row.p_holm:.3f}",
            row.verdict,
        ]
        for row in found.rows
    ]


def differing_lines(found: Comparison) -> list[tuple[str, str]]:
    """What differs beside the scores: a title and a line each."""

    def line(values: dict[str, tuple[Any, Any]]) -> str:
        pairs = (f"{n} {_value(a)} | {_value(b)}" for n, (a, b) in values.items())
        return "; ".join(pairs) or "none"

    return [
        ("Settings that differ", line(found.settings)),
        ("Versions and machine that differ", line(found.versions)),
    ]


def _value(value: Any) -> str:
    return value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)


USAGE = """usage: metalearn compare RUN RUN [--learners FIRST SECOND] [--metric METRIC]
                         [--unpaired] [--output FILE.json]

  RUN           a finished run folder; differences are those of the second to the first
  --learners    a learner of the first and one of the second (default: each that both have)
  --metric      accuracy, macro_f1 or loss (default: what the runs are judged by)
  --unpaired    compare runs on different tasks, as if drawn apart
  --output      keep the comparison as JSON too

The runs must have been judged on the same test tasks: then their differences are taken task by
task, and what makes a task hard for both is no noise. A difference is real where p < 0.05 after
Holm's correction for all rows."""


def command(words: Sequence[str]) -> None:
    """The command `metalearn compare`."""
    if {"-h", "--help"} & set(words):
        print(USAGE)
        return
    options = Parser(prog="metalearn compare", add_help=False, allow_abbrev=False)
    options.add_argument("runs", type=Path, nargs=2, metavar="RUN")
    options.add_argument("--learners", nargs=2, metavar=("FIRST", "SECOND"))
    options.add_argument("--metric", choices=METRICS)
    options.add_argument("--unpaired", action="store_true")
    options.add_argument("--output", type=Path)
    given = options.parse_args(list(words))
    found = compare(
        JudgedRun(given.runs[0]),
        JudgedRun(given.runs[1]),
        learners=tuple(given.learners) if given.learners else None,
        metric=given.metric,
        unpaired=given.unpaired,
    )
    show(found)
    if given.output is not None:
        write_json(given.output, asdict(found))
        print(given.output)


def show(found: Comparison, console: Console | None = None) -> None:
    """Print a comparison."""
    console = console or Console()
    table = Table(
        title=f"first:  {found.runs[0]}\nsecond: {found.runs[1]}",
        title_justify="left",
        title_style="",
        box=SIMPLE_HEAD,
        padding=(0, 1),
        show_edge=False,
    )
    for name in HEADERS[:-1]:  # verdicts are sentences: they follow
        table.add_column(name, justify="left" if name == "learner" else "right", no_wrap=True)
    rows = cells(found)
    for row in rows:
        table.add_row(*row[:-1])
    console.print(table)
    verdicts = (f"{row[0]}, {row[1]}-shot: {row[-1]}." for row in rows)
    differing = (f"{title}: {line}." for title, line in differing_lines(found))
    for line in (*verdicts, *found.notes, *differing):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
