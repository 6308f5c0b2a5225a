"""`metrics.jsonl`: one JSON record a line, cut back on resume: nothing doubled, nothing lost."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Self

from experiments.errors import UserError
from experiments.files import write_bytes

CELL = ("learner", "shots", "fold", "seed", "trial")
"""Fields of a record that say which training it belongs to."""


class MetricsLog:
    """An append-only log of records.

    A line that a killed process left half-written is dropped when the log is opened.

    Attributes:
        path: The file.
        count: Records in it.

    Example:
        >>> import tempfile
        >>> with MetricsLog(Path(tempfile.mkdtemp()) / "metrics.jsonl") as log:
        ...     for step in range(3):
        ...         log.append({"step": step})
        ...     log.truncate_to(1)
        >>> read_metrics(log.path)
        [{'step': 0}]
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        whole = _complete_lines(path.read_bytes()) if path.exists() else []
        self.count = len(whole)
        if path.exists() and path.stat().st_size != sum(map(len, whole)):
            write_bytes(path, b"".join(whole))
        self._file = path.open("ab")

    def append(self, record: dict[str, Any]) -> None:
        """Write one record; it survives the death of this process."""
        # One write of a whole line, handed to the system at once.
        self._file.write((json.dumps(record, ensure_ascii=False) + "\n").encode())
        self._file.flush()
        self.count += 1

    def sync(self) -> int:
        """Bring the records to the disk and return their number, for the checkpoint."""
        os.fsync(self._file.fileno())
        return self.count

    def truncate_to(self, count: int) -> None:
        """Keep the first `count` records, atomically.

        Raises:
            UserError: If there are fewer, or one of them is damaged: the log was changed since the
                checkpoint.
        """
        if count > self.count:
            raise UserError(
                f"{self.path} has {self.count} records where its checkpoint counts {count}; "
                "restore the file or start a new run"
            )
        kept = _complete_lines(self.path.read_bytes())[:count]
        _parse(self.path, kept)  # now, and not when the run is done
        if count == self.count:
            return
        self._file.close()
        write_bytes(self.path, b"".join(kept))
        self._file = self.path.open("ab")
        self.count = count

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _complete_lines(content: bytes) -> list[bytes]:
    return [line for line in content.splitlines(keepends=True) if line.endswith(b"\n")]


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The records of a log; a half-written last line is left out, a missing file is empty.

    Raises:
        UserError: If a line is no record, with its number.
    """
    return _parse(path, _complete_lines(path.read_bytes())) if path.exists() else []


def _parse(path: Path, lines: list[bytes]) -> list[dict[str, Any]]:
    records = []
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
        except ValueError:
            record = None
        if not isinstance(record, dict):
            raise UserError(
                f"{path}, line {number}: damaged, not a JSON object; "
                "restore the file from a copy, or start a new run"
            )
        records.append(record)
    return records


def cell_name(record: dict[str, Any]) -> str:
    """Which training a record belongs to, as text.

    Example:
        >>> cell_name({"learner": "maml", "shots": 1, "fold": "", "seed": 0, "loss": 1.5})
        'maml/1-shot/seed 0'
    """
    words = {"shots": "{}-shot", "seed": "seed {}", "trial": "trial {}"}
    values = ((name, record.get(name)) for name in CELL)
    return "/".join(
        words.get(name, "{}").format(value) for name, value in values if value not in (None, "")
    )
