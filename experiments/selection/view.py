"""`python -m experiments.selection.view DIR`: what a matrix says before any policy is fitted.

Does choosing matter?  The virtual best is above the single best by

    gap = mean_s mean_{t in s} (VBS_t - u_{t, SBS}),

the mean over sources of their tasks, with the interval of a bootstrap over sources, then tasks.
The best learner of each task is chosen on one half of the queries and scored on the other, so that
learners which differ by nothing but noise leave no gap.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from experiments.analysis.drawing import canvas, frame, save
from experiments.arguments import Parser
from experiments.figures import PALETTE
from experiments.selection.tables import read_matrix
from metalearn.selection.matrix import Cost, Matrix
from metalearn.selection.problem import Problem
from metalearn.statistics import Interval, bootstrap

WEIGHTS = (0.0, 0.003, 0.01)
"""lambda: accuracy that a pass through the backbone has to bring."""


def gap(problem: Problem) -> tuple[Interval, np.ndarray]:
    """The virtual best above the single best: over sources, and for each task `[T]`.

    Example:
        >>> utilities = np.array([[[0.9, 0.5], [0.4, 0.8], [0.9, 0.5]]] * 2)
        >>> problem = Problem(
        ...     ("a", "b", "c"), ("s", "t", "u"), ("one", "two"), (), np.zeros((3, 0)), utilities,
        ...     np.ones((3, 2)),
        ... )
        >>> gap(problem)[1].round(2)
        array([0. , 0.4, 0. ])
    """
    above = problem.virtual_best() - problem.mean[:, problem.single_best]
    source = np.array(problem.sources)
    groups = [above[source == name] for name in sorted(set(problem.sources))]
    return bootstrap(groups), above


def told(matrix: Matrix, cost: Cost, weights: Sequence[float]) -> list[str]:
    """Lines about the learners, then about the gap at each weight.

    Args:
        matrix: The matrix.
        cost: Unit of the cost.
        weights: Values of lambda.
    """
    accuracy = matrix.accuracy.mean(0)
    best = np.bincount(_best(matrix.problem(0.0, cost)), minlength=len(matrix.learners))
    lines = [
        f"{len(matrix.tasks)} tasks of {len(set(matrix.sources))} sources",
        f"{'learner':<22}{'accuracy':>9}{'passes':>8}{'seconds':>9}{'best on':>9}",
    ]
    for place, name in enumerate(matrix.learners):
        lines.append(
            f"{name:<22}{100 * np.nanmean(accuracy[:, place]):>9.1f}"
            f"{matrix.passes[:, place].mean():>8.2f}{np.nanmean(matrix.seconds[:, place]):>9.2f}"
            f"{best[place]:>9d}"
        )
    for weight in weights:
        problem = matrix.problem(weight, cost)
        interval, above = gap(problem)
        lines.append(
            f"lambda {weight:g} a {'pass' if cost == 'passes' else 'second'}: "
            f"SBS {problem.learners[problem.single_best]} "
            f"{100 * problem.mean[:, problem.single_best].mean():.1f}, "
            f"VBS {100 * problem.virtual_best().mean():.1f}; gap over sources "
            f"{100 * interval.mean:.2f} [{100 * interval.low:.2f}, {100 * interval.high:.2f}], "
            f"over tasks {100 * above.mean():.2f}"
        )
    return lines


def _best(problem: Problem) -> np.ndarray:
    """The best learner of each task on all queries; of equal ones the cheapest."""
    return np.where(problem.able, problem.mean, -np.inf).argmax(1)


def heat_map(matrix: Matrix) -> Figure:
    """Accuracy of every learner on every task, and what it is above the single best."""
    order = sorted(range(len(matrix.tasks)), key=lambda t: (matrix.sources[t], matrix.tasks[t]))
    accuracy = 100 * matrix.accuracy.mean(0)[order]
    single = matrix.problem(0.0).single_best
    title = "Accuracy of the portfolio on every task"
    figure = canvas(15, 2 + 0.115 * len(order), title)
    left, right = figure.subplots(1, 2)
    _image(left, matrix, accuracy, "accuracy (%)", "viridis", (0, 100))
    above = accuracy - accuracy[:, [single]]
    _image(right, matrix, above, f"points above {matrix.learners[single]}", "RdBu", (-30, 30))
    names = [f"{matrix.sources[t][:28]}: {matrix.tasks[t][:34]}" for t in order]
    left.set_yticks(range(len(order)), names, fontsize=5)
    right.set_yticks([])
    return figure


def _image(
    axes: Axes, matrix: Matrix, values: np.ndarray, title: str, colors: str, ends: tuple[int, int]
) -> None:
    image = axes.imshow(values, aspect="auto", cmap=colors, vmin=ends[0], vmax=ends[1])
    axes.set_xticks(range(len(matrix.learners)), matrix.learners, rotation=90, fontsize=8)
    axes.set_title(title, loc="left", fontsize=11)
    figure = axes.get_figure()
    assert figure is not None
    figure.colorbar(image, ax=axes, shrink=0.3, pad=0.01)


def gaps(matrix: Matrix, cost: Cost, weights: Sequence[float]) -> Figure:
    """The gap of every task, and on how many tasks each learner is the best."""
    figure = canvas(13, 5.5, "What choosing a learner for each task can bring")
    left, right = figure.subplots(1, 2)
    height = 0.8 / len(weights)
    for place, weight in enumerate(weights):
        problem = matrix.problem(weight, cost)
        interval, above = gap(problem)
        name = (
            f"lambda {weight:g}: {100 * interval.mean:.1f} "
            f"[{100 * interval.low:.1f}, {100 * interval.high:.1f}] over sources"
        )
        left.plot(100 * np.sort(above)[::-1], color=PALETTE[place], lw=1.8, label=name)
        count = np.bincount(_best(problem), minlength=len(problem.learners))
        rows = np.arange(len(count)) + place * height
        right.barh(rows, count, height, color=PALETTE[place], label=f"lambda {weight:g}")
    left.axhline(0, color="#777777", lw=0.8)
    frame(left, "virtual best above single best", "tasks, sorted", "points of utility")
    left.legend(frameon=False, fontsize=9)
    right.set_yticks(np.arange(len(matrix.learners)) + 0.4, matrix.learners, fontsize=8)
    right.invert_yaxis()
    right.xaxis.set_major_locator(MaxNLocator(integer=True))
    frame(right, "tasks on which a learner is the best", "tasks", "")
    right.legend(frameon=False, fontsize=9)
    return figure


def main(argv: Sequence[str] | None = None) -> None:
    """Say what a matrix holds, and draw it."""
    parser = Parser(prog="python -m experiments.selection.view", description=main.__doc__)
    parser.add_argument("folder", type=Path, metavar="DIR", help="folder of the matrix")
    parser.add_argument("--cost", choices=("passes", "seconds"), default="passes")
    parser.add_argument("--weights", type=float, nargs="+", default=WEIGHTS, metavar="LAMBDA")
    given = parser.parse_args(argv)
    matrix = read_matrix(given.folder)
    print("\n".join(told(matrix, given.cost, given.weights)))
    figures = given.folder / "figures"
    print(save(heat_map(matrix), figures / "matrix.png"))
    print(save(gaps(matrix, given.cost, given.weights), figures / "gap.png"))


if __name__ == "__main__":
    from experiments.endings import ended

    sys.exit(ended(["select", "view"], lambda: main() or 0))
