"""Predicted memory beside measured memory: does `metalearn estimate` tell the truth?

    python -m experiments.benchmarks.estimate            MiniLM, 5-way 5-shot, 20 tokens a text
    python -m experiments.benchmarks.estimate busy       seconds a task by the tasks of a pass
    python -m experiments.benchmarks.estimate all
    MALLOC_MMAP_THRESHOLD_=131072 python -m experiments.benchmarks.estimate
    GLIBC_TUNABLES=...:... python -m experiments.benchmarks.estimate    as in `allocators.JOINED`

Each figure is that of a fresh process that takes one meta-step from the settings, with the
optimizer's step, as a training does.  The record goes to `results/benchmarks/estimate.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from experiments.config import Experiment

RECORD = Path(__file__).resolve().parents[1] / "results" / "benchmarks" / "estimate.json"
TOKENS = 20
REFERENCE = {
    "inner.steps": 5,
    "inner.rate": 0.05,
    "episodes.shots": (5,),
    "episodes.queries": 5,
    "outer.tasks": 4,
    "head.kind": "slots",
    "backbone.pooling": "mean",
    "inner.tasks_per_pass": 1,
    "device": "cpu",
    "threads": 1,
}
"""5-way 5-shot second-order MAML, LoRA of rank 8 on query and value of all layers of MiniLM."""
CASES: dict[str, dict[str, Any]] = {
    "unrolled": {},
    "unrolled, 2 tasks a pass": {"inner.tasks_per_pass": 2},
    "unrolled, top 2 layers": {"adapter.layers": (4, 5)},
    "unrolled, checkpointed": {"backbone.checkpoint": True},
    "unrolled, bfloat16": {"backbone.dtype": "bfloat16"},
    "adjoint": {"inner.gradient": "adjoint"},
    "adjoint, bfloat16": {"inner.gradient": "adjoint", "backbone.dtype": "bfloat16"},
    "adjoint, checkpointed": {"inner.gradient": "adjoint", "backbone.checkpoint": True},
    "first order": {"inner.order": 1},
    "unrolled, 1 shot": {"episodes.shots": (1,)},
    "unrolled, 10 ways, 3 steps": {"episodes.ways": 10, "inner.steps": 3},
}
CALIBRATING = ("unrolled", "adjoint", "first order")
"""Rows that `metalearn.allocators.FRAGMENTED` was taken from; the others tell what it is worth."""
WITHIN = 0.2
"""Largest distance of the prediction from the measured peak, as a share of it."""


def compare(experiment: Experiment, tokens: int = TOKENS) -> dict[str, Any]:
    """Predict a meta-step of MAML, and take it in a process of its own.

    Returns:
        Bytes `predicted` and `measured`, each in a process of its own, `ratio` of the two, the
        parts of the prediction, what was held before the step, and its CPU seconds.
    """
    request = {"experiment": experiment.model_dump_json(), "tokens": tokens}
    found = _ask(request | {"predict": True})
    measured = _ask(request)
    return {
        "predicted": found["peak"],
        "measured": measured["peak"],
        "ratio": round(found["peak"] / measured["peak"], 3),
        **{name: found[name] for name in ("baseline", "frozen", "activations", "flops")},
        **{name: measured[name] for name in ("before", "cpu_seconds")},
    }


def _ask(request: dict[str, Any]) -> dict[str, Any]:
    """The answer of a fresh process, at one thread."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "experiments.benchmarks.estimate", "--child"],
        input=json.dumps(request),
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    if done.returncode:
        said = done.stderr.strip()[-2000:]
        raise RuntimeError(f"the measuring process ended with status {done.returncode}: {said}")
    return json.loads(done.stdout.splitlines()[-1])


def _predict(request: dict[str, Any]) -> dict[str, Any]:
    from experiments.build import Workshop
    from experiments.estimate import estimate, process_baseline, tasks_of_a_step

    experiment, kept = Experiment.model_validate_json(request["experiment"]), {}
    shop = Workshop(experiment, kept, weights=False)
    episode = tasks_of_a_step(shop, request["tokens"])
    baseline = process_baseline(shop, "maml")
    found = estimate(experiment, "maml", episode, baseline=baseline, kept=kept)
    return asdict(found) | {"peak": found.peak}


