"""Run folders: everything about one experiment in one directory, written atomically.

A run folder holds `config.json` (the resolved experiment), `environment.json` (versions, revision,
device), `metrics.jsonl` (one record a meta-step), `checkpoints/`, `figures/` and the results.  A
lock keeps a second process out; nothing is ever overwritten silently.
"""

from __future__ import annotations

import fcntl
import logging
import os
import platform
import subprocess
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Self

from pydantic import ValidationError

from experiments.config import Experiment
from experiments.errors import UserError
from experiments.files import read_json, write_json
from experiments.metrics import MetricsLog

PACKAGES = ("torch", "transformers", "peft", "numpy", "wandb", "metalearn")
"""Packages whose versions belong to a result."""
LOCK = ".lock"
CONFIG = "config.json"
ENVIRONMENT = "environment.json"
CHECKPOINTS = "checkpoints"

log = logging.getLogger(__name__)


def load_experiment(path: Path) -> Experiment:
    """The experiment that a run folder holds.

    Raises:
        UserError: If there is no `config.json`, or it holds settings this version does not know.
    """
    values = read_json(path / CONFIG)
    try:
        return Experiment.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"])) or "the whole file"
        raise UserError(
            f"{path / CONFIG} does not fit this version of metalearn: {name}: {first['msg']}"
        ) from None


def environment() -> dict[str, Any]:
    """What a result depends on besides its settings: versions, git revision, platform, device."""
    import torch

    def version(package: str) -> str | None:
        try:
            return metadata.version(package)
        except metadata.PackageNotFoundError:
            return None

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    return {
        "python": platform.python_version(),
        "packages": {package: version(package) for package in PACKAGES},
        "git": _revision(Path(__file__).resolve().parent.parent),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "device": device,
        "threads": torch.get_num_threads(),
        "processes": int(os.environ.get("WORLD_SIZE", "1")),
    }


def _revision(root: Path) -> dict[str, Any] | None:
    def git(*words: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", str(root), *words], capture_output=True, text=True, check=False
            )
        except FileNotFoundError:
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    # An installed copy may lie inside somebody else's checkout, whose revision says nothing.
    top = git("rev-parse", "--show-toplevel")
    revision = git("rev-parse", "HEAD")
    if top is None or revision is None or Path(top).resolve() != root:
        return None
    return {"revision": revision, "dirty": bool(git("status", "--porcelain"))}


