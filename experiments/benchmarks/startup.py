"""Seconds from a command to its first meta-step: imports, backbone, tasks, the first validation.

    python -m experiments.benchmarks.startup [NAME ...] [--times 5]

For each experiment (default: quickstart and banking77-maml-folds) a run is started as a user starts
it and stopped when its first meta-step is on record; before them, `metalearn --help`.  The
first time of each experiment is not counted: it fills the caches that later runs find.
"""

from __future__ import annotations

import argparse
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from experiments.benchmarks.__main__ import RECORDS, count
from experiments.benchmarks.rounds import ask
from experiments.errors import UserError
from experiments.files import write_json

COMMAND = (sys.executable, "-m", "experiments.cli")
EXPERIMENTS = ("quickstart", "banking77-maml-folds")
POLL = 0.02  # seconds


def main(words: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.benchmarks.startup",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", default=EXPERIMENTS)
    parser.add_argument("--times", type=count, default=5, help="counted starts of each (5)")
    parser.add_argument("--output", type=Path, default=RECORDS / "startup.json", metavar="FILE")
    arguments = parser.parse_args(words)
    rows = {}
    try:
        for name in ("--help", *arguments.names):
            rows[name] = [start(name) for _ in range(arguments.times + 1)][1:]
            wall, worked = (median(times) for times in zip(*rows[name], strict=True))
            print(f"{name}: {wall:.2f} s, {worked:.2f} of the processor (median)", flush=True)
    except UserError as error:
        print(f"startup: {error}", file=sys.stderr)
        return 2
    record = {"environment": ask({}, 1), "rows": rows}
    write_json(arguments.output, record)
    return 0


def start(name: str) -> tuple[float, float]:
    """Seconds, and seconds of the processor, from the command to the first meta-step.

    Args:
        name: An experiment; `--help` ends by itself.

    Raises:
        UserError: If the command ends without a meta-step.
    """
    with TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        words = [name] if name == "--help" else ["train", name, "--run-dir", str(run)]
        before, began = _worked(), time.perf_counter()
        process = subprocess.Popen(
            [*COMMAND, *words],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"WANDB_MODE": "offline"},
        )
        metrics = run / "metrics.jsonl"
        while process.poll() is None and not (metrics.exists() and metrics.stat().st_size):
            time.sleep(POLL)
        seconds = time.perf_counter() - began
        if name != "--help":
            process.send_signal(signal.SIGINT)
        _, said = process.communicate()
        if not (name == "--help" or metrics.exists()):
            raise UserError(f"{name} took no meta-step: {said.strip().splitlines()[-1]}")
        return seconds, _worked() - before


def _worked() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    sys.exit(main())
