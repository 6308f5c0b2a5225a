"""Kills runs at random moments and compares what their resumption ends with to an undisturbed run.

    python -m experiments.faults --times 100

A run is a real process.  It dies by SIGKILL, at the k-th moment of a kind in its life, and is
resumed; several kills in a row are possible.  At the end everything is compared bit for bit, apart
from measured seconds.
"""

from __future__ import annotations

import argparse
import contextlib
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
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, Self

import torch

from experiments import checkpoint
from experiments.bitwise import differences
from experiments.catalog import EXPERIMENTS
from experiments.config import Experiment
from experiments.files import read_json, write_json
from experiments.metrics import MetricsLog
from experiments.tracking import Tracker

KINDS = {
    "step": "in the middle of a meta-step",
    "record": "while a line of metrics.jsonl is written",
    "checkpoint": "at a file-system step of a checkpoint, or half through a file of one",
    "file": "at a file-system step of anything else: settings, choices, parts, results, figures",
    "tracking": "around a record of W&B",
    "time": "after a random time",
}
WRITES = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate"}
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


class Template:
    """A process that has imported everything; a run is a fork of it, which starts at once.

    Forks are processes like any other: they have nothing in common with each other or with what
    the template does later.

    Args:
        folder: Where it keeps what a run says and counts.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process = subprocess.Popen(
            [sys.executable, "-c", "from experiments.faults import _serve; _serve()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            # One thread: a process with several may not be forked.
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def go(
        self, folder: Path, experiment: Experiment, moment: Moment | None = None
    ) -> Counter[str] | None:
        """Start a run, or resume it where there is something to resume.

        Args:
            folder: The run folder.
            experiment: Its settings.
            moment: When the process dies; None: it does not.

        Returns:
            How many moments of each kind the process had; None: it was killed.

        Raises:
            RuntimeError: If the process ended in an error of its own.
        """
        said, counts = self._folder / "said.txt", self._folder / "counts.json"
        order = {
            "folder": str(folder.resolve()),
            "experiment": experiment.model_dump_json(),
            "moment": moment,
            "said": str(said.resolve()),
            "counts": str(counts.resolve()),
        }
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        status = int(self._process.stdout.readline())
        if status == -signal.SIGKILL:
            return None
        if status:
            raise RuntimeError(f"the run in {folder} failed: {said.read_text().strip()[-2000:]}")
        return Counter(read_json(counts))

    def survive(
        self, folder: Path, experiment: Experiment, draw: Callable[[], Moment | None]
    ) -> list[Moment]:
        """Run an experiment to its end, killed at the moments that `draw` gives: those met."""
        met = []
        while True:
            moment = draw()
            if self.go(folder, experiment, moment) is not None:
                return met
            assert moment is not None
            met.append(moment)


def _serve() -> None:
    """The template: forks a run for every order, and says how it ended."""
    # The last is what torch imports when an optimizer is made.
    for module in ("experiments.run", "torch._dynamo"):
        import_module(module)
    for line in sys.stdin:
        order = json.loads(line)
        child = os.fork()
        if not child:
            _child(order)
        kind, number = order["moment"] or ("", 0)
        if kind == "time":
            signal.signal(signal.SIGALRM, functools.partial(_kill, child))
            signal.setitimer(signal.ITIMER_REAL, number / 1000)
        _, status = os.waitpid(child, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def _kill(child: int, *_: object) -> None:
    os.kill(child, signal.SIGKILL)


def _child(order: dict[str, Any]) -> NoReturn:
    """Runs, and dies at the moment that the order names."""
    from experiments.run import run

    status = 1
    try:
        with open(order["said"], "w") as said:
            os.dup2(said.fileno(), sys.stdout.fileno())
            os.dup2(said.fileno(), sys.stderr.fileno())
        folder = Path(order["folder"])
        fault = _Fault(Moment(*order["moment"]) if order["moment"] else None)
        fault.watch()
        run(Experiment.model_validate_json(order["experiment"]), folder, resume=folder.is_dir())
        write_json(Path(order["counts"]), fault.counts)
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)  # not back into the template


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
    with tempfile.TemporaryDirectory() as root, contextlib.ExitStack() as stack:
        references = [Path(root) / experiment.tracking.mode for experiment in variants]
        with Template(Path(root)) as other:
            counts = [_count(other, *each) for each in zip(references, variants, strict=True)]
        template = stack.enter_context(Template(Path(root)))
        while (number := runs["all"] + 1) <= options.times:
            folder = Path(root) / "run"
            which = min(1, number % TRACKED_EVERY)
            met = template.survive(folder, variants[which], _drawing(chance, counts[which]))
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


def _count(template: Template, folder: Path, experiment: Experiment) -> Counter[str]:
    """Run an experiment undisturbed: its moments of each kind, and its milliseconds."""
    began = time.perf_counter()
    counts = template.go(folder, experiment)
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
        return Moment(kind, chance.randint(1, counts[kind]))

    return draw


def _print_table(kills: Counter[str], runs: Counter[str], same: Counter[str]) -> None:
    print(f"\n{'killed':<82}{'kills':>6}{'runs':>6}{'same':>6}")
    for kind, meaning in KINDS.items():
        print(f"{meaning:<82}{kills[kind]:>6}{runs[kind]:>6}{same[kind]:>6}")
    print(f"{'all':<82}{kills.total():>6}{runs['all']:>6}{same['all']:>6}")


if __name__ == "__main__":
    sys.exit(main())
