"""The parameters of a sweep: what a W&B sweep configuration writes about one, and its values.

A value is a function of a coordinate: the index of a listed value, or for a range the quantile
u in [0, 1] of its distribution.  What proposes trials works with coordinates alone.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

from experiments.errors import UserError, nearest, one_of

Point = dict[str, float]
"""Coordinates by name of the parameter."""
EDGE = 1e-9
"""A normal distribution has no quantile 0 and 1."""


@dataclass(frozen=True)
class Choice:
    """A parameter with listed values; its coordinate is their index.

    Example:
        >>> Choice("inner.steps", (1, 3, 5)).value(2)
        5
    """

    name: str
    values: tuple[Any, ...]
    weights: tuple[float, ...] = ()

    def value(self, coordinate: float) -> Any:
        """The value with this index."""
        return self.values[int(coordinate)]

    def draw(self, u: float) -> float:
        """The index at the quantile u of its probabilities."""
        weights = np.array(self.weights or (1.0,) * len(self.values))
        shares = np.cumsum(weights / weights.sum())
        return min(int(np.searchsorted(shares, u, side="right")), len(self.values) - 1)

    def grid(self) -> Sequence[float]:
        """All coordinates."""
        return range(len(self.values))

    def probes(self) -> list[Any]:
        """Values that show whether the setting takes them."""
        return list(self.values)


@dataclass(frozen=True)
class Range:
    """A parameter with a distribution; its coordinate is the quantile.

    Example:
        >>> round(Range("inner.rate", "log_uniform_values", (0.01, 1.0)).value(0.5), 6)
        0.1
    """

    name: str
    distribution: str
    shape: tuple[float, float]
    step: float | None = None

    def value(self, coordinate: float) -> Any:
        """The value at this quantile."""
        first, second = self.shape
        if self.distribution == "int_uniform":
            return min(int(first + coordinate * (second - first + 1)), int(second))
        value = QUANTILES[self.distribution](coordinate, first, second)
        if self.step is None:
            return float(value)
        whole = round(value / self.step) * self.step
        return int(whole) if isinstance(self.step, int) else float(f"{whole:.12g}")

    def draw(self, u: float) -> float:
        """The coordinate: u itself."""
        return u

    def grid(self) -> Sequence[float]:
        """The coordinates of its values, where they can be counted."""
        low, high = self.shape
        if self.distribution == "int_uniform":
            count = int(high - low) + 1
            return [(i + 0.5) / count for i in range(count)]
        if self.distribution == "uniform" and self.step is not None and high > low:
            count = math.ceil((high - low) / self.step - EDGE)
            return [i * self.step / (high - low) for i in range(count)]
        raise UserError(
            f"parameters: {self.name} is a range, and a grid needs values; list them "
            "(values: [...]), give whole bounds, or use method: random"
        )

    def probes(self) -> list[Any]:
        """Its ends, and one between them: no round number, if numbers need not be round."""
        return [self.value(u) for u in (0.0, 0.37, 1.0)]


Parameter = Choice | Range


def _normal(u: float, mu: float, sigma: float) -> float:
    return mu + sigma * NormalDist().inv_cdf(min(max(u, EDGE), 1 - EDGE))


def _beta(u: float, a: float, b: float) -> float:
    from scipy.stats import beta

    return float(beta.ppf(u, a, b))


QUANTILES: dict[str, Callable[[float, float, float], float]] = {
    "uniform": lambda u, low, high: low + u * (high - low),
    "log_uniform": lambda u, low, high: math.exp(low + u * (high - low)),
    "log_uniform_values": lambda u, low, high: low * (high / low) ** u,
    # log(1 / x) is uniform: between the bounds, or such that x lies between them.
    "inv_log_uniform": lambda u, low, high: math.exp(-low - u * (high - low)),
    "inv_log_uniform_values": lambda u, low, high: high * (low / high) ** u,
    "normal": _normal,
    "log_normal": lambda u, mu, sigma: math.exp(_normal(u, mu, sigma)),
    "beta": _beta,
}
"""Quantile functions of W&B's distributions.  With `q_` before the name, and a step `q`, a value is
rounded to a multiple of it."""
SHAPES = {"normal": ("mu", "sigma"), "log_normal": ("mu", "sigma"), "beta": ("a", "b")}
"""Names of the two numbers of a distribution; of the others they are min and max."""
DEFAULTS = {"mu": 0.0, "sigma": 1.0, "a": 1.0, "b": 1.0}
UNSTEPPED = ("inv_log_uniform", "inv_log_uniform_values")
NAMES = (
    *("constant", "categorical", "categorical_w_probabilities", "int_uniform"),
    *QUANTILES,
    *(f"q_{name}" for name in QUANTILES if name not in UNSTEPPED),
)


def parse(name: str, given: Any) -> Parameter:
    """A parameter from what a sweep configuration says about it.

    Raises:
        UserError: If a key is unknown or missing, or a number is none.

    Example:
        >>> parse("inner.steps", {"values": [1, 3]})
        Choice(name='inner.steps', values=(1, 3), weights=())
    """
    where = f"parameters: {name}"
    if not isinstance(given, dict) or not given:
        raise UserError(f"{where}: {given!r} is no parameter; give value, values, or min and max")
    distribution = given.get("distribution") or _implied(where, given)
    if distribution not in NAMES:
        raise UserError(f"{where}: no distribution {distribution}{one_of(distribution, NAMES)}")
    if distribution == "constant":
        check_keys(where, given, ("value", "distribution"), ("value",))
        return Choice(name, (given["value"],))
    if distribution.startswith("categorical"):
        keys = ("values",) if distribution == "categorical" else ("values", "probabilities")
        check_keys(where, given, (*keys, "distribution"), keys)
        return _choice(where, name, given)
    base = distribution.removeprefix("q_")
    stepped = base != distribution
    keys = SHAPES.get(base, ("min", "max"))
    needed = [key for key in keys if key not in DEFAULTS]
    check_keys(where, given, (*keys, *(["q"] if stepped else []), "distribution"), needed)
    first, second = (_number(where, key, given.get(key, DEFAULTS.get(key))) for key in keys)
    _check_shape(where, base, first, second)
    step = _number(where, "q", given.get("q", 1)) if stepped else None
    if step is not None and step <= 0:
        raise UserError(f"{where}: q {step} must be above 0")
    return Range(name, base, (first, second), step)


def _implied(where: str, given: dict[str, Any]) -> str:
    if "value" in given:
        return "constant"
    if "values" in given:
        return "categorical_w_probabilities" if "probabilities" in given else "categorical"
    if {"min", "max"} <= given.keys():
        whole = all(isinstance(given[key], int) for key in ("min", "max"))
        return "int_uniform" if whole else "uniform"
    unknown = [key for key in given if key not in ("min", "max")]
    hint = nearest(unknown[0], ("value", "values", "min", "max", "distribution")) if unknown else ""
    raise UserError(f"{where}: give value, values, or min and max{hint}")


def check_keys(where: str, given: Any, known: Sequence[str], needed: Sequence[str] = ()) -> None:
    """Refuse what has no keys, one that is not known, or lacks one that is needed.

    Raises:
        UserError: If so.
    """
    if not isinstance(given, dict):
        raise UserError(f"{where}: {given!r} has no keys; give some of {', '.join(known)}")
    for key in given:
        if key not in known:
            raise UserError(f"{where}: no key {key}{one_of(key, known)}")
    for key in needed:
        if key not in given:
            raise UserError(f"{where}: {key} is missing; add it")


def _choice(where: str, name: str, given: dict[str, Any]) -> Choice:
    values, weights = given["values"], given.get("probabilities", ())
    if not isinstance(values, list) or not values:
        raise UserError(f"{where}: values {values!r} is no list of values; give at least one")
    if not isinstance(weights, list | tuple) or len(weights) not in (0, len(values)):
        raise UserError(f"{where}: probabilities needs one number a value, {len(values)} of them")
    numbers = tuple(_number(where, "probabilities", weight) for weight in weights)
    if numbers and (min(numbers) < 0 or sum(numbers) <= 0):
        raise UserError(f"{where}: probabilities must be 0 or above, and not all 0")
    return Choice(name, tuple(values), numbers)


def _number(where: str, key: str, given: Any) -> float:
    if isinstance(given, bool) or not isinstance(given, int | float):
        # YAML 1.1 reads 1e-3 as text.
        hint = ""
        if isinstance(given, str) and "e" in given.lower():
            hint = "; YAML wants a point in it, as in 1.0e-3"
        raise UserError(f"{where}: {key} {given!r} is no number{hint}")
    return given


def _check_shape(where: str, base: str, first: float, second: float) -> None:
    if base in SHAPES:
        least = 0 if base == "beta" else -math.inf
        if first < least or second < 0:
            names = " and ".join(SHAPES[base])
            raise UserError(f"{where}: {names} {first} and {second} do not fit {base}; raise them")
    elif first > second:
        raise UserError(f"{where}: min {first} is above max {second}; swap them")
    elif base.endswith("_values") and first <= 0:
        raise UserError(f"{where}: min {first} has no logarithm; give one above 0")
    elif base == "int_uniform" and not (isinstance(first, int) and isinstance(second, int)):
        raise UserError(f"{where}: min {first} and max {second} must be whole for int_uniform")


def settings(parameters: Sequence[Parameter], point: Point) -> dict[str, Any]:
    """The settings at a point."""
    return {parameter.name: parameter.value(point[parameter.name]) for parameter in parameters}


def grid(parameters: Sequence[Parameter]) -> Iterator[Point]:
    """All combinations of the values of all parameters."""
    for coordinates in itertools.product(*(parameter.grid() for parameter in parameters)):
        yield dict(zip((p.name for p in parameters), map(float, coordinates), strict=True))


def random_point(parameters: Sequence[Parameter], seed: int, number: int) -> Point:
    """The point of trial `number`: a pure function of seed and number.

    Example:
        >>> rates = [parse("inner.rate", {"min": 0.0, "max": 1.0})]
        >>> random_point(rates, 0, 3) == random_point(rates, 0, 3) != random_point(rates, 0, 4)
        True
    """
    drawn = np.random.default_rng([seed, number]).random(len(parameters))
    return {p.name: float(p.draw(u)) for p, u in zip(parameters, drawn.tolist(), strict=True)}
