"""Kills runs at random moments and compares what their resumption ends with to an undisturbed run.

    python -m experiments.faults --times 100

A run is a real process.  It dies by SIGKILL, at the k-th moment of a kind in its life, and is
resumed; several kills in a row are possible.  At the end everything is compared bit for bit, apart
from measured seconds.
"""

from __future__ import annotations

import argparse
import fcntl
import functools
import json
import os
import random
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from experiments import checkpoint
from experiments.catalog import EXPERIMENTS
from experiments.config import Experiment
from experiments.files import read_json
from experiments.metrics import MetricsLog, read_metrics
from experiments.tracking import IDENTITY, Tracker
from experiments.wandb_offline import read_history, run_directories

KINDS = {
    "step": "in the middle of a meta-step",
    "record": "while a line of metrics.jsonl is written",
    "checkpoint": "at a file-system step of a checkpoint, or half through a file of one",
    "file": "at a file-system step of anything else: settings, choices, parts, results, figures",
    "tracking": "around a record of W&B",
    "time": "after a random time",
}
WRITES = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate"}
TIMES = ("seconds", "train_seconds", "adapt_seconds_per_task")
TRACKED_EVERY = 4
"""Of so many runs one is tracked by W&B, which triples the time that a process takes."""


class Moment(NamedTuple):
    """When a process dies: at the `number`-th moment of a kind ("time": after milliseconds)."""

    kind: str
    number: int


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


def go(folder: Path, experiment: Experiment, moment: Moment | None = None) -> Counter[str] | None:
    """Start a run in a process of its own, or resume it where there is something to resume.

    Args:
        folder: The run folder.
        experiment: Its settings.
        moment: When the process dies; None: it does not.

    Returns:
        How many moments of each kind the process had; None: it was killed.

    Raises:
        RuntimeError: If the process ended in an error of its own.
    """
    order = {"folder": str(folder), "experiment": experiment.model_dump_json(), "moment": moment}
    code = "from experiments.faults import _child; _child()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, json.dumps(order)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    limit = moment.number / 1000 if moment and moment.kind == "time" else None
    try:
        said, errors = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        process.kill()
        said, errors = process.communicate()
    if process.returncode == -signal.SIGKILL:
        return None
    if process.returncode:
        raise RuntimeError(f"the run in {folder} failed: {errors.strip()[-2000:]}")
    return Counter(json.loads(said.splitlines()[-1]))


def differences(reference: Path, folder: Path) -> list[str]:
    """What differs between two finished runs of the same experiment, apart from seconds."""
    found = []
    ours, theirs = _names(folder), _names(reference)
    if ours != theirs:
        found.append(f"files {sorted(ours ^ theirs)}")
    for path in sorted(reference.glob("*.parquet")) + sorted(reference.glob("figures/*")):
        name = path.relative_to(reference)
        if not (folder / name).exists() or (folder / name).read_bytes() != path.read_bytes():
            found.append(str(name))
    if _records(folder) != _records(reference):
        found.append("metrics.jsonl")
    first, second = (read_json(path / "result.json") for path in (reference, folder))
    for part in ("rows", "comparisons", "curves", "choices"):
        # As text: a NaN equals a NaN.
        if json.dumps(_timeless(first[part])) != json.dumps(_timeless(second[part])):
            found.append(f"result.json: {part}")
    for place in sorted((reference / "checkpoints").iterdir()):
        if not _same_checkpoint(place, folder / "checkpoints" / place.name):
            found.append(f"checkpoint of {place.name}")
    return found + _tracking_faults(folder)


def _names(folder: Path) -> set[str]:
    return {
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.relative_to(folder).parts[0] not in ("wandb", IDENTITY)
        # An earlier checkpoint that a killed process could not drop any more is allowed.
        and not path.relative_to(folder).match("checkpoints/*/step-*")
        and not path.match("step-*/*")
    }


def _records(folder: Path) -> list[Any]:
    return _timeless(read_metrics(folder / "metrics.jsonl"))


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _timeless(item) for name, item in value.items() if name not in TIMES}
    return [_timeless(item) for item in value] if isinstance(value, list) else value


def _same_checkpoint(reference: Path, place: Path) -> bool:
    first, second = checkpoint.load(reference), checkpoint.load(place)
    if first is None or second is None:
        return False
    tensors, others = first[0], second[0]
    same = tensors.keys() == others.keys() and all(
        value.dtype == others[name].dtype and torch.equal(value, others[name])
        for name, value in tensors.items()
    )
    return same and _timeless(first[1]) == _timeless(second[1])


def _tracking_faults(folder: Path) -> list[str]:
    """W&B holds every record once, and the curves after them, over all of its directories."""
    if not (folder / IDENTITY).exists():
        return []
    directories = run_directories(folder, read_json(folder / IDENTITY)["wandb_id"])
    steps = [row["_step"] for path in directories for row in read_history(path)]
    wanted = list(range(len(read_metrics(folder / "metrics.jsonl")) + 1))
    return [] if steps == wanted else [f"W&B holds the steps {steps}"]


def _child() -> None:
    """What a started process does: run, and die at the moment that its order names."""
    from experiments.run import run

    order = json.loads(sys.argv[1])
    folder = Path(order["folder"])
    fault = _Fault(Moment(*order["moment"]) if order["moment"] else None)
    fault.watch()
    run(Experiment.model_validate_json(order["experiment"]), folder, resume=folder.is_dir())
    print(json.dumps(fault.counts))


