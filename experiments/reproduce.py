"""Reproductions of published results: run one, say whether it is inside its bands, keep the record.

    metalearn reproduce KEY --output experiments/results/papers/KEY.json

A record holds every published and measured value with its band and verdict, the settings, the
seed, the seconds it took and the environment.  An entry that takes long keeps what is done in a run
folder, `--run-dir`, from which the same command goes on after an interruption.
"""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from experiments.errors import UserError
from experiments.files import read_json, write_json
from experiments.papers import registry
from experiments.papers.reproduction import Job, Measured, Quantity, Reproduction

Record = dict[str, Any]
HEADERS = ("quantity", "published", "re-run", "measured", "band", "verdict")
UNMEASURED = "not measured yet"
SMOKE = "smoke test on a hundredth of the budget: these numbers mean nothing"


def reproduce(
    key: str,
    *,
    seed: int = 0,
    smoke: bool = False,
    output: Path | None = None,
    run_dir: Path | None = None,
) -> int:
    """Run a reproduction and print it.

    Args:
        key: Which one.
        seed: Seed of its training.
        smoke: Run the same code on a hundredth of the budget; nothing is judged.
        output: JSON file for the record.
        run_dir: Where an entry that resumes keeps what is done; None: below `runs/`, for a smoke
            test nowhere.

    Returns:
        0 if every value is inside its band or nothing is judged, else 1.

    Raises:
        UserError: If there is no such reproduction, the file cannot be written, the entry keeps no
            run folder, or that is a file.
    """
    reproduction = registry.load(key)
    # Before the minutes of work, not after them.
    if output is not None and (output.is_dir() or not output.parent.is_dir()):
        raise UserError(f"--output {output} is no file in an existing folder; make the folder")
    if run_dir is not None and not reproduction.resumes:
        raise UserError(f"{key} takes minutes and keeps no run folder; drop --run-dir")
    if run_dir is not None and run_dir.exists() and not run_dir.is_dir():
        raise UserError(f"{run_dir} is a file; choose another --run-dir")
    began, worked = time.perf_counter(), _cpu_seconds()
    with _folder(reproduction, seed, smoke, run_dir) as folder:
        resumed = folder.is_dir() and any(folder.iterdir())
        measured = reproduction.run(Job(seed, smoke, folder))
    seconds = {"seconds": time.perf_counter() - began, "cpu_seconds": _cpu_seconds() - worked}
    # What was done before is not in the seconds.
    made = record(reproduction, measured, seed=seed, smoke=smoke) | seconds | {"resumed": resumed}
    show(reproduction, made)
    if output is not None:
        from experiments.folder import environment

        write_json(output, made | {"environment": environment()})
    return int(made["verdict"] == "outside")


@contextmanager
def _folder(
    reproduction: Reproduction, seed: int, smoke: bool, run_dir: Path | None
) -> Iterator[Path]:
    """The folder of a run; nothing is kept of a smoke test that names none."""
    if smoke and run_dir is None:
        with TemporaryDirectory() as temporary:
            yield Path(temporary)
        return
    folder = run_dir or Path("runs") / f"{reproduction.key}-seed{seed}"
    if reproduction.resumes:
        print(f"in {folder}: the same command goes on after an interruption", file=sys.stderr)
    yield folder


def _cpu_seconds() -> float:
    """Processor time of this process and of those it has waited for."""
    return sum(os.times()[:4])


def record(
    reproduction: Reproduction, measured: Measured, *, seed: int, smoke: bool = False
) -> Record:
    """What is kept of a run, apart from its time and place.

    Args:
        reproduction: What was run.
        measured: An estimate of each of its quantities.
        seed: Seed of the training.
        smoke: The budget was a hundredth: there is no verdict.

    Raises:
        ValueError: If a quantity was not measured, or something else was.
    """
    names = [quantity.name for quantity in reproduction.quantities]
    if sorted(names) != sorted(measured):
        raise ValueError(f"{reproduction.key} promises {sorted(names)}, got {sorted(measured)}")
    values = []
    for quantity in reproduction.quantities:
        estimate = measured[quantity.name]
        values.append(
            {
                "name": quantity.name,
                "published": quantity.published,
                "rerun": quantity.rerun,
                "measured": _finite(estimate.value),
                "half": _finite(estimate.half),
                "low": quantity.low,
                "high": quantity.high,
                "verdict": "" if smoke else quantity.verdict(estimate.value),
            }
        )
    verdicts = {value["verdict"] for value in values} - {""}
    return {
        "number": reproduction.number,
        "key": reproduction.key,
        "title": reproduction.title,
        "comparison": reproduction.comparison,
        "seed": seed,
        "smoke": smoke,
        "verdict": "outside" if "outside" in verdicts else "inside" if verdicts else "",
        "values": values,
        "settings": {} if smoke else dict(reproduction.settings),
    }


