"""Bernoulli bandits: what a recurrent policy learns from outcomes alone comes near the optimum.

Duan, Schulman, Chen, Bartlett, Sutskever and Abbeel 2016, "RL^2: Fast Reinforcement Learning via
Slow Reinforcement Learning", section 3.1 and table 1.
"""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING

from experiments.papers.reproduction import Estimate, Job, Measured, Quantity, Reproduction

if TYPE_CHECKING:
    import numpy as np

    from metalearn.selection.bernoulli import Rule

SIZES = ((10, 5), (10, 10), (100, 5), (100, 10), (500, 5), (500, 10))
"""Pulls and arms."""
STREAMS = {10: 1_000_000, 100: 50_000, 500: 10_000}
"""Streams that a policy is judged on, by pulls."""
TUNING_STREAMS = {10: 40_000, 100: 10_000, 500: 2_000}
WIDTHS = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.6, 1.0)
"""Of UCB1; the best on other streams is judged."""
PRIOR = 2.0
GRID = 200
"""Sure outcomes that an index of Gittins is found among."""
TUNED_ON, JUDGED_ON = 1, 2
"""Seeds of the streams."""
# By policy: published, and by an independent implementation.
KNOWN = {
    "random": ((5.0, None), (5.0, None), (49.9, None), (49.9, None), (249.8, None), (249.0, None)),
    "Gittins": ((6.6, None), (6.6, None), (78.3, None), (82.8, None), (405.8, None), (437.8, None)),
    "Thompson": (
        (5.7, 5.8),
        (5.5, 5.6),
        (74.7, 75.2),
        (76.7, 77.0),
        (402.0, 401.4),
        (429.5, 430.9),
    ),
    "UCB1": ((6.7, 6.7), (6.7, 6.7), (78.0, 78.2), (82.4, 83.1), (405.8, 404.3), (437.1, 435.8)),
}
JUDGED = ("random", "Thompson", "UCB1")
OPTIMA = {(10, 5): 6.660, (10, 10): 6.714}
LEARNED = (10, 5)
RECURRENT = {
    "updates": 8000,
    "streams": 250,
    "width": 64,
    "rate": 5e-3,
    "trace": 0.9,
    "entropy": 0.05,
    "clip": 0.5,
}
TRAINING = "training of the recurrent policy, CPU minutes"
EXCESS = "largest excess over the optimum, in standard errors"


def _name(policy: str, size: tuple[int, int]) -> str:
    return f"n={size[0]} k={size[1]} {policy}"


def _quantity(policy: str, size: tuple[int, int]) -> Quantity:
    published, rerun = KNOWN[policy][SIZES.index(size)]
    if policy not in JUDGED:
        return Quantity(_name(policy, size), published, rerun)
    within = max(0.02 * published, 0.15)
    low, high = round(published - within, 3), round(published + within, 3)
    return Quantity(_name(policy, size), published, rerun, low, high)


def _estimate(totals: np.ndarray) -> Estimate:
    return Estimate(float(totals.mean()), 1.96 * float(totals.std(ddof=1)) / len(totals) ** 0.5)


def _rules(size: tuple[int, int], streams: int, index: np.ndarray) -> dict[str, Rule]:
    """The policies that are not learned, UCB1 with the width that is best on streams of its own."""
    import numpy as np

    from metalearn.selection.bernoulli import by_gittins, play
    from metalearn.selection.streams import Pulls
    from metalearn.selection.thompson import bernoulli
    from metalearn.selection.ucb1 import bounds

    pulls, arms = size

    def ucb1(tally, rounds, random, width):
        return bounds(tally, rounds, width, PRIOR)

    def tuned(width: float) -> float:
        random = np.random.default_rng((TUNED_ON, *size))
        return play(partial(ucb1, width=width), Pulls(arms, pulls), streams, random).mean()

    return {
        "random": lambda tally, rounds, random: random.random(tally.pulls.shape),
        "Gittins": by_gittins(index),
        "Thompson": lambda tally, rounds, random: bernoulli(tally, random),
        "UCB1": partial(ucb1, width=max(WIDTHS, key=tuned)),
    }


