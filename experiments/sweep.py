"""Sweeps: an experiment with many settings, from a W&B sweep file, in parallel on Ray Tune.

    runs/sweep-NAME-<time>/
      sweep.json             what was asked for
      trials.json            the trials, and how each ended
      trial-000/ ...         their run folders, ordinary ones in the W&B group NAME
      logs/                  what they print
      summary.json best.json figures/parallel.png

Trials are chosen by scores on validation classes alone (`experiments.standing`).  A sweep that was
killed goes on with `--resume`: what has ended is not run again, the rest goes on from its
checkpoints.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.arguments import Parser
from experiments.errors import UserError
from experiments.files import read_json, write_json
from experiments.named import RUNS, experiment, newest

if TYPE_CHECKING:
    from experiments.config import Experiment
    from experiments.sweeps.cluster import Share
    from experiments.sweeps.file import Sweep
    from experiments.sweeps.ledger import Ledger

SWEEP = "sweep.json"
RAY = ".ray"
"""What Ray Tune writes while it runs."""
USAGE = """usage: metalearn sweep FILE.yaml [--run-dir DIR] [--resume [DIR]] [--parallel N]
                       [--address ADDRESS] [--seed S] [--SETTING VALUE ...]

  FILE.yaml     sweep configuration of W&B; its command names the experiment:
                command: [metalearn, train, NAME, --config, "${args_json_file}"]
  --run-dir DIR folder of the sweep (default: runs/sweep-NAME-<time>)
  --resume      go on with --run-dir, or with the newest sweep of this name; run_cap may be raised
  --parallel N  trials at a time (default: one an accelerator, or one a core)
  --address     Ray cluster to run on, host:port or auto; --run-dir must be on a file system that
                all its nodes share (default: this machine)
  --seed S      seed of the trials' settings (default: 0)

Settings are those of `metalearn train NAME --help`, for every trial. The metric is `validation`,
the mean best validation score of what an experiment trains, or `LEARNER/validation`. SIGTERM and
SIGINT end a sweep at once, status 143 or 130; --resume goes on from the trials' checkpoints."""


def command(words: Sequence[str]) -> int:
    """The command `metalearn sweep`.

    Returns:
        The exit status: 1 if a trial failed.
    """
    if {"-h", "--help"} & set(words):
        print(USAGE)
        return 0
    if not words or words[0].startswith("-"):
        raise UserError("sweep needs a sweep file; see metalearn sweep --help")
    options = Parser(prog="metalearn sweep", add_help=False, allow_abbrev=False)
    options.add_argument("--run-dir", type=Path)
    options.add_argument("--resume", nargs="?", type=Path, const=True)
    options.add_argument("--parallel", type=int)
    options.add_argument("--address")
    options.add_argument("--seed", type=int, default=0)
    given, settings = options.parse_known_args(list(words[1:]))
    if given.parallel is not None and given.parallel < 1:
        raise UserError(f"--parallel {given.parallel} is no number of trials; give 1 or more")

    from experiments.settings import parse
    from experiments.sweeps.file import load

    asked = load(Path(words[0]))
    named = experiment(asked.experiment)
    base = parse(named, [*asked.options, *settings], f"metalearn train {named.name}", "")
    folder = given.run_dir
    if isinstance(given.resume, Path):
        if folder not in (None, given.resume):
            raise UserError(f"--resume {given.resume} and --run-dir {folder} differ; give one")
        folder = given.resume
    if given.resume and folder is None:
        folder = newest(f"sweep-{asked.name}")
    ledger = sweep(
        asked,
        named,
        base,
        folder,
        resume=bool(given.resume),
        parallel=given.parallel,
        address=given.address,
        seed=given.seed,
    )
    failed = [trial for trial in ledger.trials if not trial.settled]
    for trial in failed:
        log = ledger.folder / "logs" / f"{trial.name}.log"
        print(f"{trial.name} failed: {trial.reason}; see {log}, and try again with --resume")
    return int(bool(failed))


