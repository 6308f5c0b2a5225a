"""One trial, in a process of Ray: an ordinary run of its folder, which reports each validation.

A trial that is started again, because its node or the whole sweep died, goes on from the
checkpoints of its folder.  Nothing heavy may be imported here before the environment is set.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import traceback
from pathlib import Path
from typing import Any

from experiments.errors import Diverged
from experiments.standing import Standing

ITERATION = "validations"
"""What early stopping counts: validations of the run."""
LOGS = "logs"
"""Where what a trial prints goes."""


def run_trial(
    config: dict[str, Any],
    *,
    folder: str,
    marker: str,
    directory: str,
    threads: int,
    environment: dict[str, str],
) -> None:
    """Run a trial, or go on with it; called by Ray Tune.

    Args:
        config: Name of the run folder, and the experiment as JSON.
        folder: Folder of the sweep.
        marker: A file in it.
        directory: Where relative paths of the experiment begin.
        threads: Threads of torch, unless the experiment says it.
        environment: Variables to set.
    """
    from ray import tune

    place = Path(folder)
    if not (place / marker).exists():
        reason = (
            f"{place} is not on node {os.uname().nodename}; all nodes must share its file system"
        )
        tune.report({"ended": "failed", "reason": reason})
        return
    os.environ |= environment
    if Path(directory).is_dir():
        os.chdir(directory)
    path = place / config["trial"]
    (place / LOGS).mkdir(exist_ok=True)
    with (
        (place / LOGS / f"{path.name}.log").open("a", buffering=1) as log,
        contextlib.redirect_stdout(log),
        contextlib.redirect_stderr(log),
    ):
        import torch

        from experiments.config import Experiment
        from experiments.metrics import read_metrics
        from experiments.run import run

        torch.set_num_threads(threads)

        def report(record: dict[str, Any] | None) -> None:
            if record is None or record.get("validation") is not None:
                standing = Standing.of(read_metrics(path / "metrics.jsonl"))
                tune.report(standing.metrics() | {ITERATION: standing.count})

        try:
            _wait_for_owner(path)
            experiment = Experiment.model_validate_json(config["experiment"])
            run(experiment, path, resume=path.is_dir(), watch=report)
            report(None)  # also where all of it had been done before
        except Diverged as error:
            tune.report({"ended": "diverged", "reason": str(error)})
        except Exception as error:
            traceback.print_exc()
            reason = " ".join(str(error).split()) or type(error).__name__
            tune.report({"ended": "failed", "reason": reason})


def _wait_for_owner(path: Path) -> None:
    """Wait until the process that ran this trial before is gone: it may die after its node."""
    lock = path / ".lock"
    if not lock.exists():
        return
    with lock.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
