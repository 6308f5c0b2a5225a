"""Policies judged on ASlib scenarios, a table a scenario.

Of each scenario the single best is the one over all instances, as in ASlib's tables; the closed gap
is (SBS - s) / (SBS - VBS), its interval a bootstrap over instances.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from experiments.errors import UserError
from experiments.files import write_json
from experiments.progress import Progress
from experiments.selection.policies import policy
from metalearn.selection.aslib import Scenario, read_scenario
from metalearn.selection.crossvalidation import folds_by_source, judge, single_best, virtual_best
from metalearn.selection.metrics import closed_gap, frequencies, mean_utility, share_best

HEADERS = ("policy", "value", "closed gap", "best", "CPU s")


def evaluate(
    folders: Sequence[Path],
    names: Sequence[str],
    *,
    seed: int = 0,
    measure: str = "",
    folds: int = 10,
    output: Path | None = None,
) -> list[dict[str, Any]]:
    """Judge policies on scenarios and print the table of each as soon as it is known.

    Args:
        folders: Of the scenarios.
        names: Of the policies.
        seed: Of whatever a policy draws.
        measure: Which performance measure; empty: the first of each scenario.
        folds: Where a scenario has no cv.arff.
        output: JSON file for all rows.

    Returns:
        The rows.

    Raises:
        UserError: If a scenario cannot be read, or there is nothing to choose in it.
    """
    rows: list[dict[str, Any]] = []
    for scenario in [read(folder, measure) for folder in folders]:
        found = []
        try:
            with Progress(len(names), f"{scenario.name}: policies judged") as progress:
                for row in judged_on(scenario, names, seed=seed, folds=folds):
                    found.append(row)
                    progress.update(len(found), {"closed gap": row["gap"]["mean"]})
        except ValueError as error:
            raise UserError(f"{scenario.name}: {error}") from None
        show(scenario, found)
        rows += found
    if len(folders) > 1:
        print(f"mean closed gap over {len(folders)} scenarios")
        for name in names:
            mean = np.mean([row["gap"]["mean"] for row in rows if row["policy"] == name])
            print(f"  {name:<{max(map(len, names))}}  {mean:.3f}")
    if output is not None:
        write_json(output, {"seed": seed, "rows": rows})
    return rows


def read(folder: Path, measure: str = "") -> Scenario:
    """A scenario.

    Raises:
        UserError: If it cannot be read.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder of an ASlib scenario; see --aslib")
    try:
        return read_scenario(folder, measure)
    except ValueError as error:
        raise UserError(str(error)) from None


def judged_on(
    scenario: Scenario, names: Sequence[str], *, seed: int, folds: int = 10
) -> Iterator[dict[str, Any]]:
    """A row a policy: values in the scenario's measure, its closed gap with interval, its time.

    Args:
        scenario: With its folds, or without.
        names: Of the policies.
        seed: Of whatever a policy draws.
        folds: Where the scenario has none.

    Raises:
        ValueError: If the virtual best is no better than the single best.
    """
    problem = scenario.problem()
    split = scenario.folds
    if split is None:
        split = folds_by_source(problem, folds, seed)
    single, virtual = single_best(problem), virtual_best(problem)
    sign = 1 if scenario.measure.maximize else -1
    for name in names:
        began = time.process_time()
        found = judge(lambda name=name: policy(name), problem, split, seed=seed)
        seconds = time.process_time() - began
        chosen = frequencies(found)
        yield {
            "scenario": scenario.name,
            "policy": name,
            "measure": "PAR10" if scenario.measure.runtime else scenario.measure.name,
            "value": sign * mean_utility(found).mean,
            "single": sign * mean_utility(single).mean,
            "virtual": sign * mean_utility(virtual).mean,
            "gap": closed_gap(found, single).as_dict(),
            "best": share_best(found),
            "chosen": dict(zip(problem.learners, map(float, chosen), strict=True)),
            "seconds": seconds,
        }


def show(scenario: Scenario, rows: Sequence[dict[str, Any]]) -> None:
    """Print the rows of a scenario."""
    console = Console(highlight=False)
    first, size = rows[0], (len(scenario.instances), len(scenario.algorithms))
    title = f"{scenario.name}: {size[0]} instances, {size[1]} algorithms, {first['measure']}"
    bounds = f"SBS {first['single']:.3f}, VBS {first['virtual']:.3f}"
    console.print(f"{title}; {bounds}", markup=False)
    table = Table(box=SIMPLE_HEAD, padding=0, show_edge=False)
    for header in HEADERS:
        table.add_column(header, justify="left" if header == "policy" else "right", no_wrap=True)
    for row in rows:
        gap = "{mean:.3f} [{low:.3f}, {high:.3f}]".format(**row["gap"])
        share, seconds = f"{100 * row['best']:.0f}%", f"{row['seconds']:.0f}"
        table.add_row(row["policy"], f"{row['value']:.3f}", gap, share, seconds)
    console.print(table)
