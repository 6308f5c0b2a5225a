"""Bandits: exact steps, what they learn from, and that they see nothing else."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from metalearn.selection.epsilon_greedy import EpsilonGreedy
from metalearn.selection.exp3 import EXP3
from metalearn.selection.linear_thompson import LinearThompson
from metalearn.selection.linucb import LinUCB
from metalearn.selection.online import Online, Tally
from metalearn.selection.problem import Problem
from metalearn.selection.ridge import Ridge
from metalearn.selection.thompson import Thompson, bernoulli, gaussian
from metalearn.selection.ucb1 import UCB1, bounds

CONTEXTUAL: dict[str, Callable[[], Online]] = {
    "epsilon-greedy": EpsilonGreedy,
    "linucb": LinUCB,
    "linear-thompson": LinearThompson,
}
FREE: dict[str, Callable[[], Online]] = {
    "ucb1": lambda: UCB1(width=0.3),
    "thompson": Thompson,
    "thompson-bernoulli": lambda: Thompson("bernoulli"),
    "exp3": EXP3,
}
EVERY = CONTEXTUAL | FREE


def linear_problem(tasks: int = 600, seed: int = 0) -> Problem:
    """Three learners, the first two of which are best by the sign of the first feature."""
    random = np.random.default_rng(seed)
    features = random.standard_normal((tasks, 2)) * 10 + 50
    lean = (features[:, 0] - 50) / 10
    mean = np.stack([lean, -lean, np.full(tasks, -1.0)], 1)
    utilities = (mean + 0.1 * random.standard_normal((tasks, 3)))[None]
    names = tuple(f"t{i}" for i in range(tasks))
    return Problem(
        names, names, ("a", "b", "c"), ("lean", "noise"), features, utilities, np.ones((tasks, 3))
    )


def constant_problem(tasks: int = 1500) -> Problem:
    """Learner b is always the best."""
    random = np.random.default_rng(1)
    mean = np.array([0.2, 0.8, 0.4])
    utilities = (random.random((1, tasks, 3)) < mean).astype(float)
    names = tuple(f"t{i}" for i in range(tasks))
    features = random.standard_normal((tasks, 1))
    return Problem(names, names, ("a", "b", "c"), ("x",), features, utilities, np.ones((tasks, 3)))


def chosen(policy: Online, problem: Problem) -> np.ndarray:
    return np.array([policy.choose(row, np.ones(3, bool)) for row in problem.features])


@pytest.mark.parametrize("name", CONTEXTUAL)
def test_contextual_bandits_learn_whom_a_feature_favours(name: str) -> None:
    policy = CONTEXTUAL[name]()
    policy.fit(linear_problem(), seed=0)
    fresh = linear_problem(200, seed=1)
    best = fresh.mean.argmax(1)
    assert (chosen(policy, fresh) == best).mean() > 0.9


@pytest.mark.parametrize("name", EVERY)
def test_bandits_find_the_best_arm(name: str) -> None:
    policy = EVERY[name]()
    policy.fit(constant_problem(), seed=0)
    assert (chosen(policy, constant_problem(100)) == 1).mean() > 0.8


@pytest.mark.parametrize("name", EVERY)
def test_where_nothing_is_learned_nothing_is_explored(name: str) -> None:
    policy = EVERY[name]()
    problem = linear_problem() if name in CONTEXTUAL else constant_problem()
    policy.fit(problem, seed=0)
    able = np.ones((50, 3), bool)
    first = policy.choose_all(problem.features[:50], able)
    np.testing.assert_array_equal(first, policy.choose_all(problem.features[:50], able))
    if name in CONTEXTUAL:
        assert (first == problem.mean[:50].argmax(1)).mean() > 0.9
    else:
        assert (first == 1).all()
    able[:, 1] = False
    assert (policy.choose_all(problem.features[:50], able) != 1).all()


@pytest.mark.parametrize("name", EVERY)
def test_only_the_outcomes_of_its_choices_reach_a_bandit(name: str) -> None:
    """What was not chosen may be anything, within the range that it is told."""
    problem, seen = linear_problem(150), []
    policy = EVERY[name]()
    told = policy.learn
    policy.learn = lambda features, choice, utility: (  # type: ignore[method-assign]
        seen.append(choice),
        told(features, choice, utility),
    )[1]
    policy.fit(problem, seed=3)
    rows = np.random.default_rng(3).permutation(150)
    other = problem.utilities.copy()
    low, high = other.min(), other.max()
    mask = np.ones((150, 3), bool)
    mask[rows, seen] = False
    other[0][mask] = np.random.default_rng(5).uniform(low, high, mask.sum())
    # The range itself is what a bandit is told.
    hidden = np.argwhere(mask)
    other[0][tuple(hidden[0])], other[0][tuple(hidden[1])] = low, high
    changed = Problem(
        problem.tasks,
        problem.sources,
        problem.learners,
        problem.feature_names,
        problem.features,
        other,
        problem.costs,
    )
    again = EVERY[name]()
    again.fit(changed, seed=3)
    assert (chosen(again, problem) == chosen(policy, problem)).all()


@pytest.mark.parametrize("name", EVERY)
def test_only_who_is_able_is_chosen_and_the_seed_decides(name: str) -> None:
    problem, able = constant_problem(60), np.array([True, False, True])
    runs = []
    for _ in range(2):
        policy = EVERY[name]()
        policy.fit(problem, seed=7)
        choices = [policy.choose(problem.features[0], able) for _ in range(30)]
        assert 1 not in choices
        runs.append(choices)
    assert runs[0] == runs[1]


def test_ridge_grows_into_the_closed_form() -> None:
    random = np.random.default_rng(0)
    examples, outcomes = random.standard_normal((30, 4)), random.standard_normal(30)
    ridge = Ridge(2, 4, penalty=0.5)
    for x, y in zip(examples, outcomes, strict=True):
        ridge.note(1, x, y)
    matrix = 0.5 * np.eye(4) + examples.T @ examples
    np.testing.assert_allclose(ridge.inverse[1], np.linalg.inv(matrix))
    np.testing.assert_allclose(ridge.theta[1], np.linalg.solve(matrix, examples.T @ outcomes))
    np.testing.assert_allclose(ridge.growth[1], np.linalg.slogdet(matrix / 0.5)[1])
    np.testing.assert_allclose(ridge.theta[0], 0)
    x = random.standard_normal((2, 4))
    wanted = [x[0] @ x[0] / 0.5, x[1] @ np.linalg.inv(matrix) @ x[1]]
    np.testing.assert_allclose(ridge.variance(x), wanted)


def test_linucb_takes_the_largest_bound() -> None:
    policy = LinUCB(shared=True, penalty=2.0, noise=0.3, norm=1.5, delta=0.05)
    policy.start(2, 4, seed=0)
    examples = np.array([[1.0, 0.5], [0.2, 1.0]])
    for arm, outcome in ((0, 0.4), (1, 0.9), (0, 0.5)):
        policy.learn(examples.reshape(-1), arm, outcome)
    taken = examples[[0, 1, 0]]
    matrix = 2 * np.eye(2) + taken.T @ taken
    theta = np.linalg.solve(matrix, taken.T @ np.array([0.4, 0.9, 0.5]))
    beta = 0.3 * np.sqrt(2 * np.log(20) + np.log(np.linalg.det(matrix) / 4)) + 2**0.5 * 1.5
    width = np.sqrt(np.einsum("ad,de,ae->a", examples, np.linalg.inv(matrix), examples))
    found = policy._worth(examples.reshape(-1), np.ones(2, bool))
    np.testing.assert_allclose(found, examples @ theta + beta * width)


def test_the_draws_of_thompson_sampling_are_the_posteriors() -> None:
    tally, random = Tally(20_000, 1), np.random.default_rng(0)
    tally.pulls[:], tally.sums[:] = 10, 7
    ones = bernoulli(tally, random)
    assert ones.mean() == pytest.approx(8 / 12, abs=0.005)
    assert ones.var() == pytest.approx(8 * 4 / (12**2 * 13), rel=0.05)
    numbers = gaussian(tally, random, noise=0.5)
    assert numbers.mean() == pytest.approx((0.5 * 4 + 7 * 4) / 44, abs=0.005)
    assert numbers.var() == pytest.approx(1 / 44, rel=0.05)


def test_ucb1_pulls_every_arm_first_and_follows_its_formula() -> None:
    policy = UCB1()
    policy.start(3, 0, seed=0)
    first = []
    for outcome in (0.1, 0.9, 0.5):
        first.append(policy.choose(np.zeros(0), np.ones(3, bool)))
        policy.learn(np.zeros(0), first[-1], outcome)
    assert first == [0, 1, 2]
    tally = Tally(2)
    for arm, outcome in ((0, 1.0), (0, 0.0), (1, 1.0)):
        tally.note(arm, outcome)
    wanted = [0.5 + 0.7 * np.sqrt(np.log(3)), 1 + 0.7 * np.sqrt(2 * np.log(3))]
    np.testing.assert_allclose(bounds(tally, 3, width=0.7, prior=0), wanted)


def test_the_step_of_exp3_is_that_of_the_paper() -> None:
    policy = EXP3(mix=0.2)
    policy.start(4, 0, seed=0)
    able = np.ones(4, bool)
    arm = policy.choose(np.zeros(0), able)
    np.testing.assert_allclose(policy.chances(able), 0.25)
    policy.learn(np.zeros(0), arm, 0.5)
    weights = np.ones(4)
    weights[arm] = np.exp(0.2 * (0.5 / 0.25) / 4)
    np.testing.assert_allclose(policy.chances(able), 0.8 * weights / weights.sum() + 0.05)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Thompson(noise=0.0),
        lambda: Thompson("poisson"),  # type: ignore[arg-type]
        lambda: EXP3(mix=0.0),
        lambda: EpsilonGreedy(explore=-1.0),
        lambda: LinUCB(delta=1.0),
        lambda: LinearThompson(noise=0.0),
        lambda: Ridge(1, 1, penalty=0.0),
        lambda: LinUCB(shared=True).start(3, 4, seed=0),
    ],
)
def test_settings_without_meaning_are_refused(make: Callable[[], object]) -> None:
    with pytest.raises(ValueError):
        make()
