"""Ray: one machine or a cluster, what each trial gets of it, and the trials run by Ray Tune."""

from __future__ import annotations

import logging
import math
import os
import signal
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple

from experiments.errors import UserError
from experiments.sweeps.file import Halving
from experiments.sweeps.trial import ITERATION

if TYPE_CHECKING:
    from experiments.sweeps.proposals import Proposals

RESTARTS = 5
"""Times that a trial whose process died is started again."""
SETTINGS = {
    # Nothing leaves the machine unasked.
    "RAY_USAGE_STATS_ENABLED": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    # What a trial reports when it diverges has no metric.
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    # An interruption is for the command to tell.
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    # Seconds: a trial that is stopped early closes its files before its process is used again.
    "TUNE_FUNCTION_THREAD_TIMEOUT_S": "60",
    # Relative paths of an experiment begin where the command was called.
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    # A trial that is given no accelerator sees none; unset, Ray announces that this will change.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",
}
PASSED = ("METALEARN_DATA", "HF_HUB_OFFLINE")
"""Variables that trials on other nodes get from here."""


class Share(NamedTuple):
    """What trials get.

    Attributes:
        parallel: Trials at a time.
        threads: Cores, and threads of torch, of each.
        cards: Accelerators of each, perhaps a fraction.
    """

    parallel: int
    threads: int
    cards: float


def share(
    nodes: Sequence[dict[str, float]], wanted: int | None, trials: int, threads: int, device: str
) -> Share:
    """Divide cores and accelerators among trials, so that they do not fight for them.

    Args:
        nodes: What each node has: CPU and perhaps GPU.
        wanted: Trials at a time; None: one an accelerator, or one a core.
        trials: How many there are.
        threads: Threads of each; 0: an equal share of the cores.
        device: The device of the experiment.

    Raises:
        UserError: If there are not so many cores, or the device is one of several.

    Example:
        >>> share([{"CPU": 8.0}], 2, 9, 0, "auto")
        Share(parallel=2, threads=4, cards=0.0)
        >>> share([{"CPU": 8.0, "GPU": 2.0}] * 2, None, 9, 0, "auto")
        Share(parallel=4, threads=4, cards=1.0)
    """
    if ":" in device:
        raise UserError(f"device {device}: every trial is given a device; use auto, cuda or cpu")
    cores = int(sum(node.get("CPU", 0) for node in nodes))
    cards = 0 if device == "cpu" else int(sum(node.get("GPU", 0) for node in nodes))
    parallel = wanted or min(trials, cards or max(1, cores // max(1, threads)))
    if parallel * max(1, threads) > cores:
        raise UserError(
            f"--parallel {parallel} with {max(1, threads)} threads each needs more than the "
            f"{cores} cores there are; give at most {max(1, cores // max(1, threads))}"
        )
    largest = int(max(node.get("CPU", 0) for node in nodes))
    threads = threads or min(cores // parallel, largest)
    each = 0.0 if not cards else 1.0 if parallel <= cards else 1 / math.ceil(parallel / cards)
    return Share(parallel, threads, each)


def need_ray() -> None:
    """Refuse to go on without Ray and Optuna.

    Raises:
        UserError: If one is not installed.
    """
    for name in ("ray", "optuna"):
        if find_spec(name) is None:
            raise UserError(f"{name} is not installed; pip install 'metalearn[sweep]'")


@contextmanager
def connected(address: str | None) -> Iterator[list[dict[str, float]]]:
    """A Ray cluster: that of an address, or one of this machine alone.

    Returns:
        The resources of its nodes.

    Raises:
        UserError: If nothing answers at the address, or Ray does not start here.
    """
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    heard = signal.getsignal(signal.SIGTERM)
    import ray

    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            if address is None:
                cores = len(os.sched_getaffinity(0))
                ray.init(num_cpus=cores, include_dashboard=False, **quiet)
            else:
                ray.init(address=address, **quiet)
        except Exception as error:  # Ray raises plain ones too
            where = "did not start here" if address is None else f"is not at --address {address}"
            raise UserError(f"Ray {where}: {error}") from error
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, heard)  # with Ray's own a sweep would end without a word
    try:
        yield [node["Resources"] for node in ray.nodes() if node["Alive"]]
    finally:
        ray.shutdown()


def run_trials(
    proposals: Proposals,
    trial: Callable[..., None],
    each: Share,
    halving: Halving | None,
    metric: str,
    earlier: Sequence[Sequence[float]],
    storage: Path,
) -> None:
    """Run trials until none is proposed.

    Args:
        proposals: Which, and what becomes of them.
        trial: Runs one.
        each: What it gets.
        halving: When it is stopped early.
        metric: What is compared then.
        earlier: The metric at every validation of trials that have ended before.
        storage: Folder for what Ray Tune keeps.
    """
    from ray import tune

    resources: dict[str, float] = {"cpu": each.threads}
    if each.cards:
        resources["gpu"] = each.cards
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tune.Tuner(
            tune.with_resources(trial, resources),
            tune_config=tune.TuneConfig(
                search_alg=_searcher(proposals),
                scheduler=scheduler(halving, metric, earlier),
                num_samples=-1,
                max_concurrent_trials=each.parallel,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name="tune",
                storage_path=str(storage),
                failure_config=tune.FailureConfig(max_failures=RESTARTS),
                verbose=0,
            ),
        ).fit()


def _searcher(proposals: Proposals) -> Any:
    """Proposals as Ray Tune asks for them."""
    from ray.tune.search import Searcher

    class Asked(Searcher):
        def suggest(self, trial_id: str) -> Any:
            return proposals.start(trial_id) or Searcher.FINISHED

        def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
            proposals.look(trial_id)

        def on_trial_complete(
            self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
        ) -> None:
            proposals.end(trial_id, result, error)

        def save(self, checkpoint_path: str) -> None:
            """The ledger is on the disk, and read when a sweep is resumed."""

        def restore(self, checkpoint_path: str) -> None:
            """Never asked for."""

        def __reduce__(self) -> Any:
            # Ray Tune keeps a copy on the disk, from which nobody reads.
            return Searcher, ()

    return Asked()


def scheduler(halving: Halving | None, metric: str, earlier: Sequence[Sequence[float]]) -> Any:
    """Asynchronous successive halving, which knows the trials of before; None: no early stop.

    Paper: Li et al., "A System for Massively Parallel Hyperparameter Tuning", 2020.
    """
    if halving is None:
        return None
    from ray.tune.schedulers import AsyncHyperBandScheduler

    made = AsyncHyperBandScheduler(
        time_attr=ITERATION,
        metric=metric,
        mode="max",
        max_t=halving.last,
        grace_period=halving.first,
        reduction_factor=halving.eta,
        stop_last_trials=False,
    )
    nobody: Any = None  # the controller, which halving does not ask
    for number, scores in enumerate(earlier):
        past: Any = SimpleNamespace(trial_id=f"earlier-{number}")
        made.on_trial_add(nobody, past)
        for count, score in enumerate(scores, start=1):
            made.on_trial_result(nobody, past, {ITERATION: count, metric: score})
    return made
