"""UCB1: take the arm whose mean could be the largest.

Auer, Cesa-Bianchi and Fischer 2002, "Finite-time Analysis of the Multiarmed Bandit Problem",
figure 1 (width c = 1, no prior).

    arm = argmax_a  m_a + c sqrt(2 ln t / n_a),    m_a = (s_a + q / 2) / n_a,    n_a = pulls_a + q

s_a is the sum of the outcomes in [0, 1], t the rounds so far.  With q = 0 every arm is pulled once
first; q = 2 is the uniform prior of Bernoulli arms, with which few rounds suffice for many arms
(Duan et al. 2016, "RL^2", section 3.1, who tune c).
"""

from __future__ import annotations

import numpy as np

from metalearn.selection.online import Online, Tally


def bounds(tally: Tally, rounds: int, width: float, prior: float) -> np.ndarray:
    """Upper confidence bounds of every arm `[..., A]`; infinite where nothing is known.

    Args:
        tally: Counts.
        rounds: t.
        width: c.
        prior: q.

    Example:
        >>> tally = Tally(2)
        >>> tally.note(0, 1.0)
        >>> bounds(tally, 1, width=1.0, prior=0.0)
        array([ 1., inf])
    """
    known = tally.pulls + prior
    safe = np.where(known > 0, known, 1.0)
    # m_a + c sqrt(2 ln t / n_a)
    bound = (tally.sums + prior / 2) / safe + width * np.sqrt(2 * np.log(max(rounds, 1)) / safe)
    return np.where(known > 0, bound, np.inf)


class UCB1(Online):
    """Chooses by upper confidence bounds, whatever the task.

    Args:
        width: c.
        prior: q.
    """

    def __init__(self, width: float = 1.0, prior: float = 0.0) -> None:
        self._width, self._prior = width, prior

    def _begin(self, choices: int, features: int) -> None:
        self._tally = Tally(choices)

    def _worth(self, features: np.ndarray, able: np.ndarray) -> np.ndarray:
        return bounds(self._tally, self.rounds, self._width, self._prior)

    def _expected(self, features: np.ndarray) -> np.ndarray:
        return self._tally.means

    def _note(self, features: np.ndarray, choice: int, outcome: float) -> None:
        self._tally.note(choice, outcome)
