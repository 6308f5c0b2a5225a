"""Tabular control: exact values of FrozenLake, and Q-learning against Sarsa on the cliff.

Sutton and Barto 2018, "Reinforcement Learning: An Introduction", example 6.6; the environments are
those of gymnasium.
"""

from __future__ import annotations

from experiments.errors import UserError
from experiments.papers.reproduction import Estimate, Job, Measured, Quantity, Reproduction

LAKES = {"FrozenLake-v1": ("4x4", 0.7442), "FrozenLake8x8-v1": ("8x8", 0.9132)}
"""Size and optimal return by name."""
WITHOUT = {"FrozenLake-v1": 0.8235, "FrozenLake8x8-v1": 1.0}
CLIFF = "CliffWalking-v1"
SEEDS, EPISODES, LAST = 50, 500, 100
RATE, EXPLORE = 0.5, 0.1
GAIN = "Sarsa above Q-learning"


def _lake(size: str) -> str:
    return f"FrozenLake {size}, optimal return"


def _endless(size: str) -> str:
    return f"FrozenLake {size}, without the limit of steps"


def run(job: Job) -> Measured:
    """Plan on the lakes, then learn on the cliff with both methods under the same seeds."""
    try:
        import gymnasium
    except ImportError as error:
        raise UserError("control needs gymnasium: pip install 'metalearn[selection]'") from error

    from dataclasses import replace

    import numpy as np

    from metalearn.selection.planning import Model, optimal_return
    from metalearn.selection.temporal import TemporalDifference

    measured: Measured = {}
    for name, (size, _) in LAKES.items():
        model = Model.of(gymnasium.make(name))
        measured[_lake(size)] = Estimate(optimal_return(model))
        measured[_endless(size)] = Estimate(optimal_return(replace(model, limit=None)))

    seeds, episodes = (2, 50) if job.smoke else (SEEDS, EPISODES)

    def last(method: str, seed: int) -> float:
        trainer = TemporalDifference(method, episodes=episodes, rate=RATE, explore=EXPLORE)  # type: ignore[arg-type]
        outcomes: list[float] = []
        trainer.train(gymnasium.make(CLIFF), seed, lambda made: outcomes.append(made["outcome"]))
        return float(np.mean(outcomes[-LAST:]))

    first = job.seed * SEEDS
    q, sarsa = (
        np.array([last(method, first + seed) for seed in range(seeds)])
        for method in ("q-learning", "sarsa")
    )
    named = {"Q-learning": q, "Sarsa": sarsa, GAIN: sarsa - q}
    for name, returns in named.items():
        half = 1.96 * float(returns.std(ddof=1)) / len(returns) ** 0.5
        measured[name] = Estimate(float(returns.mean()), half)
    return measured


REPRODUCTION = Reproduction(
    number="R8",
    key="control",
    title="Tabular control: FrozenLake exactly, Q-learning and Sarsa on the cliff",
    claim=(
        "While both explore, Sarsa takes the safe way along the cliff and has the better return, "
        "Q-learning learns the shortest way and falls off now and then: about -25 and -50."
    ),
    protocol=(
        "FrozenLake-v1, slippery, undiscounted: dynamic programming over the steps that are left "
        "of 100 (4x4) and 200 (8x8), and value iteration without that limit. Cliff walking, "
        "undiscounted: 500 episodes, epsilon 0.1, alpha 0.5; mean return of the last 100 while "
        "exploring, over 50 seeds."
    ),
    source=(
        "Sutton and Barto 2018, example 6.6, a figure; bands around an independent implementation "
        "and, on the lakes, around exact values"
    ),
    quantities=(
        *(
            Quantity(_lake(size), None, known, round(known - 1e-3, 4), round(known + 1e-3, 4))
            for size, known in LAKES.values()
        ),
        *(
            Quantity(_endless(LAKES[name][0]), None, known, round(known - 1e-3, 4), known + 1e-3)
            for name, known in WITHOUT.items()
        ),
        Quantity("Q-learning", -50.0, -49.2, -53.0, -47.0),
        Quantity("Sarsa", -25.0, -26.3),
        Quantity(GAIN, low=15.0),
    ),
    run=run,
    settings={
        "cliff": {"seeds": SEEDS, "episodes": EPISODES, "rate": RATE, "explore": EXPLORE},
    },
)
