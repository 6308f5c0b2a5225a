"""A run in a process of its own that something happens to at a chosen moment of its life.

What can happen (`FAULTS`): it is killed; it is asked to stop; the disk is full from then on; the
process of W&B is killed.  Tests and `python -m experiments.faults` inject these, and resume.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import json
import os
import signal
import stat
import subprocess
import sys
import traceback
from collections import Counter
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, NamedTuple, NoReturn, Self

import torch

from experiments import checkpoint
from experiments.config import Experiment
from experiments.endings import FULL, LOST, PREEMPTED, ended
from experiments.files import read_json, write_json
from experiments.metrics import MetricsLog
from experiments.tracking import Tracker

WRITES = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate"}
Fault = Literal["killed", "stopped", "full", "unserved"]
FAULTS: dict[Fault, int] = {
    "killed": -signal.SIGKILL,
    "stopped": PREEMPTED,
    "full": FULL,
    "unserved": LOST,
}
"""How a process ends that was killed, was asked to stop, has a full disk, has lost that of W&B."""


class Moment(NamedTuple):
    """What happens when: at the `number`-th moment of a kind ("time": after milliseconds)."""

    kind: str
    number: int
    fault: Fault = "killed"


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
            [sys.executable, "-c", "from experiments.dying import _serve; _serve()"],
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
            How many moments of each kind the process had; None: it ended as the fault does.

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
        if moment is not None and status == FAULTS[moment.fault]:
            return None
        if status:
            raise RuntimeError(f"the run in {folder} failed: {self.said[-2000:]}")
        return Counter(read_json(counts))

    @property
    def said(self) -> str:
        """What the last process has printed."""
        return (self._folder / "said.txt").read_text().strip()

    def survive(
        self, folder: Path, experiment: Experiment, draw: Callable[[], Moment | None]
    ) -> list[Moment]:
        """Run an experiment to its end, disturbed at the moments that `draw` gives: those met."""
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
        kind, number, fault = order["moment"] or ("", 0, "")
        if kind == "time":
            number_of = signal.SIGTERM if fault == "stopped" else signal.SIGKILL
            signal.signal(signal.SIGALRM, functools.partial(_send, child, number_of))
            signal.setitimer(signal.ITIMER_REAL, number / 1000)
        _, status = os.waitpid(child, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def _send(child: int, number: int, *_: object) -> None:
    os.kill(child, number)


def _child(order: dict[str, Any]) -> NoReturn:
    """Runs, as the command does, until what the order names happens."""
    from experiments.run import run

    status = 1
    folder = Path(order["folder"])

    def go() -> int:
        run(Experiment.model_validate_json(order["experiment"]), folder, resume=folder.is_dir())
        counts = dict(watched.counts)  # what follows is not of the run
        watched.rest()
        write_json(Path(order["counts"]), counts)
        return 0

    try:
        with open(order["said"], "w") as said:
            os.dup2(said.fileno(), sys.stdout.fileno())
            os.dup2(said.fileno(), sys.stderr.fileno())
        watched = _Watched(folder, Moment(*order["moment"]) if order["moment"] else None)
        watched.watch()
        status = ended(["train", "NAME", "--run-dir", str(folder)], go)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)  # not back into the template


class _Watched:
    """Counts the moments of this process, and lets something happen at one of them."""

    def __init__(self, folder: Path, moment: Moment | None) -> None:
        self.counts: Counter[str] = Counter()
        self._folder = str(folder)
        self._moment = moment
        self._saving = False
        self._full = False

    def reached(
        self, kind: str, half: Callable[[], None] = lambda: None, writes: bool = False
    ) -> None:
        """A moment of a kind.

        Args:
            kind: The kind.
            half: Does half of what comes next, where the process does not come to the other half.
            writes: Whether a full disk refuses what comes next.
        """
        self.counts[kind] += 1
        if self._moment and self._moment[:2] == (kind, self.counts[kind]):
            if self._moment.fault == "killed":
                half()
                os.kill(os.getpid(), signal.SIGKILL)
            elif self._moment.fault == "stopped":
                signal.raise_signal(signal.SIGTERM)
            elif self._moment.fault == "unserved":
                _kill_service()
            self._full = self._moment.fault == "full"
        if self._full and writes:
            half()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self._folder)

    def rest(self) -> None:
        """Let nothing happen from now on."""
        self._moment, self._full = None, False

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

            self.reached("record", half, writes=True)
            append(log, record)
            self.reached("record")

        def synced(handle: int) -> None:
            self.reached(self._place(), lambda: _tear(handle), writes=True)
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
            makes = event in ("open", "os.mkdir") and str(arguments[0]).startswith(self._folder)
            self.reached(self._place(), writes=makes)

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


def _kill_service() -> None:
    """Kill the process of W&B, and wait until it is gone."""
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    for child in map(int, children):
        with contextlib.suppress(FileNotFoundError):
            if "wandb-core" in Path(f"/proc/{child}/cmdline").read_text():
                os.kill(child, signal.SIGKILL)
                os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