def _learned(size: tuple[int, int], seed: int, part: int, streams: int) -> tuple[np.ndarray, float]:
    """Totals `[B]` of a recurrent policy trained on outcomes alone, and minutes of training."""
    import numpy as np
    import torch

    from experiments.progress import Progress
    from metalearn.selection.recurrent import Settings, play, train
    from metalearn.selection.streams import Pulls

    began = time.process_time()
    torch.set_num_threads(1)  # the tensors are small
    stream = Pulls(size[1], size[0])
    settings = Settings(**(RECURRENT | {"updates": RECURRENT["updates"] // part}))
    with Progress(settings.updates, "recurrent policy") as progress:
        network = train(
            stream,
            settings,
            seed,
            lambda made: progress.update(int(made["update"]), {"outcome": made["outcome"]}),
        )
    took = (time.process_time() - began) / 60
    random = np.random.default_rng((JUDGED_ON, *size))
    with torch.no_grad():
        played = play(network, stream, streams, random, greedy=True)
    return played.outcome.sum(0).numpy().astype(np.float64), took


def run(job: Job) -> Measured:
    """Judge every policy on the same number of streams, and the learned one after its training."""
    import numpy as np

    from metalearn.selection.bernoulli import gittins, optimum, play
    from metalearn.selection.streams import Pulls

    part = 100 if job.smoke else 1
    measured: Measured = {}
    for size in OPTIMA:
        measured[_name("optimum", size)] = Estimate(optimum(size[1], size[0]))
    indices = {pulls: gittins(pulls, GRID // (10 if job.smoke else 1)) for pulls in STREAMS}
    for size in SIZES:
        rules = _rules(size, TUNING_STREAMS[size[0]] // part, indices[size[0]])
        for policy, rule in rules.items():
            random = np.random.default_rng((JUDGED_ON, *size))
            totals = play(rule, Pulls(size[1], size[0]), STREAMS[size[0]] // part, random)
            measured[_name(policy, size)] = _estimate(totals)
    learned, minutes = _learned(LEARNED, job.seed, part, STREAMS[LEARNED[0]] // (10 * part))
    measured[_name("recurrent", LEARNED)] = _estimate(learned)
    excesses = [
        (found.value - measured[_name("optimum", size)].value) / (found.half / 1.96)
        for size in OPTIMA
        for name, found in measured.items()
        if name.startswith(_name("", size)) and found.half
    ]
    return measured | {TRAINING: Estimate(minutes), EXCESS: Estimate(max(excesses))}


REPRODUCTION = Reproduction(
    number="R6",
    key="bandits",
    title="Bernoulli bandits: a recurrent policy learns to explore",
    claim=(
        "A recurrent policy that is trained on many bandits by their rewards alone explores a new "
        "one about as well as the best algorithms made by hand: 6.7 in 10 pulls of 5 arms."
    ),
    protocol=(
        "Chances of k arms uniform, total reward over n pulls. Random; the index of Gittins for "
        "the pulls that are left (the paper: of an endless discounted bandit); Thompson sampling "
        "from uniform priors; UCB1 on posterior means, its width c chosen on other streams. A GRU "
        "of 64 units that sees its last arm and reward, trained by policy gradient on rewards "
        "alone for 8,000 updates of 250 bandits and judged by its likeliest arms. 1,000,000, "
        "50,000 and 10,000 bandits for 10, 100 and 500 pulls, 100,000 for the learned policy. "
        "The optimum is exact, by dynamic programming over counts."
    ),
    source="Duan et al. 2016, table 1; re-run: an independent implementation of the protocol",
    quantities=(
        *(
            Quantity(_name("optimum", size), None, known, known - 5e-4, known + 5e-4)
            for size, known in OPTIMA.items()
        ),
        *(_quantity(policy, size) for size in SIZES for policy in KNOWN),
        Quantity(_name("recurrent", LEARNED), 6.7, low=6.55),
        Quantity(TRAINING, high=15.0),
        Quantity(EXCESS, high=3.0),
    ),
    run=run,
    settings={
        "recurrent": RECURRENT,
        "widths": list(WIDTHS),
        "streams": {str(pulls): count for pulls, count in STREAMS.items()},
    },
    note="Bands are 2% of the published value or 0.15, whichever is larger.",
)
