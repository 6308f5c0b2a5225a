"""Rounds of measurements: every row in a process of its own, one after the other, round by round.

In a round each row is measured once (a fresh process, a warm-up, a few steps), so that whatever
changes on the machine meanwhile meets all rows alike, and rows are compared within a round.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from experiments.benchmarks.plan import Case
from experiments.errors import UserError
from experiments.files import read_json, write_json

ROOT = Path(__file__).resolve().parents[2]
# Of the machine's memory: a row that would take more is left out, before it is killed.
SHARE = 0.75
TIMED = ("git", "packages", "cpu", "device", "threads", "allocator")
"""What may not change between the rounds of a record."""
Record = dict[str, Any]


@dataclass(frozen=True)
class Effort:
    """How much is measured.

    Attributes:
        rounds: Processes a row.
        warmup: Steps of each that are not timed.
        steps: Steps of each that are.
        threads: Threads of torch.
    """

    rounds: int = 5
    warmup: int = 1
    steps: int = 2
    threads: int = 1


def run(
    figure: str,
    cases: Sequence[Case],
    effort: Effort,
    path: Path,
    *,
    smoke: bool = False,
    resume: bool = False,
    say: Callable[[str], None] = print,
) -> Record:
    """Measure the rows of a figure and keep the record after each measurement.

    Args:
        figure: Its name.
        cases: Its rows.
        effort: Rounds, steps and threads.
        path: JSON file of the record.
        smoke: Whether the work is a small piece of what the figure asks for.
        resume: Go on with the record in the file: what it has is not measured again.
        say: Takes a line about each measurement.

    Raises:
        UserError: If there is a record and it is not to be resumed, or cannot be.
    """
    now = ask({}, effort.threads)
    record: Record = {
        "figure": figure,
        "smoke": smoke,
        "warmup": effort.warmup,
        "steps": effort.steps,
        "environment": now,
        "rows": [{"case": case.written(), "rounds": []} for case in cases],
    }
    if path.exists():
        if not resume:
            raise UserError(f"{path} exists; add --resume to go on, or choose another --output")
        _take_over(record, read_json(path), path)
    for number in range(effort.rounds):
        with TemporaryDirectory() as folder:
            for index, (case, row) in enumerate(zip(cases, record["rows"], strict=True)):
                known = {done["round"] for done in row["rounds"]}
                if number in known or "error" in row:
                    continue
                label = f"{figure}, round {number + 1}: {case.group}, {case.name}"
                row.pop("left_out", None)
                if reason := too_large(case, record, memory()):
                    row["left_out"] = reason
                else:
                    gradient = f"{folder}/{index}.npz"
                    request = {
                        "case": case.written(),
                        "warmup": effort.warmup,
                        "steps": effort.steps,
                        "threads": effort.threads,
                        "gradient": gradient,
                    }
                    answer = ask(request, effort.threads)
                    if "error" in answer:
                        row["error"] = answer["error"]
                    else:
                        reference = f"{folder}/{_reference(case, cases)}.npz"
                        answer["difference"] = difference(gradient, reference)
                        row["rounds"].append({"round": number} | answer)
                write_json(path, record)
                say(f"{label}: {_said(row)}")
    return record


def _take_over(record: Record, old: Record, path: Path) -> None:
    """The measurements of an earlier run, for rows that are still the same."""
    changed = [
        n for n in TIMED if _fixed(old["environment"], n) != _fixed(record["environment"], n)
    ]
    if old["smoke"] != record["smoke"] or old["steps"] != record["steps"]:
        changed.append("steps")
    if changed:
        raise UserError(
            f"{path} was measured with another {', '.join(changed)}; choose another --output"
        )
    record["environment"] = old["environment"]
    kept = {json.dumps(row["case"], sort_keys=True): row["rounds"] for row in old["rows"]}
    for row in record["rows"]:
        row["rounds"] = kept.get(json.dumps(row["case"], sort_keys=True), [])


def _fixed(environment: dict[str, Any], name: str) -> Any:
    # Writing the record makes the checkout dirty.
    value = environment.get(name)
    return (value or {}).get("revision") if name == "git" else value


def ask(request: dict[str, Any], threads: int) -> dict[str, Any]:
    """The answer of a fresh process; `error` says why there is none."""
    # The kernel counts the memory of whoever starts a process into its peak: this one stays small.
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "experiments.benchmarks.child"],
        input=json.dumps(request),
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"},
    )
    if done.returncode == 0:
        return json.loads(done.stdout.splitlines()[-1])
    if done.returncode < 0:
        return {"error": f"ended by signal {-done.returncode} (out of memory?)"}
    return {"error": (done.stderr.strip().splitlines() or ["no message"])[-1]}


def _reference(case: Case, cases: Sequence[Case]) -> int:
    """Index of the row whose gradient a row should have."""
    group = case.against or case.group
    return next(i for i, other in enumerate(cases) if other.group == group)


def difference(path: str, reference: str) -> float | None:
    """The largest |a - b| / |b| over the tensors of two gradients; None where one is missing.

    |.| is the Euclidean norm of a tensor.
    """
    if not (Path(path).exists() and Path(reference).exists()):
        return None
    import numpy

    with numpy.load(path) as mine, numpy.load(reference) as theirs:
        if set(mine) != set(theirs):
            raise ValueError(f"gradients of {sorted(set(mine) ^ set(theirs))} are missing")
        norm = numpy.linalg.norm
        return max(float(norm(mine[n] - theirs[n]) / norm(theirs[n])) for n in theirs)


def memory() -> int:
    """Bytes of memory that a measurement may take."""
    return int(SHARE * os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))


def too_large(case: Case, record: Record, limit: int) -> str:
    """Why a row of a curve is left out: the memory it would take, from its smaller neighbours.

        peak(n) = peak(b) + (n - b) (peak(b) - peak(a)) / (b - a)

    With a single neighbour the process before its first step counts as peak(0).
    """
    if not case.axis or case.work.device != "cpu":
        return ""
    peaks = {}
    for row in record["rows"]:
        other = Case.read(row["case"])
        same = (other.axis, other.name, other.work.dtype) == (
            *(case.axis, case.name, case.work.dtype),
        )
        if same and other.size < case.size:
            if row.get("left_out"):
                return row["left_out"]
            for done in row["rounds"][-1:]:
                peaks.setdefault(0, done["resident"])
                peaks[other.size] = done["peak"]
    if len(peaks) < 2:
        return ""
    (a, low), (b, high) = sorted(peaks.items())[-2:]
    predicted = high + (case.size - b) * (high - low) / (b - a)
    if predicted <= limit:
        return ""
    return f"would take more than {limit / 1e9:.0f} GB"


def _said(row: Record) -> str:
    if "error" in row or "left_out" in row:
        return row.get("error") or row["left_out"]
    done = row["rounds"][-1]
    if "bytes" in done:
        return f"{done['bytes'] / 1e6:.1f} MB"
    each = ", ".join(f"{seconds:.3g}" for seconds in done["seconds"])
    apart = "" if done["difference"] is None else f", gradient apart {done['difference']:.1e}"
    return f"{each} s, peak {done['peak'] / 1e6:.0f} MB{apart}"
