"""Speed and memory of a meta-step beside the peers.

    python -m experiments.benchmarks speed         the reference work, float32 and bfloat16
    python -m experiments.benchmarks layers        adapters on the top two layers
    python -m experiments.benchmarks packing       real texts: packed rows against padding
    python -m experiments.benchmarks length        over inner steps and tasks, with a figure
    python -m experiments.benchmarks adjoint       its two ways to second derivatives
    python -m experiments.benchmarks copies        what a clone of an 8B model adds
    python -m experiments.benchmarks accelerator   --device cuda
    python -m experiments.benchmarks all

A record goes to FOLDER/NAME.json after each measurement; `--resume` goes on with it.  The tables of
the README are made from these records by `python -m experiments.results tables`.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from experiments.benchmarks.plan import FIGURES
from experiments.benchmarks.rounds import Effort, ask, run
from experiments.benchmarks.tables import markdown
from experiments.errors import UserError

RECORDS = Path(__file__).resolve().parents[1] / "results" / "benchmarks"
SMOKE = "smoke test on a tiny model: these numbers mean nothing"


def main(words: Sequence[str] | None = None) -> int:
    """The command."""
    arguments = _parser().parse_args(words)
    try:
        if arguments.smoke and arguments.output is None:
            with TemporaryDirectory() as folder:
                _measure(arguments, Path(folder))
        else:
            _measure(arguments, arguments.output or RECORDS)
    except UserError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nbenchmarks: interrupted; go on with --resume", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("figure", choices=[*FIGURES, "all"], help="what to measure")
    effort = Effort(threads=os.cpu_count() or 1)
    for name, text in (
        ("rounds", "processes a row"),
        ("warmup", "steps of each that are not timed"),
        ("steps", "steps of each that are"),
        ("threads", "threads of torch"),
    ):
        given = getattr(effort, name)
        kind = _whole if name == "warmup" else count
        parser.add_argument(f"--{name}", type=kind, default=given, help=f"{text} ({given})")
    parser.add_argument("--device", default="cpu", help="cpu (default) or cuda")
    parser.add_argument("--only", nargs="+", metavar="TEXT", help="rows that have it in their name")
    parser.add_argument("--resume", action="store_true", help="go on with the records there are")
    parser.add_argument("--smoke", action="store_true", help="one round on a tiny model")
    parser.add_argument("--output", type=Path, metavar="FOLDER", help=f"default: {RECORDS}")
    return parser


def _whole(text: str) -> int:
    return 0 if text == "0" else count(text)


def count(text: str) -> int:
    """A number of times, from the command line."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is no number of times; give 1 or more")
    return value


def _measure(arguments: argparse.Namespace, folder: Path) -> None:
    effort = Effort(arguments.rounds, arguments.warmup, arguments.steps, arguments.threads)
    if arguments.smoke:
        effort = Effort(1, 1, 1, arguments.threads)
    folder.mkdir(parents=True, exist_ok=True)
    there = ask({}, effort.threads)
    if "error" in there:
        raise UserError(f"no process can be started: {there['error']}")
    if arguments.device != "cpu" and not there["accelerator"]:
        raise UserError(f"no accelerator here for --device {arguments.device}; leave it out")
    for name in FIGURES if arguments.figure == "all" else [arguments.figure]:
        cases = FIGURES[name](arguments.device, arguments.smoke)
        if name == "accelerator" and arguments.device == "cpu" and not arguments.smoke:
            groups = ", ".join(dict.fromkeys(case.group for case in cases))
            print(f"no accelerator here: rows {groups} not measured")
            continue
        if arguments.only:
            cases = [c for c in cases if any(t in f"{c.group}, {c.name}" for t in arguments.only)]
        if name == "copies":
            effort = Effort(1, effort.warmup, effort.steps, effort.threads)
        device = "" if arguments.device == "cpu" else f"-{arguments.device.partition(':')[0]}"
        path = folder / f"{name}{device}.json"
        record = run(name, cases, effort, path, smoke=arguments.smoke, resume=arguments.resume)
        if name == "length":
            from experiments.benchmarks.curves import draw

            draw(record, path.with_suffix(".png"))
        print(f"\n{markdown(record)}")
        if arguments.smoke:
            print(SMOKE)


if __name__ == "__main__":
    sys.exit(main())
