"""Checkpoints: a directory `step-000123` of tensors (safetensors) and numbers (JSON).

A checkpoint appears under its name in one rename, after its files have reached the disk, and
carries a checksum: a half-written or damaged one is never loaded, the one before it is.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

from experiments.files import sync_directory

KEEP = 2
"""Checkpoints kept: the newest, and one to fall back on."""
TENSORS = "tensors.safetensors"
META = "meta.json"

log = logging.getLogger(__name__)


def save(folder: Path, tensors: dict[str, Tensor], meta: dict[str, Any]) -> Path:
    """Write a checkpoint and drop the old ones.

    Args:
        folder: Where the checkpoints of one training lie.
        tensors: Any names, shapes and types; kept bit for bit.
        meta: JSON values; `meta["step"]` names the checkpoint.

    Returns:
        The directory `folder/step-<step>`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / name(meta["step"])
    temporary = Path(tempfile.mkdtemp(dir=folder, prefix=".tmp-"))
    # Copies: safetensors refuses tensors that share memory, and state may hold aliases.
    content = safetensors.torch.save(
        {f":{key}": value.detach().cpu().contiguous().clone() for key, value in tensors.items()}
    )
    _write(temporary / TENSORS, content)
    record = {"sha256": _digest(content, meta), "meta": meta}
    _write(temporary / META, json.dumps(record).encode())
    sync_directory(temporary)
    if target.exists():  # done again after a resume; a rename cannot replace a full directory
        os.rename(target, tempfile.mkdtemp(dir=folder, prefix=".tmp-old-"))
    os.rename(temporary, target)
    sync_directory(folder)
    _prune(folder, target)
    return target


def name(step: int) -> str:
    """Name of the directory of a checkpoint.

    Example:
        >>> name(24)
        'step-000024'
    """
    return f"step-{step:06d}"


def load(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """The newest whole checkpoint, on the CPU; None where there is none.

    Damaged checkpoints are skipped with a warning, leftovers of an interrupted write removed.
    """
    if not folder.is_dir():
        return None
    _sweep(folder)
    for path in sorted(folder.glob("step-[0-9]*"), key=_step, reverse=True):
        try:
            return _read(path)
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warning("checkpoint %s is damaged and skipped: %s", path, error)
    return None


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    record = json.loads((path / META).read_text(encoding="utf-8"))
    content = (path / TENSORS).read_bytes()
    if _digest(content, record["meta"]) != record["sha256"]:
        raise ValueError("the checksum does not match")
    tensors = safetensors.torch.load(content)
    return {key[1:]: value for key, value in tensors.items()}, record["meta"]


def _digest(content: bytes, meta: dict[str, Any]) -> str:
    digest = hashlib.sha256(content)
    digest.update(json.dumps(meta).encode())  # numbers survive a round trip through JSON unchanged
    return digest.hexdigest()


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _step(path: Path) -> int:
    return int(path.name.removeprefix("step-"))


def _prune(folder: Path, newest: Path) -> None:
    _sweep(folder)
    # A later step can only be left from before a resume: it would be taken for the newest one.
    earlier = sorted(
        (path for path in folder.glob("step-[0-9]*") if _step(path) < _step(newest)), key=_step
    )
    kept = {newest, *earlier[1 - KEEP :]}
    for path in folder.glob("step-[0-9]*"):
        if path not in kept:
            shutil.rmtree(path)


def _sweep(folder: Path) -> None:
    for path in folder.glob(".tmp-*"):
        shutil.rmtree(path)
