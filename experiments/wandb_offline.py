"""Reads the `.wandb` files that Weights & Biases writes offline.

A file is a header of 7 bytes (`:W&B`, a magic number, a version), then blocks of 32 KiB that hold
pieces of records as in a LevelDB log: checksum (4 bytes), length (2), type (1: whole, 2: first,
3: middle, 4: last), data.  A piece never crosses the end of a block.  Each record is a
`wandb_internal.Record`.  The tail of a killed process's file may be cut: what is whole is read.

Source: LevelDB log format, https://github.com/google/leveldb/blob/main/doc/log_format.md
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from experiments.errors import UserError
from experiments.files import write_bytes

HEADER = 7
BLOCK = 32768
PIECE = struct.Struct("<IHB")
WHOLE, FIRST, LAST = 1, 2, 4


def read_records(path: Path) -> Iterator[Any]:
    """The `wandb_internal_pb2.Record`s of a `.wandb` file, up to a truncated tail.

    Raises:
        UserError: If it is not a `.wandb` file.
    """
    from wandb.proto import wandb_internal_pb2

    messages: Any = wandb_internal_pb2  # its classes are made when it is imported
    for _, data in _scan(path.read_bytes(), path):
        record = messages.Record()
        record.ParseFromString(data)
        yield record


def seal(path: Path) -> None:
    """Cut a killed run's file behind its last whole record.

    The file is replaced, not shortened: W&B's own process outlives the one that was killed for a
    moment, and what it still writes goes to the file that no longer has a name.
    """
    content = path.read_bytes()
    end = max((end for end, _ in _scan(content, path)), default=HEADER)
    write_bytes(path, content[:end])


def _scan(content: bytes, path: Path) -> Iterator[tuple[int, bytes]]:
    """Position behind each whole record, and its data."""
    if content[:4] != b":W&B"[: len(content)]:
        raise UserError(f"{path} is not a W&B file; name a .wandb file")
    position, pieces = HEADER, []
    while True:
        left = BLOCK - position % BLOCK
        if left < PIECE.size:  # too short for a piece: padding
            position += left
        if position + PIECE.size > len(content):
            return
        checksum, length, kind = PIECE.unpack_from(content, position)
        position += PIECE.size
        data = content[position : position + length]
        if len(data) < length or checksum != zlib.crc32(data, zlib.crc32(bytes([kind]))):
            return
        position += length
        pieces = [data] if kind in (WHOLE, FIRST) else [*pieces, data]
        if kind in (WHOLE, LAST):
            yield position, b"".join(pieces)


def run_directories(folder: Path, run_id: str) -> list[Path]:
    """The W&B directories of one run below a folder, oldest first.

    A run that was resumed offline has several with the same id.
    """
    return sorted(path.parent for path in folder.rglob(f"run-{run_id}.wandb"))


def read_history(run_directory: Path) -> list[dict[str, Any]]:
    """What was logged, one dictionary a step, with `_step`."""
    rows = []
    for record in _records(run_directory):
        if record.HasField("history"):
            rows.append(_items(record.history.item))
    return rows


def read_config(run_directory: Path) -> dict[str, Any]:
    """The configuration of a run, without W&B's own entries."""
    config: dict[str, Any] = {}
    for record in _records(run_directory):
        if record.HasField("run"):
            config |= _items(record.run.config.update)
        elif record.HasField("config"):
            config |= _items(record.config.update)
    return {name: value for name, value in config.items() if not name.startswith("_wandb")}


def read_tables(run_directory: Path) -> dict[str, list[dict[str, Any]]]:
    """The logged tables by key, as rows; they lie as JSON below `files/media/table`."""
    tables = {}
    for row in read_history(run_directory):
        for name, value in row.items():
            if isinstance(value, dict) and value.get("_type") == "table-file":
                text = (run_directory / "files" / value["path"]).read_text(encoding="utf-8")
                table = json.loads(text)
                tables[name] = [dict(zip(table["columns"], r, strict=True)) for r in table["data"]]
    return tables


class Artifact(NamedTuple):
    """A logged artifact.

    Attributes:
        name: Its name.
        type: Its type.
        metadata: What is said about it.
        aliases: Names of this version.
        files: Where each of its files lies until it is uploaded, by its name in the artifact.
    """

    name: str
    type: str
    metadata: dict[str, Any]
    aliases: tuple[str, ...]
    files: dict[str, Path]


def read_artifacts(run_directory: Path) -> list[Artifact]:
    """The artifacts that were logged, without those of W&B's own tables and media."""
    found = []
    for record in _records(run_directory):
        if record.HasField("artifact") and not record.artifact.type.startswith("run_table"):
            made = record.artifact
            files = {entry.path: Path(entry.local_path) for entry in made.manifest.contents}
            about = json.loads(made.metadata or "{}")
            found.append(Artifact(made.name, made.type, about, tuple(made.aliases), files))
    return found


def logged_steps(folder: Path, run_id: str) -> set[int]:
    """The steps that a run has on disk, over all of its directories."""
    return {
        row["_step"]
        for directory in run_directories(folder, run_id)
        for row in read_history(directory)
    }


def _records(run_directory: Path) -> Iterator[Any]:
    for path in sorted(run_directory.glob("*.wandb")):
        yield from read_records(path)


def _items(items: Any) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for item in items:
        *path, last = item.nested_key or [item.key]
        place = values
        for name in path:
            place = place.setdefault(name, {})
        place[last] = json.loads(item.value_json)
    return values