def sweep(
    asked: Sweep,
    named: Experiment,
    base: Experiment,
    run_dir: Path | None,
    *,
    resume: bool = False,
    parallel: int | None = None,
    address: str | None = None,
    seed: int = 0,
) -> Ledger:
    """Run a sweep, or go on with one.

    Args:
        asked: What the sweep file asks for.
        named: The experiment of the catalog.
        base: The same with the settings of every trial.
        run_dir: Folder of the sweep; None: a new one below `runs/`.
        resume: Go on with the folder as it was left.
        parallel: Trials at a time; None: as the cores and accelerators allow.
        address: Ray cluster; None: this machine.
        seed: Seed of the settings.

    Returns:
        The trials.

    Raises:
        UserError: If something is asked for that cannot be run; before the first trial.
    """
    from experiments.folder import acquire, fresh_name, refuse_used
    from experiments.sweeps.check import check_sweep
    from experiments.sweeps.cluster import connected, need_ray, share
    from experiments.sweeps.summary import conclude, show

    need_ray()
    group = base.tracking.group or asked.name
    base = base.override({"tracking.group": group, "tracking.job_type": "sweep"})
    folder = (run_dir or fresh_name(RUNS, f"sweep-{asked.name}")).absolute()
    wanted = _wanted(asked, base, seed)
    if resume:
        _refuse_other(folder, wanted)
    else:
        refuse_used(folder)
        check_sweep(asked, base, seed)
    with ExitStack() as stack:
        nodes = stack.enter_context(connected(address))
        each = share(nodes, parallel, asked.trials(), base.threads, base.device)
        folder.mkdir(parents=True, exist_ok=True)
        stack.callback(os.close, acquire(folder))
        write_json(folder / SWEEP, wanted)
        ledger = _run(folder, asked, base, seed, each)
        show(asked, ledger, conclude(asked, ledger, base, named))
    return ledger


def _run(folder: Path, asked: Sweep, base: Experiment, seed: int, each: Share) -> Ledger:
    from experiments.metrics import read_metrics
    from experiments.standing import scores
    from experiments.sweeps.board import Board
    from experiments.sweeps.cluster import PASSED, run_trials
    from experiments.sweeps.ledger import Ledger
    from experiments.sweeps.proposals import Proposals
    from experiments.sweeps.trial import run_trial

    ledger = Ledger.open(folder, asked.metric)
    trial = partial(
        run_trial,
        folder=str(folder),
        marker=SWEEP,
        directory=str(Path.cwd()),
        threads=each.threads,
        environment={name: os.environ[name] for name in PASSED if name in os.environ},
    )
    earlier = [
        scores(read_metrics(ledger.run_folder(past) / "metrics.jsonl"), asked.metric)
        for past in ledger.trials
        if past.settled
    ]
    try:
        with Board(asked.trials()) as board:
            proposals = Proposals(asked, seed, base, ledger, board)
            run_trials(proposals, trial, each, asked.halving, asked.metric, earlier, folder / RAY)
    finally:
        shutil.rmtree(folder / RAY, ignore_errors=True)
    return ledger


def _wanted(asked: Sweep, base: Experiment, seed: int) -> dict[str, Any]:
    """What a sweep is, as JSON has it."""
    settings = base.model_dump(mode="json")
    return json.loads(json.dumps({"sweep": asdict(asked), "experiment": settings, "seed": seed}))


def _refuse_other(folder: Path, wanted: dict[str, Any]) -> None:
    """Refuse to go on with a folder that holds another sweep; more trials are the same sweep."""
    from experiments.folder import flatten

    if not folder.is_dir():
        raise UserError(f"no sweep folder {folder} to resume; leave out --resume to start it")
    if not (folder / SWEEP).exists():
        raise UserError(f"{folder} holds no sweep; leave out --resume, with another --run-dir")
    stored = flatten(read_json(folder / SWEEP))
    now = flatten(wanted)
    differing = [
        name.removeprefix("sweep.").removeprefix("experiment.")
        for name in dict.fromkeys([*now, *stored])
        if name not in ("sweep.cap", "sweep.target") and now.get(name) != stored.get(name)
    ]
    if differing:
        raise UserError(
            f"{folder} holds another sweep ({', '.join(differing)}); "
            "resume it as it was or choose another --run-dir"
        )
