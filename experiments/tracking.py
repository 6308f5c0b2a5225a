"""Weights & Biases: configuration, training records and adaptation curves of a run folder.

Everything is written below the run folder.  Step i of the W&B run is record i of `metrics.jsonl`,
across all trainings of the experiment; each training has its own step axis besides.  The metrics of
a sweep (`experiments.standing`) are logged with every validation.

A run that `wandb agent` has started is the one that the agent waits for: it has the id that the
agent gives it, and is online unless tracking is disabled.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from secrets import token_hex
from typing import Any

from experiments.cells import CHOICES
from experiments.errors import LostProcess, UserError
from experiments.files import read_json, write_json
from experiments.folder import CONFIG
from experiments.metrics import CELL, cell_name, read_metrics
from experiments.sinks import BestCheckpoint, Findings, Tracked
from experiments.standing import Standing
from experiments.wandb_offline import logged_steps, run_directories, seal

IDENTITY = "wandb.json"
"""File of the run folder that keeps the run id over resumes."""
RUN = "WANDB_RUN_ID"
"""Where `wandb agent` says which run a process is."""


class Tracker:
    """One W&B run, a sink; does nothing where tracking is disabled.

    Args:
        run: The W&B run, or None.
        folder: The run folder.
        done: Steps that are on disk already and are not logged again.

    Raises:
        LostProcess: By every method, if W&B's own process has died.
    """

    def __init__(self, run: Any, folder: Path, done: set[int]) -> None:
        self._run: Any = run
        self._folder = folder
        self._done = done
        self._next = 0
        self._axes: set[str] = set()
        self._standing = Standing()

    def log(self, record: dict[str, Any], step: int) -> None:
        self._next = step + 1
        validated = self._standing.add(record)
        if self._run is None or step in self._done:
            return
        cell = cell_name(record) or "train"
        if cell not in self._axes and "step" in record:
            self._axes.add(cell)
            self._run.define_metric(f"{cell}/*", step_metric=f"{cell}/step")
        values = {f"{cell}/{name}": value for name, value in record.items() if name not in CELL}
        if validated:
            values |= self._standing.metrics()
        with self._alive():
            self._run.log(values, step=step, commit=True)
        self._done.add(step)

    def conclude(self, findings: Findings) -> None:
        """Log scores, curves (a table, and charts of a line a learner), figures and the report.

        The best checkpoint becomes the artifact `checkpoint-ID`, whose files have the names that
        they have in the run folder.
        """
        step = self._next
        self._next += 1
        if self._run is None or step in self._done:
            return
        import wandb

        rows = findings.curves
        with _home(self._folder), self._alive():
            # First: killed in between, a run would log it once more, and W&B keeps one of equals.
            if findings.best is not None:
                self._log_best(findings.best)
            columns: Any = list(rows[0]) if rows else []
            data: Any = [[row[name] for name in columns] for row in rows]
            values: dict[str, Any] = {"curves": wandb.Table(columns=columns, data=data)}
            values |= dict(_charts(rows))
            values |= findings.scores()
            values |= {f"figures/{path.stem}": wandb.Image(str(path)) for path in findings.figures}
            if findings.report is not None:
                page = findings.report.read_text(encoding="utf-8")
                values["report"] = wandb.Html(page, inject=False)
            self._run.log(values, step=step, commit=True)
        self._done.add(step)

    def preempted(self) -> None:
        """Tell W&B that the run is interrupted, and will go on: an agent queues it again."""
        if self._run is not None:
            with self._alive():
                self._run.mark_preempting()

    def _log_best(self, best: BestCheckpoint) -> None:
        import wandb

        about = {"training": best.training, "step": best.step, "validation": best.score}
        artifact = wandb.Artifact(f"checkpoint-{self._run.id}", type="model", metadata=about)
        folder = self._folder.resolve()
        files = [path for path in (folder / CONFIG, folder / CHOICES) if path.exists()]
        for path in (*files, *sorted(best.folder.resolve().iterdir())):
            # immutable: what lies in the run folder need not be copied to W&B's own.
            artifact.add_file(str(path), str(path.relative_to(folder)), policy="immutable")
        self._run.log_artifact(artifact, aliases=["best"])

    def finish(self, exit_code: int = 0) -> None:
        """End the run and bring it to the disk; call it once, also after a failure."""
        if self._run is None:
            return
        import wandb

        with self._alive():
            self._run.finish(exit_code=exit_code)
        self._run = None
        # W&B's own process closes the file after `finish` has returned; only its end is waited for
        # by teardown, which would also end a run that the caller has open.
        if wandb.run is None:
            wandb.teardown()

    @contextmanager
    def _alive(self) -> Iterator[None]:
        """Around what W&B's own process is asked; without it, nothing is asked of it again."""
        try:
            yield
        except (ConnectionError, *_abandoned()) as error:
            self._run = None
            raise LostProcess("the process of W&B was lost") from error


