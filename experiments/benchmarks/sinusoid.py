"""What a meta-step on sinusoids costs on one core: the yardstick for everything but the model.

    python -m experiments.benchmarks.sinusoid

The meta-step of `metalearn reproduce maml-sinusoid`: 25 tasks of 10 + 10 points drawn, one inner
step of a 1-40-40-1 network, second order, Adam.  Network and tasks are so small that the time goes
to what is around the arithmetic: drawing, autograd, the outer loop.  Each repetition is of some
hundred steps; median and range of the repetitions are shown, in milliseconds of processor time a
step: with one thread that is the time on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

OUTPUT = Path(__file__).parent.parent / "results" / "benchmarks" / "sinusoid.json"
WARM_UP = 20  # steps before the first repetition


def measure(repetitions: int, steps: int) -> dict[str, Any]:
    """Milliseconds a step, of whole meta-steps and of their parts.

    Args:
        repetitions: How often each is measured.
        steps: Steps of a repetition.

    Returns:
        {what: {median, low, high}}; "first compiled step": seconds by the clock.
    """
    import torch

    from experiments.build import Workshop, seeded
    from experiments.papers.maml_sinusoid import EXPERIMENT, TRAIN_SHOTS
    from metalearn.training import MetaTraining

    torch.set_num_threads(1)
    found: dict[str, Any] = {}
    for mode in ("off", "on"):
        name = "compiled" if mode == "on" else "eager"
        shop = Workshop(EXPERIMENT.override({"compile": mode}))
        learner, episodes = shop.learner("maml"), shop.training_episodes(TRAIN_SHOTS, 0)
        training = MetaTraining(learner, episodes, None, shop.outer_loop(), seeded(0))
        began = time.perf_counter()
        training.take_step()
        if mode == "on":
            found["first compiled step"] = time.perf_counter() - began
        tasks = episodes(0)
        found[f"meta-step, {name}"] = _repeat(training.take_step, repetitions, steps)
        found[f"meta-gradient, {name}"] = _repeat(
            partial(learner.meta_gradient, training.state, tasks), repetitions, steps
        )
    found["drawing the tasks"] = _repeat(partial(episodes, 0), repetitions, steps)
    return found


def _repeat(step: Callable[[], object], repetitions: int, steps: int) -> dict[str, float]:
    for _ in range(WARM_UP):
        step()
    seconds = []
    for _ in range(repetitions):
        began = time.process_time()
        for _ in range(steps):
            step()
        seconds.append(1000 * (time.process_time() - began) / steps)
    return {"median": median(seconds), "low": min(seconds), "high": max(seconds)}


def main(argv: list[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.benchmarks.sinusoid", description="Cost of a small meta-step."
    )
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--steps", type=int, default=300, help="steps of a repetition")
    parser.add_argument("--output", type=Path, default=OUTPUT, metavar="FILE.json")
    arguments = parser.parse_args(argv)

    from experiments.files import write_json
    from experiments.folder import environment

    found = measure(arguments.repetitions, arguments.steps)
    seconds = found.pop("first compiled step")
    for name, value in found.items():
        print(f"{name:<26}" + "{median:.2f} ms  ({low:.2f} to {high:.2f})".format(**value))
    print(f"first compiled step: {seconds:.1f} s")
    record = {
        "repetitions": arguments.repetitions,
        "steps": arguments.steps,
        "milliseconds": found,
        "first_compiled_step_seconds": seconds,
    }
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    write_json(arguments.output, record | {"environment": environment()})
    return 0


if __name__ == "__main__":
    sys.exit(main())
