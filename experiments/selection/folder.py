"""Run folders of judging and fitting: settings, environment, records, and who hears of them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.errors import UserError
from experiments.files import read_json, write_bytes, write_json
from experiments.folder import CONFIG, ENVIRONMENT, LOCK, acquire, environment, refuse_used
from experiments.metrics import MetricsLog
from experiments.schema import Settings
from experiments.selection.settings import Fitting, Judging
from experiments.sinks import Findings, Sinks, open_sinks

METRICS = "metrics.jsonl"
RESULT = "result.json"


@dataclass
class Folder:
    """A run folder that is open.

    Attributes:
        path: Where it is.
        log: Its records.
        sinks: Who hears of them.
    """

    path: Path
    log: MetricsLog
    sinks: Sinks

    def record(self, values: dict[str, Any]) -> None:
        """Append a record to `metrics.jsonl`, and tell everybody."""
        self.log.append(values)
        self.sinks.log(values, self.log.count - 1)

    def conclude(self, result: dict[str, Any], figures: list[Path]) -> None:
        """Write `result.json`, and tell everybody of the figures."""
        write_json(self.path / RESULT, result)
        self.sinks.conclude(Findings([], figures=figures))


@contextmanager
def opened(settings: Judging | Fitting, path: Path, resume: bool = False) -> Iterator[Folder]:
    """A new run folder, or one to go on with, whose records are made again from what it keeps.

    Raises:
        UserError: If it cannot be used, or holds something else than what is asked for.
    """
    if not resume:
        refuse_used(path)
    path.mkdir(parents=True, exist_ok=True)
    lock = acquire(path)
    code = 1
    try:
        if resume and (path / CONFIG).exists():
            _compare(path, settings)
            write_bytes(path / METRICS, b"")
        else:
            refuse_used(path, but=LOCK)
            write_json(path / ENVIRONMENT, environment())
            write_json(path / CONFIG, settings.model_dump(mode="json"))
        with MetricsLog(path / METRICS) as log:
            sinks = open_sinks(settings, path, resume)
            try:
                yield Folder(path, log, sinks)
                code = 0
            finally:
                sinks.finish(code)
    finally:
        os.close(lock)


def _compare(path: Path, settings: Settings) -> None:
    stored, wanted = read_json(path / CONFIG), settings.model_dump(mode="json")
    differing = [name for name in wanted if stored.get(name) != wanted[name]]
    if differing:
        raise UserError(
            f"run folder {path} has other settings ({', '.join(differing)}); "
            "go on with the same ones or choose another --run-dir"
        )
