"""What a sweep found: its trials by the metric, which parameters matter, and the best settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from experiments.config import Experiment
from experiments.files import write_json
from experiments.folder import differing_settings, environment, flatten
from experiments.sweeps.board import value_text
from experiments.sweeps.file import Sweep
from experiments.sweeps.ledger import Ledger, Trial
from experiments.sweeps.space import Choice, Parameter

SUMMARY = "summary.json"
BEST = "best.json"
FEWEST = 4
"""Finished trials below which an importance would say nothing."""


def conclude(sweep: Sweep, ledger: Ledger, base: Experiment, named: Experiment) -> dict[str, Any]:
    """Write what a sweep found into its folder: summary, figure, and the best settings.

    Args:
        sweep: What was asked for.
        ledger: Its trials.
        base: The experiment whose settings they replace.
        named: The experiment of the catalog, which `best.json` is put upon.

    Returns:
        The content of `summary.json`.
    """
    # Here: matplotlib is not what a sweep should wait for at its start.
    from experiments.sweeps.parallel import parallel_coordinates

    varied = [p for p in sweep.parameters if not (isinstance(p, Choice) and len(p.values) == 1)]
    scored = ranked(ledger.trials)
    scored = [trial for trial in scored if trial.score is not None]
    best = ledger.best()
    figure = None
    if scored:
        path = ledger.folder / "figures" / "parallel.png"
        title = f"{sweep.name}: {sweep.experiment}, {sweep.method}"
        figure = parallel_coordinates(
            varied or sweep.parameters, scored, path, title=title, metric=sweep.metric
        )
    if best is not None:
        write_json(ledger.folder / BEST, _settings(base, named, best))
    summary = {
        "sweep": sweep.name,
        "experiment": sweep.experiment,
        "method": sweep.method,
        "metric": sweep.metric,
        "trials": [asdict(trial) for trial in ranked(ledger.trials)],
        "importance": importance(varied, ledger.trials),
        "best": best.name if best else None,
        "figure": str(figure.relative_to(ledger.folder)) if figure else None,
        "environment": environment(),
    }
    write_json(ledger.folder / SUMMARY, summary)
    return summary


def _settings(base: Experiment, named: Experiment, best: Trial) -> dict[str, Any]:
    """What makes the experiment of the catalog that of the best trial; all that was swept too."""
    tracking = {f"tracking.{n}": getattr(named.tracking, n) for n in ("group", "job_type")}
    found = base.override(best.settings | tracking)
    values = flatten(found.model_dump(mode="json"))
    names = dict.fromkeys([*differing_settings(named, found), *best.settings])
    return {name: values[name] for name in names}


def ranked(trials: Sequence[Trial]) -> list[Trial]:
    """Finished trials by the metric, the best first, then those that were stopped, then others."""

    def rank(trial: Trial) -> tuple[int, bool, float]:
        order = ("finished", "stopped", "diverged", "failed", "open")
        return order.index(trial.state), trial.score is None, -(trial.score or 0.0)

    return sorted(trials, key=rank)


def importance(parameters: Sequence[Parameter], trials: Sequence[Trial]) -> dict[str, float]:
    """The share of each parameter in the variance of the metric; empty if nothing varies.

    Paper: Hutter, Hoos, Leyton-Brown, "An Efficient Approach for Assessing Hyperparameter
    Importance" (fANOVA), 2014.
    """
    from optuna.importance import FanovaImportanceEvaluator, get_param_importances

    from experiments.sweeps.proposals import study

    finished = [t for t in trials if t.state == "finished" and t.score is not None]
    differing = [p for p in parameters if len({t.point[p.name] for t in finished}) > 1]
    if len(finished) < FEWEST or len({t.score for t in finished}) == 1 or not differing:
        return {}
    found = get_param_importances(
        study(parameters, finished),
        evaluator=FanovaImportanceEvaluator(seed=0),
        params=[parameter.name for parameter in differing],
    )
    return {name: float(value) for name, value in found.items()}


def table(sweep: Sweep, trials: Sequence[Trial]) -> Table:
    """The trials for the console, the best first; what all share stands below them."""
    words = {
        p.name: [value_text(trial.settings[p.name]) for trial in trials] for p in sweep.parameters
    }
    varied = [name for name, values in words.items() if len(set(values)) > 1]
    shared = [f"{name} {values[0]}" for name, values in words.items() if len(set(values)) == 1]
    caption = "Scores on validation classes; 95% intervals over folds and seeds."
    made = Table(
        title=f"{sweep.name}: {sweep.metric}",
        caption="\n".join([caption, *([f"All trials: {', '.join(shared)}."] if shared else [])]),
        title_justify="left",
        caption_justify="left",
        box=SIMPLE_HEAD,
        padding=(0, 1),
        show_edge=False,
    )
    for name in ("trial", "state"):
        made.add_column(name, no_wrap=True)
    for name in ("metric", "validations", *varied):
        made.add_column(name.replace(".", ".\u200b"), justify="right")
    for trial in ranked(trials):
        score = "-" if trial.score is None else f"{trial.score:.4f}"
        score += "" if trial.half is None else f" ± {trial.half:.4f}"
        made.add_row(
            trial.name,
            trial.state,
            score,
            str(trial.validations),
            *(value_text(trial.settings[name]) for name in varied),
        )
    return made


def show(sweep: Sweep, ledger: Ledger, summary: dict[str, Any]) -> None:
    """Print the trials, what matters, and where the best settings are."""
    Console().print(table(sweep, ledger.trials))
    if summary["importance"]:
        shares = ", ".join(f"{name} {share:.2f}" for name, share in summary["importance"].items())
        print(f"importance (fANOVA): {shares}")
    else:
        print(f"importance: not known from fewer than {FEWEST} trials that differ")
    if summary["figure"]:
        print(ledger.folder / summary["figure"])
    if summary["best"]:
        best: Path = ledger.folder / BEST
        print(f"best: {ledger.folder / summary['best']}")
        print(f"metalearn train {sweep.experiment} --config {best}")
