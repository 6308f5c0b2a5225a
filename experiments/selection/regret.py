"""Regret of linear bandits where the truth is linear, beside the bound that theory has for them.

    python -m experiments.selection.regret

Each round shows a vector x_a in the unit ball for every arm, drawn afresh; arm a brings
x_a' theta + noise for one hidden unit vector theta.  With the best arm of each round the regret is

    R_n = sum_{t <= n} max_a x_{t, a}' theta - x_{t, a_t}' theta      held against  3 D sqrt(n ln n)

which is zero at n = 1: it is compared from n = 2 on.  Writes `regret.json` and `regret.png`.
Abbasi-Yadkori et al. 2011, "Improved Algorithms for Linear Stochastic Bandits"; Agrawal and Goyal
2013, "Thompson Sampling for Contextual Bandits with Linear Payoffs".
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.errors import UserError
from experiments.files import write_json
from metalearn.selection.epsilon_greedy import EpsilonGreedy
from metalearn.selection.linear import Linear
from metalearn.selection.linear_thompson import LinearThompson
from metalearn.selection.linucb import LinUCB

SIZE, ARMS, NOISE = 5, 10, 0.1
ROUNDS, SEEDS = 10_000, 20
KEPT = Path(__file__).resolve().parent.parent / "results" / "selection"
POLICIES: dict[str, Callable[[], Linear]] = {
    "LinUCB": lambda: LinUCB(shared=True, noise=NOISE),
    "linear Thompson": lambda: LinearThompson(shared=True, noise=NOISE),
    "epsilon-greedy": lambda: EpsilonGreedy(shared=True),
}


def bound(rounds: np.ndarray) -> np.ndarray:
    """3 D sqrt(n ln n) of numbers of rounds n."""
    return 3 * SIZE * np.sqrt(rounds * np.log(rounds))


def regret(policy: Linear, rounds: int, seed: int) -> np.ndarray:
    """R_n of one run for n = 1, ..., `rounds`; the seed draws the problem and the policy's chance.

    Example:
        >>> found = regret(LinUCB(shared=True), 100, seed=0)
        >>> found.shape, bool((np.diff(found) >= 0).all())
        ((100,), True)
    """
    # Not the numbers of the policy, whose first draw would be theta itself.
    random = np.random.default_rng((seed, 1))
    theta = random.standard_normal(SIZE)
    theta /= np.linalg.norm(theta)
    # Uniform in the ball: a direction, and a radius whose power D is uniform.
    vectors = random.standard_normal((rounds, ARMS, SIZE))
    vectors /= np.linalg.norm(vectors, axis=2, keepdims=True)
    vectors *= random.random((rounds, ARMS, 1)) ** (1 / SIZE)
    expected, noise = vectors @ theta, NOISE * random.standard_normal(rounds)
    policy.start(ARMS, ARMS * SIZE, seed)
    able, lost = np.ones(ARMS, bool), np.zeros(rounds)
    for t in range(rounds):
        shown = vectors[t].reshape(-1)
        arm = policy.choose(shown, able)
        policy.learn(shown, arm, expected[t, arm] + noise[t])
        lost[t] = expected[t].max() - expected[t, arm]
    return lost.cumsum()


def measure(rounds: int, seeds: int) -> dict[str, Any]:
    """Mean regret of every policy with its standard error, at about 60 numbers of rounds."""
    shown = np.unique(np.geomspace(2, rounds, 60).astype(int))
    record: dict[str, Any] = {
        "rounds": rounds,
        "seeds": seeds,
        "size": SIZE,
        "arms": ARMS,
        "noise": NOISE,
        "shown": shown.tolist(),
        "bound": bound(shown).tolist(),
        "policies": {},
    }
    every = np.arange(2, rounds + 1)
    for name, make in POLICIES.items():
        runs = np.stack([regret(make(), rounds, seed) for seed in range(seeds)])
        mean, error = runs.mean(0), runs.std(0, ddof=1) / seeds**0.5
        record["policies"][name] = {
            "mean": mean[shown - 1].tolist(),
            "error": error[shown - 1].tolist(),
            "largest_share_of_bound": float((mean[1:] / bound(every)).max()),
        }
    return record


def draw(record: dict[str, Any], path: Path) -> None:
    """Draw the regret, and the regret a round."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from experiments.figures import PALETTE

    shown = np.array(record["shown"])
    figure = Figure(figsize=(10, 4.2), layout="constrained", dpi=130)
    FigureCanvasAgg(figure)
    title = f"{record['arms']} arms in {record['size']} dimensions, mean of {record['seeds']} runs"
    figure.suptitle(title, fontsize=13, fontweight="bold", x=0.01, ha="left")
    for axes, over, label in zip(
        figure.subplots(1, 2), (1.0, shown), ("regret", "regret a round"), strict=True
    ):
        for colour, (name, found) in zip(PALETTE, record["policies"].items(), strict=False):
            mean, half = np.array(found["mean"]), 1.96 * np.array(found["error"])
            axes.plot(shown, mean / over, color=colour, label=name)
            axes.fill_between(
                shown, (mean - half) / over, (mean + half) / over, color=colour, alpha=0.2, lw=0
            )
        axes.plot(shown, np.array(record["bound"]) / over, "k--", label="3 D sqrt(n ln n)")
        axes.set(xscale="log", yscale="log", xlabel="rounds n", ylabel=label)
    figure.axes[0].legend(frameon=False)
    figure.savefig(path)


def main(words: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m experiments.selection.regret")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--output", type=Path, default=KEPT, metavar="DIR")
    arguments = parser.parse_args(words)
    try:
        if arguments.rounds < 2 or arguments.seeds < 2:
            raise UserError("--rounds and --seeds must be at least 2")
        if not arguments.output.is_dir():
            raise UserError(f"--output {arguments.output} is no folder; make it")
    except UserError as error:
        print(f"regret: {error}", file=sys.stderr)
        return 2
    record = measure(arguments.rounds, arguments.seeds)
    write_json(arguments.output / "regret.json", record)
    draw(record, arguments.output / "regret.png")
    for name, found in record["policies"].items():
        share = found["largest_share_of_bound"]
        print(f"{name}: regret {found['mean'][-1]:.1f}, at most {share:.3f} of the bound")
    return 0


if __name__ == "__main__":
    sys.exit(main())