def _finite(value: float | None) -> float | None:
    """The value as JSON has it: there is no NaN."""
    return value if value is not None and math.isfinite(value) else None


def show(reproduction: Reproduction, made: Record) -> None:
    """Print a reproduction: claim, protocol, values side by side, verdict."""
    console = Console(highlight=False)
    console.print(f"{reproduction.number} {reproduction.title}", markup=False)
    said = {
        "a comparison, not a reproduction": reproduction.comparison,
        "claim": reproduction.claim,
        "protocol": reproduction.protocol,
        "source": reproduction.source,
        "note": reproduction.note,
    }
    for name, text in said.items():
        if text:
            console.print(f"{name}: {text}", markup=False)
    table = Table(box=SIMPLE_HEAD, padding=0, show_edge=False)
    for name in HEADERS:
        left = name in ("quantity", "verdict")
        table.add_column(name, justify="left" if left else "right", no_wrap=True)
    for value in made["values"]:
        table.add_row(*cells(value))
    console.print(table)
    judged = [value for value in made["values"] if value["verdict"]]
    inside = sum(value["verdict"] == "inside" for value in judged)
    outcome = SMOKE if made["smoke"] else f"{inside} of {len(judged)} values inside their bands"
    since = " since it was resumed" if made["resumed"] else ""
    console.print(f"{outcome}; seed {made['seed']}, {made['seconds']:.0f} s{since}", markup=False)


def cells(value: Record) -> list[str]:
    """A row of the table, under `HEADERS`.

    Example:
        >>> cells({"name": "error", "published": 0.5, "rerun": None, "measured": 0.5123,
        ...        "half": 0.01, "low": 0.4, "high": 0.6, "verdict": "inside"})
        ['error', '0.500', '-', '0.512 ± 0.010', '0.4 to 0.6', 'inside']
    """
    quantity = Quantity(value["name"], low=value["low"], high=value["high"])
    measured = _number(value["measured"])
    if value["half"] is not None:
        measured = f"{measured} ± {_number(value['half'])}"
    known = [_number(value["published"]), _number(value["rerun"])]
    return [value["name"], *known, measured, quantity.band or "-", value["verdict"] or "-"]


def _number(value: float | None) -> str:
    """Three digits after the point; of what diverged, its size.

    Example:
        >>> _number(None), _number(0.5), _number(2.5e33)
        ('-', '0.500', '2.5e+33')
    """
    if value is None:
        return "-"
    return f"{value:.3f}" if abs(value) < 1e6 else f"{value:.1e}"


def markdown(folder: Path) -> str:
    """The table of the records in a folder, for the README: what is published or has a band.

    Raises:
        UserError: If a record is of a smoke test.
    """
    rows = [["", *HEADERS, "CPU min"], [":--", ":--", *["--:"] * 4, ":--", "--:"]]
    for key in registry.FILES:
        path, entry = folder / f"{key}.json", registry.load(key)
        name = f"{entry.number} `{key}`{', a comparison' if entry.comparison else ''}"
        if not path.exists():
            rows.append([name, UNMEASURED, *[""] * 6])
            continue
        made = read_json(path)
        if made["smoke"]:
            raise UserError(f"{path} is of a smoke test; run metalearn reproduce {key}")
        least = "> " if made.get("resumed") else ""
        first = [name, f"{least}{made['cpu_seconds'] / 60:.1f}"]
        for value in made["values"]:
            if value["published"] is None and not value["verdict"]:
                continue
            rows.append([first[0], *cells(value), first[1]])
            first = ["", ""]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows) + "\n"
