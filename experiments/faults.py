"""Disturbs runs at random moments, resumes them, and compares them to an undisturbed run.

    python -m experiments.faults --times 100
    python -m experiments.faults --times 100 --fault full

A run is a real process.  It is killed, or asked to stop, or finds the disk full, at the k-th moment
of a kind in its life, and is resumed; several faults in a row are possible.  Everything is compared
bit for bit, apart from measured seconds.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from experiments.bitwise import differences
from experiments.catalog import EXPERIMENTS
from experiments.config import Experiment
from experiments.dying import Fault, Moment, Template

KINDS = {
    "step": "in the middle of a meta-step",
    "record": "while a line of metrics.jsonl is written",
    "checkpoint": "at a file-system step of a checkpoint, or half through a file of one",
    "file": "at a file-system step of anything else: settings, choices, parts, results, figures",
    "tracking": "around a record of W&B",
    "time": "after a random time",
}
TRACKED_EVERY = 4
"""Of so many runs one is tracked by W&B, which triples the time that a process takes."""


def small_experiment(backbone: str = "mlp") -> Experiment:
    """An experiment of a second that has everything: a grid, two shots, two seeds.

    Args:
        backbone: "mlp" (sinusoids, fast to start), or a language model (the embedded family).
    """
    text = backbone != "mlp"
    learners = ("prototypes", "maml", "protonet") if text else ("finetune", "maml")
    return EXPERIMENTS["sinusoid-maml"].override(
        {
            "name": "faults",
            "learners": learners,
            "seeds": (0, 1),
            "threads": 1,
            "grids": {"maml": {"inner.rate": (0.001, 0.002)}},
            "family": {"source": "builtin"} if text else {"source": "sinusoid"},
            "backbone.name": backbone,
            "episodes.shots": (1, 2) if text else (5, 10),
            "episodes.queries": 3,
            "adapter.options": {"r": 2},
            "inner.steps": 2,
            "outer.steps": 6,
            "outer.tasks": 2,
            "outer.warmup": 2,
            "outer.validate_every": 2,
            "outer.validation_tasks": 4,
            "outer.checkpoint_every": 2,
            "evaluation.tasks": 5,
            "evaluation.resamples": 20,
            "tracking.mode": "disabled",
        }
    )


def main(words: Sequence[str] | None = None) -> int:
    """The command: disturb, resume, compare, and say how often it was not the same."""
    parser = argparse.ArgumentParser(prog="python -m experiments.faults", description=__doc__)
    parser.add_argument("--times", type=int, default=100, help="runs to disturb (default: 100)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the moments (default: 0)")
    parser.add_argument(
        "--fault",
        choices=["killed", "stopped", "full"],
        default="killed",
        help="killed by SIGKILL, stopped by SIGTERM, or the disk is full (default: killed)",
    )
    parser.add_argument("--backbone", default="mlp", help="mlp, or one for text (default: mlp)")
    options = parser.parse_args(words)
    chance = random.Random(options.seed)
    plain = small_experiment(options.backbone)
    variants = (plain.override({"tracking.mode": "offline"}), plain)
    faults, runs, same = Counter(), Counter(), Counter()
    with tempfile.TemporaryDirectory() as root, contextlib.ExitStack() as stack:
        references = [Path(root) / experiment.tracking.mode for experiment in variants]
        with Template(Path(root)) as other:
            counts = [_count(other, *each) for each in zip(references, variants, strict=True)]
        template = stack.enter_context(Template(Path(root)))
        while (number := runs["all"] + 1) <= options.times:
            folder = Path(root) / "run"
            which = min(1, number % TRACKED_EVERY)
            draw = _drawing(chance, counts[which], options.fault)
            met = template.survive(folder, variants[which], draw)
            if not met:  # the moment never came: try another one
                shutil.rmtree(folder)
                continue
            differing = differences(references[which], folder)
            for kind in {moment.kind for moment in met}:
                runs[kind] += 1
                same[kind] += not differing
            faults.update(moment.kind for moment in met)
            runs["all"] += 1
            same["all"] += not differing
            where = ", ".join(f"{kind} {place}" for kind, place, _ in met)
            print(
                f"{number}: {options.fault} at {where}: {'; '.join(differing) or 'same'}",
                flush=True,
            )
            shutil.rmtree(folder)
    _print_table(options.fault, faults, runs, same)
    return int(same["all"] != runs["all"])


def _count(template: Template, folder: Path, experiment: Experiment) -> Counter[str]:
    """Run an experiment undisturbed: its moments of each kind, and its milliseconds."""
    began = time.perf_counter()
    counts = template.go(folder, experiment)
    assert counts is not None
    counts["time"] = int(1000 * (time.perf_counter() - began))
    if experiment.tracking.mode == "disabled":
        del counts["tracking"]
    return counts


def _drawing(
    chance: random.Random, counts: Counter[str], fault: Fault
) -> Callable[[], Moment | None]:
    """One moment, and with a chance of one in three another one, and so on."""
    first = True

    def draw() -> Moment | None:
        nonlocal first
        if not first and chance.random() > 1 / 3:
            return None
        first = False
        # A full disk has no time of its own: it is met where something is written.
        kind = chance.choice(sorted(counts.keys() - ({"time"} if fault == "full" else set())))
        return Moment(kind, chance.randint(1, counts[kind]), fault)

    return draw


def _print_table(
    fault: Fault, faults: Counter[str], runs: Counter[str], same: Counter[str]
) -> None:
    print(f"\n{fault:<81}{'faults':>7}{'runs':>6}{'same':>6}")
    for kind, meaning in KINDS.items():
        print(f"{meaning:<82}{faults[kind]:>6}{runs[kind]:>6}{same[kind]:>6}")
    print(f"{'all':<82}{faults.total():>6}{runs['all']:>6}{same['all']:>6}")


if __name__ == "__main__":
    sys.exit(main())
