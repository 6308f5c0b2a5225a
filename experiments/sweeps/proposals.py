"""Which trial comes next: those a killed sweep left open, then new ones.

A grid and random points are known from the start.  For `bayes` Optuna's tree-structured Parzen
estimator proposes point i as a function of the seed, i and the trials before it, so that a resumed
sweep needs no state but the ledger.

Paper: Bergstra, Bardenet, Bengio, Kegl, "Algorithms for Hyper-Parameter Optimization", 2011.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments.settings import replaced
from experiments.sweeps.file import Sweep
from experiments.sweeps.ledger import Ledger, Trial
from experiments.sweeps.space import Choice, Parameter, Point, settings

if TYPE_CHECKING:
    from optuna import Study

    from experiments.config import Experiment
    from experiments.sweeps.board import Board


class Proposals:
    """Hands out trials and enters in the ledger how they end.

    Args:
        sweep: What is asked for.
        seed: Of the points.
        base: The experiment whose settings are replaced.
        ledger: The trials so far.
        board: Shows how they go.
    """

    def __init__(
        self, sweep: Sweep, seed: int, base: Experiment, ledger: Ledger, board: Board
    ) -> None:
        self._sweep = sweep
        self._seed = seed
        self._base = base
        self._ledger = ledger
        self._board = board
        self._points = sweep.points(seed)
        self._left = [trial for trial in ledger.trials if not trial.settled]
        self._running: dict[str, Trial] = {}

    def start(self, key: str) -> dict[str, Any] | None:
        """What the next trial is run with, under this key from now on; None: there is none."""
        trial = self._left.pop(0) if self._left else self._new()
        if trial is None:
            return None
        self._running[key] = trial
        self._board.start(trial)
        experiment = replaced(self._base, trial.settings, "parameters")
        return {"trial": trial.name, "experiment": experiment.model_dump_json()}

    def look(self, key: str) -> None:
        """Show how a trial stands: it has reported something."""
        trial = self._running[key]
        self._ledger.look(trial)
        self._board.update(trial)

    def end(self, key: str, last: Mapping[str, Any] | None, lost: bool) -> None:
        """Enter how a trial ended, see `Ledger.settle`."""
        trial = self._running.pop(key)
        self._ledger.settle(trial, last, lost)
        self._board.end(trial, self._ledger)

    def _new(self) -> Trial | None:
        number, best = len(self._ledger.trials), self._ledger.best()
        target = self._sweep.target
        if target is not None and best is not None and (best.score or 0.0) >= target:
            return None
        parameters = self._sweep.parameters
        if self._points is not None:
            if number >= len(self._points):
                return None
            point = self._points[number]
        elif number < (self._sweep.cap or 0):
            point = propose(parameters, self._ledger.trials, self._seed)
        else:
            return None
        return self._ledger.add(point, settings(parameters, point))


def study(parameters: Sequence[Parameter], trials: Sequence[Trial]) -> Study:
    """Trials as Optuna knows them: coordinates, and what is known of their scores."""
    import optuna
    from optuna.trial import TrialState, create_trial

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space = distributions(parameters)
    made = optuna.create_study(direction="maximize")
    for trial in trials:
        params: dict[str, Any] = {
            p.name: int(trial.point[p.name]) if isinstance(p, Choice) else trial.point[p.name]
            for p in parameters
        }
        common: dict[str, Any] = {"params": params, "distributions": space}
        if trial.state == "finished" and trial.score is not None:
            made.add_trial(create_trial(value=trial.score, **common))
        elif trial.state == "stopped" and trial.score is not None:
            steps = {trial.validations: trial.score}
            made.add_trial(
                create_trial(state=TrialState.PRUNED, intermediate_values=steps, **common)
            )
        elif trial.state in ("diverged", "failed"):
            made.add_trial(create_trial(state=TrialState.FAIL, **common))
        else:
            made.add_trial(create_trial(state=TrialState.RUNNING, **common))
    return made


def distributions(parameters: Sequence[Parameter]) -> dict[str, Any]:
    """The coordinates of parameters: an index without order, or a quantile."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    return {
        p.name: CategoricalDistribution(tuple(range(len(p.values))))
        if isinstance(p, Choice)
        else FloatDistribution(0.0, 1.0)
        for p in parameters
    }


def propose(parameters: Sequence[Parameter], trials: Sequence[Trial], seed: int) -> Point:
    """The point that the Parzen estimator would try after these trials."""
    from optuna.samplers import TPESampler

    past = study(parameters, trials)
    own = int(np.random.default_rng([seed, len(trials)]).integers(2**31))
    past.sampler = TPESampler(seed=own)
    asked = past.ask(distributions(parameters))
    return {name: float(value) for name, value in asked.params.items()}
