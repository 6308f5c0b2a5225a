"""Sweep files: the sweep configuration of Weights & Biases, read and checked.

The same file serves `metalearn sweep`, and `wandb sweep` with `wandb agent`.  Its `command` says
which experiment is swept, and with which settings besides:

    method: bayes                    # or grid, random
    metric: {name: validation, goal: maximize}
    run_cap: 20
    command: [metalearn, train, quickstart, --config, "${args_json_file}"]
    program: metalearn               # W&B wants one; the command does not use it
    parameters:
      inner.rate: {distribution: log_uniform_values, min: 0.01, max: 0.5}
      inner.steps: {values: [1, 3, 5]}
    early_terminate: {type: hyperband, min_iter: 2, eta: 3}

Reference: https://docs.wandb.ai/models/sweeps/sweep-config-keys
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.errors import UserError, nearest, one_of
from experiments.standing import VALIDATION
from experiments.sweeps import space
from experiments.sweeps.space import Parameter, check_keys

METHODS = ("grid", "random", "bayes")
KEYS = (
    *("method", "parameters", "metric", "early_terminate", "run_cap", "name", "command"),
    # What W&B takes, and a sweep of ours has no use for.
    *("program", "description", "project", "entity", "apiVersion", "kind", "controller"),
    *("job", "image_uri"),
)
METRIC_KEYS = ("name", "goal", "target", "impute", "impute_while_running")
HALVING_KEYS = ("type", "min_iter", "max_iter", "s", "eta", "strict")
COMMAND = '[metalearn, train, NAME, --config, "${args_json_file}"]'
LARGEST_GRID = 100_000
"""Trials of a grid: more are a mistake, and would be kept in memory."""


@dataclass(frozen=True)
class Halving:
    """Successive halving: at the validations `first`, `first * eta`, ... the best 1 / eta go on."""

    first: int
    eta: float
    last: int


@dataclass(frozen=True)
class Sweep:
    """What a sweep file asks for.

    Attributes:
        name: Name of the sweep, the W&B group of its runs.
        method: grid, random or bayes.
        metric: What is maximized, see `experiments.standing`.
        target: A value of the metric at which no further trial is started; None: none.
        cap: Number of trials; None: the whole grid.
        parameters: What is swept.
        halving: When trials are stopped early; None: never.
        experiment: Name in the catalog.
        options: Settings of the command, as options.
    """

    name: str
    method: str
    metric: str
    target: float | None
    cap: int | None
    parameters: tuple[Parameter, ...]
    halving: Halving | None
    experiment: str
    options: tuple[str, ...]

    def trials(self) -> int:
        """How many there are at most."""
        size = math.prod(len(p.grid()) for p in self.parameters) if self.method == "grid" else None
        return min(number for number in (size, self.cap) if number is not None)

    def points(self, seed: int) -> list[space.Point] | None:
        """The points of all trials, where they are known before the first one."""
        if self.method == "grid":
            return list(itertools.islice(space.grid(self.parameters), self.cap))
        if self.method == "random":
            assert self.cap is not None
            return [space.random_point(self.parameters, seed, i) for i in range(self.cap)]
        return None


def load(path: Path) -> Sweep:
    """Read a sweep file.

    Raises:
        UserError: If it cannot be read, or says what is not understood.
    """
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"sweep file {path}: {error.strerror}; name a YAML file") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"sweep file {path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise UserError(f"sweep file {path} holds no settings; begin with method: and parameters:")
    try:
        return read(content, path.stem)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def read(content: dict[str, Any], name: str) -> Sweep:
    """A sweep from the content of its file.

    Args:
        content: A W&B sweep configuration.
        name: The name, if the content has none.

    Raises:
        UserError: If it says what is not understood.
    """
    for key in ("scheduler", "metrics"):
        if key in content:
            raise UserError(f"{key} is for W&B's own optimizers; use method and metric")
    check_keys("the file", content, KEYS)
    method = content.get("method")
    if method not in METHODS:
        raise UserError(f"no method {method}{one_of(method, METHODS)}")
    parameters = _parameters(content.get("parameters"))
    cap = content.get("run_cap")
    if cap is not None and (isinstance(cap, bool) or not isinstance(cap, int) or cap < 1):
        raise UserError(f"run_cap {cap!r} is no number of trials; give 1 or more")
    if cap is None and method != "grid":
        raise UserError(f"method {method} has no end of its own; add run_cap: 20")
    if method == "grid":
        size = math.prod(len(parameter.grid()) for parameter in parameters)
        if size == 0:
            raise UserError("the grid is empty; give every parameter a value")
        if min(size, cap or size) > LARGEST_GRID:
            raise UserError(f"the grid has {size} trials; add run_cap, or use method: random")
    if method == "bayes" and "metric" not in content:
        raise UserError("method bayes needs metric: {name: validation, goal: maximize}")
    metric, target = _metric(content.get("metric", {"name": VALIDATION, "goal": "maximize"}))
    experiment, options = _command(content.get("command"))
    return Sweep(
        name=str(content.get("name") or name),
        method=method,
        metric=metric,
        target=target,
        cap=cap,
        parameters=parameters,
        halving=_halving(content.get("early_terminate")),
        experiment=experiment,
        options=options,
    )


def _parameters(content: Any, prefix: str = "") -> tuple[Parameter, ...]:
    """Parameters by dotted name: those below `parameters` of a parameter are its settings."""
    if not isinstance(content, dict) or not content:
        where = prefix.rstrip(".") or "the file"
        raise UserError(f"parameters: {where} has none; give at least one to sweep")
    found: list[Parameter] = []
    for key, given in content.items():
        name = f"{prefix}{key}".replace("-", "_")
        if isinstance(given, dict) and "parameters" in given:
            check_keys(f"parameters: {name}", given, ("parameters",))
            found += _parameters(given["parameters"], f"{name}.")
        else:
            found.append(space.parse(name, given))
    names = [parameter.name for parameter in found]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"parameters: {name} is there twice; keep one")
    return tuple(found)


def _metric(content: Any) -> tuple[str, float | None]:
    check_keys("metric", content, METRIC_KEYS)
    name, goal = content.get("name"), content.get("goal", "minimize")
    learner, _, last = str(name).rpartition("/")
    if last != VALIDATION:
        raise UserError(
            f"no metric {name}{nearest(str(name), [VALIDATION])}; choose by {VALIDATION}, or "
            f"LEARNER/{VALIDATION}: nothing is chosen on training or test classes"
        )
    if goal != "maximize":
        raise UserError(f"metric {name}: larger is better; set goal: maximize")
    target = content.get("target")
    if target is not None and (isinstance(target, bool) or not isinstance(target, int | float)):
        raise UserError(f"metric {name}: target {target!r} is no number")
    return f"{learner}/{VALIDATION}" if learner else VALIDATION, target


def _halving(content: Any) -> Halving | None:
    """W&B's hyperband: `min_iter` and on, or `s` times down from `max_iter`."""
    if content is None:
        return None
    where = "early_terminate"
    check_keys(where, content, HALVING_KEYS)
    if content.get("type") != "hyperband":
        raise UserError(f"{where}: no type {content.get('type')}; give type: hyperband")
    numbers = {key: content[key] for key in ("min_iter", "max_iter", "s", "eta") if key in content}
    for key, value in numbers.items():
        least = 1.0 if key != "eta" else 1.0 + 1e-9
        whole = key == "eta" or isinstance(value, int)
        if isinstance(value, bool) or not isinstance(value, int | float) or not whole:
            raise UserError(f"{where}: {key} {value!r} is no {'' if whole else 'whole '}number")
        if value < least:
            raise UserError(f"{where}: {key} {value} is too small; give more than {int(value)}")
    eta = float(numbers.get("eta", 3))
    if "min_iter" in numbers:
        return Halving(numbers["min_iter"], eta, max(10**6, numbers["min_iter"]))
    if {"max_iter", "s"} <= numbers.keys():
        last = numbers["max_iter"]
        return Halving(max(1, int(last / eta ** numbers["s"])), eta, max(1, int(last / eta)))
    raise UserError(f"{where}: give min_iter, or max_iter and s; both count validations")


def _command(content: Any) -> tuple[str, tuple[str, ...]]:
    """The experiment of a command, and its settings without what the agent fills in."""
    if not isinstance(content, list) or "train" not in content[:-1]:
        raise UserError(f"command does not say which experiment is swept; add command: {COMMAND}")
    words = [str(word) for word in content[content.index("train") + 1 :]]
    filled = [i for i, word in enumerate(words) if word.startswith("${")]
    if not filled:
        raise UserError(f"command has no place for the parameters; write {COMMAND}")
    for i in filled:
        if words[i] == "${args_json_file}" and words[i - 1] != "--config":
            raise UserError('command: write --config before "${args_json_file}"')
    left = {*filled, *(i - 1 for i in filled if words[i - 1] == "--config")}
    kept = [word for i, word in enumerate(words) if i not in left]
    if not kept or kept[0].startswith("-"):
        raise UserError(f"command does not name an experiment after train; write {COMMAND}")
    return kept[0], tuple(kept[1:])