class _Fault:
    """Counts the moments of this process and kills it at one of them."""

    def __init__(self, moment: Moment | None) -> None:
        self.moment = moment
        self.counts: Counter[str] = Counter()
        self._saving = False

    def reached(self, kind: str, last_act: Callable[[], None] = lambda: None) -> None:
        """A moment of a kind; `last_act` is done only by a process that dies here."""
        self.counts[kind] += 1
        if self.moment == (kind, self.counts[kind]):
            last_act()
            os.kill(os.getpid(), signal.SIGKILL)

    def watch(self) -> None:
        """Count from now on."""
        self._around(torch.optim.AdamW, "step", "step")
        self._around(Tracker, "log", "tracking")
        append, fsync, save = MetricsLog.append, os.fsync, checkpoint.save

        def appended(log: MetricsLog, record: dict[str, Any]) -> None:
            line = json.dumps(record).encode()

            def half() -> None:
                with log.path.open("ab") as file:
                    file.write(line[: len(line) // 2])

            self.reached("record", half)
            append(log, record)
            self.reached("record")

        def synced(handle: int) -> None:
            self.reached(self._place(), lambda: _tear(handle))
            fsync(handle)

        @functools.wraps(save)
        def saved(*arguments: Any) -> Path:
            self._saving = True
            try:
                return save(*arguments)
            finally:
                self._saving = False

        log_class: Any = MetricsLog
        log_class.append, os.fsync, checkpoint.save = appended, synced, saved
        # Python reports every call that changes the file system just before it is made.
        sys.addaudithook(self._heard)

    def _place(self) -> str:
        return "checkpoint" if self._saving else "file"

    def _heard(self, event: str, arguments: tuple[Any, ...]) -> None:
        opened = event == "open" and (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR)
        if event in WRITES or opened:
            self.reached(self._place())

    def _around(self, owner: type, name: str, kind: str) -> None:
        function = getattr(owner, name)

        @functools.wraps(function)
        def watched(*arguments: Any, **named: Any) -> Any:
            self.reached(kind)
            result = function(*arguments, **named)
            self.reached(kind)
            return result

        setattr(owner, name, watched)


def _tear(handle: int) -> None:
    """Leave half of a file, as a process does that dies while it writes one."""
    status = os.fstat(handle)
    # What an append-only file held before was written long ago.
    appending = fcntl.fcntl(handle, fcntl.F_GETFL) & os.O_APPEND
    if stat.S_ISREG(status.st_mode) and not appending:
        os.ftruncate(handle, status.st_size // 2)


def survive(
    folder: Path, experiment: Experiment, draw: Callable[[], Moment | None]
) -> list[Moment]:
    """Run an experiment to its end, killed at the moments that `draw` gives; which were met."""
    met = []
    while True:
        moment = draw()
        if go(folder, experiment, moment) is not None:
            return met
        assert moment is not None
        met.append(moment)


def main(words: Sequence[str] | None = None) -> int:
    """The command: kill, resume, compare, and say how often it was not the same."""
    parser = argparse.ArgumentParser(prog="python -m experiments.faults", description=__doc__)
    parser.add_argument("--times", type=int, default=100, help="runs to kill (default: 100)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the moments (default: 0)")
    parser.add_argument("--backbone", default="mlp", help="mlp, or one for text (default: mlp)")
    options = parser.parse_args(words)
    chance = random.Random(options.seed)
    plain = small_experiment(options.backbone)
    variants = (plain.override({"tracking.mode": "offline"}), plain)
    kills, runs, same = Counter(), Counter(), Counter()
    with tempfile.TemporaryDirectory() as root:
        references = [Path(root) / experiment.tracking.mode for experiment in variants]
        counts = [_count(*each) for each in zip(references, variants, strict=True)]
        while (number := runs["all"] + 1) <= options.times:
            folder = Path(root) / "run"
            which = min(1, number % TRACKED_EVERY)
            met = survive(folder, variants[which], _drawing(chance, counts[which]))
            if not met:  # the moment never came: try another one
                shutil.rmtree(folder)
                continue
            differing = differences(references[which], folder)
            for kind in {moment.kind for moment in met}:
                runs[kind] += 1
                same[kind] += not differing
            kills.update(moment.kind for moment in met)
            runs["all"] += 1
            same["all"] += not differing
            where = ", ".join(f"{kind} {place}" for kind, place in met)
            print(f"{number}: killed at {where}: {'; '.join(differing) or 'same'}", flush=True)
            shutil.rmtree(folder)
    _print_table(kills, runs, same)
    return int(same["all"] != runs["all"])


def _count(folder: Path, experiment: Experiment) -> Counter[str]:
    """Run an experiment undisturbed: its moments of each kind, and its milliseconds."""
    began = time.perf_counter()
    counts = go(folder, experiment)
    assert counts is not None
    counts["time"] = int(1000 * (time.perf_counter() - began))
    if experiment.tracking.mode == "disabled":
        del counts["tracking"]
    return counts


def _drawing(chance: random.Random, counts: Counter[str]) -> Callable[[], Moment | None]:
    """One moment, and with a chance of one in three another one, and so on."""
    first = True

    def draw() -> Moment | None:
        nonlocal first
        if not first and chance.random() > 1 / 3:
            return None
        first = False
        kind = chance.choice(sorted(counts))
        # A process spends the first half of its time on imports.
        low = counts[kind] // 2 if kind == "time" else 1
        return Moment(kind, chance.randint(low, counts[kind]))

    return draw


def _print_table(kills: Counter[str], runs: Counter[str], same: Counter[str]) -> None:
    print(f"\n{'killed':<82}{'kills':>6}{'runs':>6}{'same':>6}")
    for kind, meaning in KINDS.items():
        print(f"{meaning:<82}{kills[kind]:>6}{runs[kind]:>6}{same[kind]:>6}")
    print(f"{'all':<82}{kills.total():>6}{runs['all']:>6}{same['all']:>6}")


if __name__ == "__main__":
    sys.exit(main())
