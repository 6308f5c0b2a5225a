"""The training records of a run: lines of `metrics.jsonl`, and steps of the W&B run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from experiments import checkpoint
from experiments.folder import RunFolder
from experiments.sinks import open_sinks


class Records:
    """Where a run writes what it has measured.

    Args:
        folder: The run folder; records past its last checkpoint belong to steps that will be taken
            again, and are dropped.
        resume: Whether the run is taken up again.
        watch: Is given every record once it is written; None: nobody is.
    """

    def __init__(
        self,
        folder: RunFolder,
        resume: bool,
        watch: Callable[[dict[str, Any]], None] | None = None,
    ) -> None:
        self._watch = watch
        self._metrics = folder.open_metrics()
        self._metrics.truncate_to(_saved(folder))
        self.tracker = open_sinks(folder.experiment, folder.path, resume)

    def append(self, record: dict[str, Any]) -> None:
        """Write one record."""
        self._metrics.append(record)
        self.tracker.log(record, self._metrics.count - 1)
        if self._watch is not None:
            self._watch(record)

    def sync(self) -> int:
        """Bring the records to the disk and return their number, for the checkpoint."""
        return self._metrics.sync()

    def close(self, failed: bool) -> None:
        """End them; call it once, also after a failure."""
        try:
            self._metrics.close()  # on a full disk it writes again what it could not write
        finally:
            self.tracker.finish(exit_code=int(failed))


def _saved(folder: RunFolder) -> int:
    """Records of `metrics.jsonl` that the newest checkpoint counts."""
    places = sorted(path for path in folder.checkpoints.iterdir() if path.is_dir())
    saved = [found[1]["records"] for p in places if (found := checkpoint.load(p)) is not None]
    return max(saved, default=0)
