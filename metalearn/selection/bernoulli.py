"""Bernoulli bandits with uniform chances: play many at once, and what playing them can bring.

The Bayes optimum over n pulls is exact, by dynamic programming over counts of ones and zeros
(s_a, f_a) of every arm, with m pulls left:

    V(counts, 0) = 0
    V(counts, m) = max_a p_a (1 + V(counts + one of a, m - 1))
                         + (1 - p_a) V(counts + zero of a, m - 1)
    p_a = (s_a + 1) / (s_a + f_a + 2)

Arms are exchangeable: counts are multisets.  The index of Gittins for m pulls left treats an arm
alone: it is the sure outcome z for which stopping is as good as going on with the arm,

    W_z(s, f, m) = max(z m, p (1 + W_z(s + 1, f, m - 1)) + (1 - p) W_z(s, f + 1, m - 1)).

Gittins, Glazebrook and Weber 2011, "Multi-armed Bandit Allocation Indices", section 1.4; the
task is that of Duan et al. 2016, "RL^2", section 3.1.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np

from metalearn.selection.online import Tally
from metalearn.selection.streams import Pulls

Rule = Callable[[Tally, int, np.random.Generator], np.ndarray]
"""(counts of B streams, rounds so far, chance) -> what to take the largest of `[B, A]`."""
TOGETHER = 20_000
"""Streams that are played side by side: a few MiB of counts."""


def play(rule: Rule, stream: Pulls, count: int, random: np.random.Generator) -> np.ndarray:
    """Total outcome of each of `count` new streams `[B]`; ties fall to the first arm.

    They are played a part after the other, so that memory does not grow with their number.

    Example:
        >>> pulls = Pulls(arms=2, rounds=10)
        >>> greedy = lambda tally, t, random: (tally.sums + 1) / (tally.pulls + 2)
        >>> play(greedy, pulls, 4000, np.random.default_rng(0)).mean() > 5.5
        np.True_
    """
    if count > TOGETHER:
        parts = [TOGETHER] * (count // TOGETHER) + [count % TOGETHER] * (count % TOGETHER > 0)
        return np.concatenate([play(rule, stream, part, random) for part in parts])
    stream.begin(count, random)
    tally, total = Tally(count, stream.choices), np.zeros(count)
    for rounds in range(stream.rounds):
        choice = rule(tally, rounds, random).argmax(-1)
        outcome = stream.outcome(choice)
        tally.note(choice, outcome)
        total += outcome
    return total


def optimum(arms: int, rounds: int) -> float:
    """Largest expected total outcome that any policy can have.

    Args:
        arms: k.
        rounds: n; up to about 12.

    Example:
        >>> round(optimum(5, 1), 3), round(optimum(2, 2), 3)
        (0.5, 1.083)
    """

    @cache
    def value(counts: tuple[tuple[int, int], ...], left: int) -> float:
        if not left:
            return 0.0
        # Arms of equal counts are one choice; those not pulled yet are not in the counts.
        options = {*counts, (0, 0)} if len(counts) < arms else set(counts)
        best = 0.0
        for ones, zeros in options:
            others = list(counts)
            if ones + zeros:
                others.remove((ones, zeros))
            chance = (ones + 1) / (ones + zeros + 2)
            won = value(tuple(sorted([*others, (ones + 1, zeros)])), left - 1)
            lost = value(tuple(sorted([*others, (ones, zeros + 1)])), left - 1)
            # p_a (1 + V(counts + one of a, m - 1)) + (1 - p_a) V(counts + zero of a, m - 1)
            best = max(best, chance * (1 + won) + (1 - chance) * lost)
        return best

    return value((), rounds)


def gittins(rounds: int, grid: int = 200) -> np.ndarray:
    """Index of an arm by its counts and the pulls left.

    Args:
        rounds: n.
        grid: How finely sure outcomes between 0 and 1 are tried; the error is at most 1 / grid.

    Returns:
        `[n + 1, n + 1, n + 1]` by pulls left, ones and zeros, where these sum to at most n; in
        units of 1 / grid.

    Example:
        >>> index = gittins(3)
        >>> index[1, 0, 0] / 200, index[3, 0, 0] > index[2, 0, 0] > index[1, 0, 0]
        (np.float64(0.5), np.True_)
    """
    ones, zeros = np.mgrid[0 : rounds + 1, 0 : rounds + 1]
    chance = ((ones + 1) / (ones + zeros + 2)).astype(np.float32)
    # The smallest integers that hold it: of 500 pulls there are 10^8.
    better = np.zeros((rounds + 1, rounds + 1, rounds + 1), np.min_scalar_type(grid))
    for sure in (np.arange(grid, dtype=np.float32) + 0.5) / grid:
        value = np.zeros_like(chance)
        for left in range(1, rounds + 1):
            size = rounds - left + 1  # counts that leave so many pulls
            p = chance[:size, :size]
            # p (1 + W_z(s + 1, f, m - 1)) + (1 - p) W_z(s, f + 1, m - 1)
            on = p * (1 + value[1 : size + 1, :size]) + (1 - p) * value[:size, 1 : size + 1]
            better[left, :size, :size] += on > sure * left
            value[:size, :size] = np.maximum(on, sure * left)
    return better


def by_gittins(index: np.ndarray) -> Rule:
    """The rule that takes the arm of the largest index for the pulls left."""
    rounds = len(index) - 1

    def rule(tally: Tally, done: int, random: np.random.Generator) -> np.ndarray:
        ones = tally.sums.astype(np.int64)
        return index[rounds - done, ones, tally.pulls.astype(np.int64) - ones]

    return rule
