"""The search for a learner as a sequential environment: try learners while a budget lasts.

A task arrives with a budget b.  Action a < A tries learner a: its score by cross-validation on the
support set becomes visible and the budget shrinks by its cost; action A stops.  The answer is the
tried learner with the best score, or the single best of training where none was tried, and

    reward = u_{t, answer} - lambda (cost of all that was tried)      at the end, 0 before

with the utility u measured on the query set, which is never shown.  An episode ends when it is
stopped, when `most` learners were tried, or when nothing more is possible: a learner that was tried
already, cannot work on the task or costs more than is left is no possible action, and asking for it
stops.  With `most` = 1 this is the choice of a learner in one step, whose score nobody needs: it
is not tried, and that costs nothing.

An observation is [z, score, tried, possible, left]: scaled features `[F]`; scores in [0, 1] of what
was tried, else 0 `[A]`; what was tried `[A]`; what can be tried `[A]`; share of the budget left.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from metalearn.selection.problem import Problem
from metalearn.selection.scale import LIMIT, Scale, Unit

try:
    import gymnasium
except ImportError as error:  # pragma: no cover
    raise ImportError("searching needs gymnasium: pip install 'metalearn[selection]'") from error


class Search(gymnasium.Env):
    """Tasks of a problem, one an episode, drawn by chance.

    `reset(options={"task": row})` takes a certain task; the `info` of every step says which actions
    are possible (`action_mask`), and that of the last one the `answer` and what was `spent`.

    Args:
        problem: Its tasks, with `tries` unless `most` is 1.
        budget: b, in the unit of the problem's costs; infinite: no bound.
        most: Learners tried at most; None: all.
        reference: Tasks of training, from which scales and the single best come; None: `problem`.

    Raises:
        ValueError: If the score of a try is needed and not known, the budget is not positive, no
            learner may be tried, or the reference has other learners.

    Example:
        >>> from metalearn.selection.problem import Problem
        >>> problem = Problem(
        ...     ("one",), ("s",), ("cheap", "dear"), ("ways",), np.array([[2.0]]),
        ...     np.array([[[0.5, 0.9]]]), np.array([[1.0, 3.0]]), np.array([[0.4, 0.8]]),
        ... )
        >>> search = Search(problem, budget=4.0)
        >>> observation, _ = search.reset(seed=0)
        >>> search.step(0)[0].round(1)
        array([0. , 0.4, 0. , 1. , 0. , 0. , 1. , 0.8], dtype=float32)
        >>> search.step(1)[1], search.answer
        (0.9, 1)
    """

    metadata = {"render_modes": []}  # noqa: RUF012 (gymnasium's own form)

    def __init__(
        self,
        problem: Problem,
        budget: float = np.inf,
        most: int | None = None,
        reference: Problem | None = None,
    ) -> None:
        reference = problem if reference is None else reference
        size = len(problem.learners)
        self.most = size if most is None else most
        if reference.learners != problem.learners:
            raise ValueError("the reference has other learners than the problem")
        if self.most < 1 or not budget > 0:
            raise ValueError(f"most {most} and budget {budget} must be at least 1 and above 0")
        self.problem, self.budget = problem, float(budget)
        self._price = problem.price if self.most > 1 else 0.0
        self._features = Scale.of(reference.features)(problem.features)
        self._able, self._utilities = problem.able, problem.mean
        # With one try there is nothing to compare its score with.
        self._tries = problem.scores if self.most > 1 else np.zeros_like(problem.costs)
        known = reference.scores if self.most > 1 else np.zeros(1)
        # Scores are shown as they are where they are shares, as accuracies are.
        self._score = Unit(min(0.0, float(known.min())), max(1.0, float(known.max())))
        self._default = reference.single_best
        edge = np.concatenate([np.full(self._features.shape[1], LIMIT), np.ones(3 * size + 1)])
        low = np.concatenate([np.full(self._features.shape[1], -LIMIT), np.zeros(3 * size + 1)])
        self.observation_space = gymnasium.spaces.Box(low.astype(np.float32), edge.astype("f4"))
        self.action_space = gymnasium.spaces.Discrete(size + 1)

    @property
    def answer(self) -> int:
        """The learner that is taken if the search ends now."""
        if not self._tried.any():
            able = self._able[self._task]
            return self._default if able[self._default] else int(np.argmax(able))
        return int(np.argmax(np.where(self._tried, self._tries[self._task], -np.inf)))

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        chosen = (options or {}).get("task")
        count = len(self.problem.tasks)
        self._task = int(self.np_random.integers(count) if chosen is None else chosen)
        self._tried, self._spent = np.zeros(len(self.problem.learners), bool), 0.0
        return self._observation(), self._info()

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        possible = self._possible()
        stopped = action == len(possible) or not possible[action]
        if not stopped:
            self._tried[action] = True
            self._spent += self.problem.costs[self._task, action]
        ended = stopped or self._tried.sum() >= self.most or not self._possible().any()
        reward = 0.0
        if ended:
            # u_{t, answer} - lambda (cost of all that was tried)
            reward = float(self._utilities[self._task, self.answer] - self._price * self._spent)
        return self._observation(), reward, bool(ended), False, self._info()

    def action_mask(self) -> np.ndarray:
        """Which actions are possible `[A + 1]`; to stop always is."""
        return np.append(self._possible(), True).astype(np.int8)

    def _possible(self) -> np.ndarray:
        left = self.budget - self._spent
        affordable = self.problem.costs[self._task] <= left
        return ~self._tried & self._able[self._task] & affordable

    def _observation(self) -> np.ndarray:
        scores = [
            self._score(score) if tried else 0.0
            for score, tried in zip(self._tries[self._task], self._tried, strict=True)
        ]
        left = 1.0 if np.isinf(self.budget) else 1 - self._spent / self.budget
        parts = [self._features[self._task], scores, self._tried, self._possible(), [left]]
        return np.concatenate(parts).astype(np.float32)

    def _info(self) -> dict[str, Any]:
        return {"action_mask": self.action_mask(), "answer": self.answer, "spent": self._spent}
