"""Write a problem of selection as an ASlib scenario, from which `aslib` reads the same problem.

Tasks become instances, learners algorithms, the parts of the queries repetitions of a run.  The
measures are `utility`, to be maximized, `cost` and, where it is known, `try`; a learner that cannot
work on a task is `not_applicable`.  The key `metalearn` of description.txt, of which the format
knows nothing, keeps the sources of the tasks.
Format: github.com/coseal/aslib-spec, format.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from metalearn.selection import arff
from metalearn.selection.aslib import (
    COST,
    DESCRIPTION,
    FEATURES,
    FOLDS,
    KEYS,
    RUNS,
    STATUS,
    TRY,
    UTILITY,
)
from metalearn.selection.problem import Problem

STEP = "features"
ENDINGS = "{ok, timeout, memout, not_applicable, crash, other}"
STEP_ENDINGS = "{ok, timeout, memout, presolved, crash, other}"
README = """Tasks of few-shot learning as an algorithm selection scenario, written by metalearn.

utility: score minus what the cost of a learner is worth, on each part of the query examples, which
are the repetitions. cost: of a learner on a task, the same in every repetition. try, where it is
there: what cross-validation on the support examples says of a learner.
not_applicable with a missing value: the learner cannot work on the task.
"""


def write_scenario(
    problem: Problem, folder: Path, name: str, folds: np.ndarray | None = None
) -> None:
    """Write a problem.

    Args:
        problem: What is written.
        folder: Where to; it is made, and what is in it of that name is replaced.
        name: Name of the scenario.
        folds: Fold of each task from 0, `[T]` or `[R, T]` of several cross-validations; None:
            there is no cv.arff.

    Raises:
        ValueError: If two tasks or two learners have one name, or a name has a line break.
    """
    import yaml

    for kind, names in (("tasks", problem.tasks), ("learners", problem.learners)):
        if len(set(names)) < len(names):
            raise ValueError(f"two {kind} have one name; a scenario tells them apart by it")
    folder.mkdir(parents=True, exist_ok=True)
    measures = [UTILITY, COST] + [TRY] * (problem.tries is not None)
    description = {
        "scenario_id": name,
        "performance_measures": measures,
        "maximize": [measure != COST for measure in measures],
        "performance_type": ["solution_quality"] * len(measures),
        "algorithm_cutoff_time": "?",
        "algorithm_cutoff_memory": "?",
        "features_cutoff_time": "?",
        "features_cutoff_memory": "?",
        "metainfo_algorithms": {
            learner: {"configuration": "", "deterministic": True} for learner in problem.learners
        },
        "number_of_feature_steps": 1,
        "feature_steps": {STEP: {"provides": list(problem.feature_names)}},
        "default_steps": [STEP],
        "features_deterministic": list(problem.feature_names),
        "features_stochastic": [],
        "metalearn": {"sources": list(problem.sources)},
    }
    text = yaml.safe_dump(description, sort_keys=False, allow_unicode=True)
    (folder / DESCRIPTION).write_text(text, encoding="utf-8")
    (folder / "readme.txt").write_text(README, encoding="utf-8")
    keys = [(KEYS[0], "STRING"), (KEYS[1], "NUMERIC")]
    numbers = [(feature, "NUMERIC") for feature in problem.feature_names]
    values = zip(problem.tasks, problem.features, strict=True)
    arff.write(
        folder / FEATURES,
        f"FEATURE_VALUES_{name}",
        [*keys, *numbers],
        ([task, 1, *row] for task, row in values),
    )
    arff.write(
        folder / STATUS,
        f"FEATURE_RUNSTATUS_{name}",
        [*keys, (STEP, STEP_ENDINGS)],
        ([task, 1, "ok"] for task in problem.tasks),
    )
    columns = [("algorithm", "STRING"), *((measure, "NUMERIC") for measure in measures)]
    arff.write(
        folder / RUNS,
        f"ALGORITHM_RUNS_{name}",
        [*keys, *columns, ("runstatus", ENDINGS)],
        _runs(problem),
    )
    (folder / FOLDS).unlink(missing_ok=True)
    if folds is not None:
        arff.write(
            folder / FOLDS,
            f"CV_{name}",
            [*keys, ("fold", "NUMERIC")],
            (
                [task, repetition, int(fold) + 1]
                for repetition, row in enumerate(np.atleast_2d(folds), 1)
                for task, fold in zip(problem.tasks, row, strict=True)
            ),
        )


def _runs(problem: Problem) -> Iterator[list[str | float | None]]:
    """A line a part of the queries, task and learner."""
    for part, utilities in enumerate(problem.utilities, 1):
        for t, task in enumerate(problem.tasks):
            for a, learner in enumerate(problem.learners):
                tried = [] if problem.tries is None else [problem.tries[t, a]]
                known = np.isfinite(utilities[t, a])
                ending = "ok" if known else "not_applicable"
                value = utilities[t, a] if known else None
                yield [task, part, learner, value, problem.costs[t, a], *tried, ending]
