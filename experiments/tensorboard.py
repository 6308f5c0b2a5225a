"""TensorBoard: the same records, curves and figures as event files in `tensorboard/`.

A training, and a learner that was judged, is a directory of its own with the same tags, so that
TensorBoard draws them into one chart:

    maml/1-shot/seed 0/trial 0       loss, validation, ... over the meta-steps
    test/maml/1-shot                 query/accuracy, support/loss, ... over the inner steps
    .                                figures, the table of results, the scores of the table

`tensorboard --logdir RUN/tensorboard` shows them.  A resumed run writes its event files again from
`metrics.jsonl`: every record is there once.
"""

from __future__ import annotations

import importlib.util
import math
import shutil
from pathlib import Path
from typing import Any

from experiments.errors import UserError
from experiments.metrics import CELL, cell_name, read_metrics
from experiments.sinks import Findings
from experiments.tables import markdown_table

FOLDER = "tensorboard"


def need_tensorboard() -> None:
    """Refuse to go on without TensorBoard.

    Raises:
        UserError: If it is not installed.
    """
    if importlib.util.find_spec("tensorboard") is None:
        raise UserError("tracking.tensorboard needs it: pip install 'metalearn[tensorboard]'")


class Board:
    """The event files of a run; a sink.

    Args:
        folder: The run folder.
        resume: Write what `metrics.jsonl` holds again; event files that are there are dropped.

    Raises:
        UserError: If TensorBoard is not installed.
    """

    def __init__(self, folder: Path, resume: bool = False) -> None:
        need_tensorboard()
        self._folder = folder / FOLDER
        self._writers: dict[str, Any] = {}
        if resume:
            shutil.rmtree(self._folder, ignore_errors=True)
            for step, record in enumerate(read_metrics(folder / "metrics.jsonl")):
                self.log(record, step)

    def log(self, record: dict[str, Any], step: int) -> None:
        writer = self._writer(cell_name(record) or "train")
        for name, value in record.items():
            numeric = isinstance(value, int | float) and not isinstance(value, bool)
            if numeric and name not in (*CELL, "step"):
                writer.add_scalar(name, value, record.get("step", step))

    def conclude(self, findings: Findings) -> None:
        from matplotlib.image import imread

        for row in findings.curves:
            if math.isfinite(row["mean"]):
                writer = self._writer(f"test/{findings.place(row)}")
                for bound, suffix in (("mean", ""), ("low", "/low"), ("high", "/high")):
                    tag = f"{row['split']}/{row['metric']}{suffix}"
                    writer.add_scalar(tag, row[bound], row["step"])
        writer = self._writer(".")
        for name, value in findings.scores().items():
            writer.add_scalar(name, value, 0)
        if findings.rows:
            writer.add_text("result", markdown_table({"rows": findings.rows}))
        for figure in findings.figures:
            image = imread(figure)
            writer.add_image(f"figures/{figure.stem}", image[..., :3], dataformats="HWC")

    def preempted(self) -> None:
        """Nothing to do: there is no one to tell."""

    def finish(self, exit_code: int = 0) -> None:
        for writer in self._writers.values():
            writer.close()
        self._writers = {}

    def _writer(self, name: str) -> Any:
        # Slow to import: only a run that has something to write pays for it.
        from torch.utils.tensorboard import SummaryWriter

        if name not in self._writers:
            self._writers[name] = SummaryWriter(str(self._folder / name))
        return self._writers[name]
