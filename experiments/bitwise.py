"""What differs between two finished runs of the same experiment, bit for bit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from experiments import checkpoint
from experiments.files import read_json
from experiments.metrics import read_metrics
from experiments.tensorboard import FOLDER as BOARD
from experiments.tracking import IDENTITY
from experiments.wandb_offline import read_history, run_directories

TIMES = ("seconds", "train_seconds", "adapt_seconds_per_task")
"""Measured, and so never the same."""
TIMED = ("scores.png", "costs.png", "table.parquet")
"""Files that show them."""


def differences(reference: Path, folder: Path) -> list[str]:
    """What differs between two run folders, apart from measured seconds and the environment.

    Args:
        reference: Folder of a finished run.
        folder: Another one; where it was tracked, W&B must hold every step once.

    Returns:
        Names of files, or of parts of them; empty if the runs found the same.
    """
    found = []
    ours, theirs = _names(folder), _names(reference)
    if ours != theirs:
        found.append(f"files {sorted(ours ^ theirs)}")
    for path in sorted(reference.glob("*.parquet")) + sorted(reference.glob("figures/*")):
        name = path.relative_to(reference)
        if name.name in TIMED:
            continue
        if not (folder / name).exists() or (folder / name).read_bytes() != path.read_bytes():
            found.append(str(name))
    if _records(folder) != _records(reference):
        found.append("metrics.jsonl")
    first, second = (read_json(path / "result.json") for path in (reference, folder))
    for part in ("rows", "comparisons", "curves", "choices", "across"):
        # As text: a NaN equals a NaN.
        if json.dumps(_timeless(first.get(part))) != json.dumps(_timeless(second.get(part))):
            found.append(f"result.json: {part}")
    for place in sorted((reference / "checkpoints").iterdir()):
        if not _same_checkpoint(place, folder / "checkpoints" / place.name):
            found.append(f"checkpoint of {place.name}")
    return found + _tracking_faults(folder)


def _names(folder: Path) -> set[str]:
    names = (path.relative_to(folder) for path in folder.rglob("*"))
    return {
        str(name)
        for name in names
        if name.parts[0] not in ("wandb", IDENTITY, BOARD)
        # An earlier checkpoint that a killed process could not drop any more is allowed.
        and not any(part.startswith("step-") for part in name.parts)
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