def flatten(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings under dotted names.

    Example:
        >>> flatten({"name": "quick", "inner": {"rate": 0.1}})
        {'name': 'quick', 'inner.rate': 0.1}
    """
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        # Only models are taken apart: a free dictionary (options, grids) is one setting.
        if isinstance(value, dict) and f"{prefix}{name}" not in ("adapter.options", "grids"):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def differing_settings(first: Experiment, second: Experiment) -> list[str]:
    """Dotted names of the settings in which two experiments differ.

    Example:
        >>> differing_settings(Experiment(), Experiment().override({"inner.rate": 0.5}))
        ['inner.rate']
    """
    left, right = flatten(first.model_dump(mode="json")), flatten(second.model_dump(mode="json"))
    return [name for name in left if left[name] != right[name]]


def refuse_used(path: Path, but: str = "") -> None:
    """Refuse a place that cannot become a new run folder.

    Args:
        path: The place.
        but: Name of an entry that may be there.

    Raises:
        UserError: If it is a file, or a folder that is not empty.
    """
    if path.exists() and not path.is_dir():
        raise UserError(f"{path} is a file; choose another --run-dir")
    if path.exists() and any(entry.name != but for entry in path.iterdir()):
        raise UserError(
            f"run folder {path} exists and is not empty; "
            "continue it with --resume or choose another --run-dir"
        )


class RunFolder:
    """A locked run folder; a context manager that gives the lock back.

    Attributes:
        path: The directory.
        experiment: The resolved settings in its `config.json`.
    """

    def __init__(self, path: Path, experiment: Experiment, lock: int) -> None:
        self.path = path
        self.experiment = experiment
        self._lock = lock
        for part in (self.checkpoints, self.figures):
            part.mkdir(exist_ok=True)

    @classmethod
    def create(
        cls, experiment: Experiment, run_dir: Path | None = None, root: Path | str = "runs"
    ) -> Self:
        """Make a new run folder: `run_dir`, or `<root>/<name>-<timestamp>`.

        Raises:
            UserError: If `run_dir` exists and is not empty, or another process uses it.
        """
        path = run_dir or _made(Path(root), experiment.name)
        refuse_used(path)
        path.mkdir(parents=True, exist_ok=True)
        lock = acquire(path)
        try:
            refuse_used(path, but=LOCK)  # another process may have been faster
        except UserError:
            os.close(lock)
            raise
        _initialize(path, experiment)
        return cls(path, experiment, lock)

    @classmethod
    def open(cls, path: Path, experiment: Experiment | None = None) -> Self:
        """Take up an existing run folder, to resume it.

        Args:
            path: The run folder.
            experiment: What the caller wants to run; it must be what the folder holds.

        Raises:
            UserError: If the folder is missing, in use, or holds another configuration.
        """
        if not path.is_dir():
            raise UserError(f"no run folder {path} to resume; leave out --resume to start it")
        lock = acquire(path)
        try:
            for leftover in path.glob(".*.tmp"):  # of a write that was interrupted
                leftover.unlink()
            if experiment is not None and _is_unborn(path):
                _initialize(path, experiment)
            stored = load_experiment(path)
            differing = differing_settings(stored, experiment) if experiment else []
            if differing:
                raise UserError(
                    f"run folder {path} has another configuration ({', '.join(differing)}); "
                    "resume without these settings or choose another --run-dir"
                )
            _note_environment(path)
        except BaseException:
            os.close(lock)
            raise
        return cls(path, stored, lock)

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.path / CHECKPOINTS

    @property
    def figures(self) -> Path:
        """Folder of the figures."""
        return self.path / "figures"

    @property
    def metrics(self) -> Path:
        """File of the training records."""
        return self.path / "metrics.jsonl"

    def open_metrics(self) -> MetricsLog:
        """The log of the training records, to append to."""
        return MetricsLog(self.metrics)

    def close(self) -> None:
        """Give the lock back."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def opened(experiment: Experiment, run_dir: Path | None, resume: bool) -> RunFolder:
    """A new run folder, or the one to go on with.

    Raises:
        UserError: If it cannot be used, or there is none to resume.
    """
    if not resume:
        return RunFolder.create(experiment, run_dir)
    if run_dir is None:
        raise UserError("--resume needs the run folder; name it with --run-dir")
    return RunFolder.open(run_dir, experiment)


def fresh_name(root: Path, name: str) -> Path:
    """`<root>/<name>-<timestamp>`, with a number behind it where that is taken."""
    stem = f"{name}-{datetime.now():%Y%m%d-%H%M%S}"
    path, number = root / stem, 1
    while path.exists():
        number += 1
        path = root / f"{stem}-{number}"
    return path


def _made(root: Path, name: str) -> Path:
    """A new folder of a fresh name, of this process alone, however many start at once."""
    while True:
        path = fresh_name(root, name)
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            continue
        return path


def acquire(path: Path) -> int:
    """Lock a folder for this process.

    Returns:
        The open handle; closing it gives the lock back.

    Raises:
        UserError: If another process has it.
    """
    # The kernel gives a flock back when its process dies, however it dies.
    handle = os.open(path / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = os.read(handle, 32).decode().strip() or "unknown"
        os.close(handle)
        raise UserError(
            f"run folder {path} is in use by process {owner}; "
            "wait for it or choose another --run-dir"
        ) from None
    os.ftruncate(handle, 0)
    os.write(handle, f"{os.getpid()}\n".encode())
    return handle


def _is_unborn(path: Path) -> bool:
    """Whether a run was killed before it could write its settings."""
    born = (CONFIG, "metrics.jsonl", CHECKPOINTS, "result.json")
    ours = all(entry.name.startswith(".") or entry.name == ENVIRONMENT for entry in path.iterdir())
    return ours and not any((path / name).exists() for name in born)


def _initialize(path: Path, experiment: Experiment) -> None:
    write_json(path / ENVIRONMENT, environment())
    # The settings come last: with them the folder can be resumed.
    write_json(path / CONFIG, experiment.model_dump(mode="json"))


def _note_environment(path: Path) -> None:
    """Keep what differs where a run is resumed under another environment."""
    first, now = read_json(path / ENVIRONMENT), environment()
    changed = {name: value for name, value in now.items() if first.get(name) != value}
    if changed:
        log.warning("%s: resumed with another %s", path, ", ".join(changed))
        first.setdefault("resumed", []).append(changed)
        write_json(path / ENVIRONMENT, first)
