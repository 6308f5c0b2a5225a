"""Thompson sampling: take an arm with the probability that it is the best one.

Thompson 1933, "On the Likelihood that One Unknown Probability Exceeds Another"; for outcomes
between 0 and 1, Agrawal and Goyal 2012, "Analysis of Thompson Sampling for the Multi-armed Bandit
Problem", algorithm 2.

    Bernoulli   theta_a ~ Beta(1 + s_a, 1 + n_a - s_a)                      uniform prior
    Gaussian    theta_a ~ N(m_a, 1 / w_a),  w_a = 1 / S^2 + n_a / R^2,      prior N(1/2, S^2)
                m_a = (1/2 / S^2 + s_a / R^2) / w_a                         noise R

and the arm is argmax_a theta_a, with n_a pulls and their sum s_a.  Deviation: an outcome between 0
and 1 adds itself to s_a, not the toss of a coin of that chance: the same mean, and less noise.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from metalearn.selection.online import Online, Tally

Outcomes = Literal["bernoulli", "gaussian"]
PRIOR = 0.5
"""S: outcomes between 0 and 1 are within two deviations of the middle."""


def bernoulli(tally: Tally, random: np.random.Generator) -> np.ndarray:
    """A draw of the chance of every arm `[..., A]`.

    Example:
        >>> bernoulli(Tally(1000), np.random.default_rng(0)).mean().round(1)
        np.float64(0.5)
    """
    # theta_a ~ Beta(1 + s_a, 1 + n_a - s_a)
    return random.beta(1 + tally.sums, 1 + tally.pulls - tally.sums)


def gaussian(tally: Tally, random: np.random.Generator, noise: float) -> np.ndarray:
    """A draw of the mean of every arm `[..., A]`; noise: R."""
    weight = 1 / PRIOR**2 + tally.pulls / noise**2
    mean = (0.5 / PRIOR**2 + tally.sums / noise**2) / weight
    # theta_a ~ N(m_a, 1 / w_a)
    return random.normal(mean, weight**-0.5)


class Thompson(Online):
    """Chooses by a draw from what is known of each learner, whatever the task.

    Args:
        outcomes: What they are taken to be.
        noise: R, their deviation on one learner; of Gaussian outcomes.

    Raises:
        ValueError: If the outcomes are of another kind, or the noise is not positive.
    """

    def __init__(self, outcomes: Outcomes = "gaussian", noise: float = 0.2) -> None:
        if outcomes not in ("bernoulli", "gaussian"):
            raise ValueError(f"outcomes {outcomes!r} are neither bernoulli nor gaussian")
        if noise <= 0:
            raise ValueError(f"noise {noise} must be positive")
        self._outcomes, self._noise = outcomes, noise

    def _begin(self, choices: int, features: int) -> None:
        self._tally = Tally(choices)

    def _worth(self, features: np.ndarray, able: np.ndarray) -> np.ndarray:
        if self._outcomes == "bernoulli":
            return bernoulli(self._tally, self.random)
        return gaussian(self._tally, self.random, self._noise)

    def _expected(self, features: np.ndarray) -> np.ndarray:
        return self._tally.means

    def _note(self, features: np.ndarray, choice: int, outcome: float) -> None:
        self._tally.note(choice, outcome)