def _child(request: dict[str, Any]) -> dict[str, Any]:
    """Meta-steps of MAML, and what they took."""
    import torch

    from experiments.build import Workshop, seeded
    from experiments.estimate import peak_resident, resident, tasks_of_a_step
    from experiments.run import MetaTraining

    experiment = Experiment.model_validate_json(request["experiment"])
    torch.set_num_threads(1)
    shop = Workshop(experiment)
    episode = tasks_of_a_step(shop, request["tokens"])
    training = MetaTraining(
        shop.learner("maml"), lambda step: episode, None, shop.outer_loop(), seeded(0)
    )
    before = resident()
    seconds = []
    for _ in range(request.get("steps", 1)):
        began = time.process_time()
        training.take_step()
        seconds.append(time.process_time() - began)
    return {"before": before, "peak": peak_resident(), "cpu_seconds": round(min(seconds), 3)}


def busy() -> list[dict[str, Any]]:
    """CPU seconds a task of second-order MAML, by texts a task and tasks a pass."""
    rows = []
    for shots, tokens in ((1, 12), (5, 12), (5, 20)):
        for size in (1, 2, 4, 8):
            experiment = Experiment().override(
                REFERENCE
                | {"episodes.shots": (shots,), "inner.tasks_per_pass": size}
                | {"episodes.queries": shots, "outer.tasks": size, "inner.steps": 2}
            )
            request = {"experiment": experiment.model_dump_json(), "tokens": tokens, "steps": 4}
            seconds = _ask(request)["cpu_seconds"] / size
            row = {"texts": 5 * shots, "tokens": tokens, "tasks_per_pass": size}
            rows.append(row | {"support_tokens": 5 * shots * tokens * size, "cpu_seconds": seconds})
            print(f"{row}: {seconds:.3f} s a task", flush=True)
    return rows


def _store(record: dict[str, Any]) -> None:
    from experiments.files import write_json

    RECORD.parent.mkdir(parents=True, exist_ok=True)
    write_json(RECORD, record)


def main(words: Sequence[str] | None = None) -> int:
    """The command; exit status 1 where a prediction is too far off."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.benchmarks.estimate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("what", nargs="?", choices=("memory", "busy", "all"), default="memory")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument(
        "--only", nargs="+", choices=[*CASES], help="these rows; others stay as they are"
    )
    given = parser.parse_args(words)
    if given.child:
        request = json.load(sys.stdin)
        print(json.dumps((_predict if request.get("predict") else _child)(request)))
        return 0

    from experiments.files import read_json
    from experiments.folder import environment
    from metalearn.allocators import ALIGNED, PAGE, Blocks, of_this_process

    record = read_json(RECORD) if RECORD.exists() else {}
    record["environment"] = environment()
    far = []
    # Where glibc leaves no holes, or maps tensors one by one, nothing is calibrated.
    allocator = of_this_process()
    part = "memory"
    if isinstance(allocator, Blocks):
        part = {ALIGNED: "memory, joined", PAGE: "memory, mapped"}[allocator.block]
    if given.what in ("memory", "all"):
        record[part] = record.get(part, {}) if given.only else {}
        for name in given.only or CASES:
            found = compare(Experiment().override(REFERENCE | CASES[name]))
            found["calibrating"] = name in CALIBRATING and part == "memory"
            record[part][name] = found
            predicted, measured = found["predicted"] / 1e6, found["measured"] / 1e6
            print(f"{name:<28}{predicted:>8.0f} MB predicted{measured:>8.0f} MB measured", end="")
            print(f"{found['ratio']:>8.3f}{found['cpu_seconds']:>8.1f} s", flush=True)
            far += [name] if abs(found["ratio"] - 1) > WITHIN else []
            _store(record)
    if given.what in ("busy", "all"):
        record["busy"] = busy()
        _store(record)
    if far:
        print(f"more than {WITHIN:.0%} off: {', '.join(far)}")
    return int(bool(far))


if __name__ == "__main__":
    sys.exit(main())