def _abandoned() -> tuple[type[Exception], ...]:
    """Errors of a request that nobody answers."""
    from wandb.sdk.mailbox import HandleAbandonedError, MailboxClosedError

    return HandleAbandonedError, MailboxClosedError


def start(experiment: Tracked, folder: Path, resume: bool = False) -> Tracker:
    """Start the W&B run of a run folder, or take it up again.

    On resume the run keeps its id.  Records of `metrics.jsonl` (already cut back to the checkpoint)
    that W&B had not yet written are logged first; those that it had written are not logged again
    when training comes past them: it repeats itself bit for bit.

    Raises:
        UserError: If W&B cannot be reached or refuses (mode "online").
    """
    settings = experiment.tracking
    if settings.mode == "disabled":
        return Tracker(None, folder, set())
    run_id = _run_id(folder)
    done: set[int] = set()
    if resume:
        for directory in run_directories(folder, run_id):
            seal(directory / f"run-{run_id}.wandb")
        done = logged_steps(folder, run_id)
    tracker = Tracker(_init(experiment, folder, run_id), folder, done)
    if resume:
        for step, record in enumerate(read_metrics(folder / "metrics.jsonl")):
            tracker.log(record, step)
    return tracker


def _run_id(folder: Path) -> str:
    path = folder / IDENTITY
    if not path.exists():
        write_json(path, {"wandb_id": (_of_agent() and os.environ.get(RUN)) or token_hex(4)})
    return read_json(path)["wandb_id"]


def _of_agent() -> bool:
    """Whether `wandb agent` has started this process."""
    return "WANDB_SWEEP_ID" in os.environ


def _init(experiment: Tracked, folder: Path, run_id: str) -> Any:
    import wandb

    quiet = wandb.Settings(
        silent=True,
        console="off",
        disable_git=True,
        disable_code=True,
        save_code=False,
        x_disable_stats=True,
        x_disable_machine_info=True,
        x_save_requirements=False,
    )
    mode = "online" if _of_agent() else experiment.tracking.mode
    try:
        with _home(folder):
            return wandb.init(
                project=experiment.tracking.project,
                group=experiment.tracking.group or experiment.name,
                job_type=experiment.tracking.job_type,
                name=folder.resolve().name,
                id=run_id,
                config=experiment.model_dump(mode="json"),
                dir=str(folder.resolve()),
                mode=mode,
                resume="allow" if mode == "online" else None,
                # A run of its own, beside any other run of this process.
                reinit="create_new",
                settings=quiet,
            )
    except wandb.Error as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"W&B: {reason}; or use --tracking.mode offline") from error


@contextmanager
def _home(folder: Path) -> Iterator[None]:
    """W&B stages tables and keeps its logs in the user's home unless these variables say where."""
    place = (folder / "wandb").resolve()
    ours = {
        "WANDB_DATA_DIR": str(place / "data"),
        "WANDB_CACHE_DIR": str(place / "cache"),
        # Crash reports would go out over the network, offline too.
        "WANDB_ERROR_REPORTING": os.environ.get("WANDB_ERROR_REPORTING", "false"),
    }
    before = {name: os.environ.get(name) for name in ours}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _charts(rows: list[dict[str, Any]]) -> Iterable[tuple[str, Any]]:
    import wandb

    query = [row for row in rows if row["split"] == "query"]
    several = len({row.get("family") for row in query}) > 1

    def key(row: dict[str, Any]) -> tuple[str, int, str]:
        return f"{row['family']}_" if several else "", row["shots"], row["metric"]

    for family, shots, metric in dict.fromkeys(map(key, query)):
        lines: dict[str, list[tuple[int, float]]] = {}
        for row in query:
            if key(row) == (family, shots, metric):
                lines.setdefault(row["learner"], []).append((row["step"], row["mean"]))
        points = [list(zip(*sorted(line), strict=True)) for line in lines.values()]
        yield (
            f"adaptation/{family}{metric}_{shots}-shot",
            wandb.plot.line_series(
                xs=[list(steps) for steps, _ in points],
                ys=[list(values) for _, values in points],
                keys=list(lines),
                title=f"Query {metric}, {family.replace('_', ', ')}{shots}-shot",
                xname="inner step",
            ),
        )
