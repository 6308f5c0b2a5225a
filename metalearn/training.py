"""The one meta-training loop: outer AdamW, schedule, clipping, validation, early stopping.

The loop is an object that takes one step at a time, so that whoever runs it (a command, a
notebook, a test) decides what to log and when to save.  Everything it knows is in `snapshot`, and
step k draws the tasks k*T .. (k+1)*T of its stream, or those that a curriculum chooses from what it
knows, so that a restored loop goes on bit for bit.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from meta_models.params import Params, norm
from metalearn.distributed import ALONE, World, meta_gradient, refuse_coupled
from metalearn.learner import Learner, Metrics
from tasks.curriculum import Curriculum
from tasks.episode import Episode


class NonFiniteLoss(ArithmeticError):
    """The loss or a meta-gradient became infinite or NaN; the last good state is kept."""


@dataclass(frozen=True)
class OuterLoop:
    """Settings of the outer loop.

    Attributes:
        steps: Meta-steps.
        tasks: T, tasks a meta-step.
        rate: Peak rate beta of AdamW.
        schedule: Shape of the rate after the warm-up.
        warmup: Meta-steps of linear warm-up.
        weight_decay: Decoupled weight decay of AdamW.
        clip: Largest norm of the meta-gradient; 0 switches clipping off.
        validate_every: Meta-steps between validations.
        patience: Validations without a better score before training stops; 0: never.
    """

    steps: int = 100
    tasks: int = 4
    rate: float = 1e-3
    schedule: Literal["constant", "cosine"] = "cosine"
    warmup: int = 10
    weight_decay: float = 0.0
    clip: float = 1.0
    validate_every: int = 20
    patience: int = 0

    def rate_at(self, step: int) -> float:
        """Rate of meta-step `step` = 0, 1, ...: linear warm-up, then constant or half a cosine.

        Example:
            >>> loop = OuterLoop(steps=110, warmup=10, rate=1.0)
            >>> [round(loop.rate_at(step), 2) for step in (0, 9, 60, 110)]
            [0.1, 1.0, 0.5, 0.0]
        """
        if step < self.warmup:
            return self.rate * (step + 1) / self.warmup
        if self.schedule == "constant":
            return self.rate
        done = (step - self.warmup) / max(1, self.steps - self.warmup)
        return self.rate * 0.5 * (1 + math.cos(math.pi * done))


class MetaTraining:
    """Meta-training of one learner.

    Args:
        learner: What is trained.
        episodes: The T tasks of a meta-step, by step: a pure function without a curriculum.
        validate: Score of a state on held-out tasks, larger is better; None: no validation, and
            the last state counts as the best.
        loop: Settings.
        generator: Draws the initial state.
        curriculum: Chooses the tasks of `episodes`; it learns from their losses, and what it has
            learned is part of a snapshot.  Then a step is a function of what was before it.
        world: The processes that share the tasks of every step; all of them make the same object.

    Raises:
        ModelError: If there are several processes, and the tasks of the learner cannot be shared.

    Attributes:
        state: Meta-parameters after `step` meta-steps.
        best: Meta-parameters with the best validation score so far.
        step: Meta-steps done.
    """

    def __init__(
        self,
        learner: Learner,
        episodes: Callable[[int], Episode],
        validate: Callable[[Params], float] | None,
        loop: OuterLoop,
        generator: torch.Generator,
        curriculum: Curriculum | None = None,
        world: World = ALONE,
    ) -> None:
        refuse_coupled(learner, type(learner).__name__, world)
        self.learner = learner
        self.loop = loop
        self.step = 0
        self.state = {
            name: value.clone(memory_format=torch.contiguous_format)
            for name, value in learner.init(generator).items()
        }
        self.best = {n: v.clone() for n, v in self.state.items()}
        self.best_score = -math.inf
        self.best_step = 0
        self._episodes = episodes
        self._validate = validate
        self._curriculum = curriculum
        self._world = world
        self._stale = 0
        self._slopes = {name: torch.empty_like(value) for name, value in self.state.items()}
        self._optimizer = torch.optim.AdamW(
            # Fused: all values in one call; one by one they would cost as much as a small model.
            # On a CPU it takes values and gradients by their place in memory, whatever their
            # strides: both are contiguous here.
            self.state.values(),
            lr=loop.rate,
            weight_decay=loop.weight_decay,
            fused=True,
        )

    @property
    def done(self) -> bool:
        """Whether all steps are done or patience has run out."""
        patience = self.loop.patience
        return self.step >= self.loop.steps or (patience > 0 and self._stale >= patience)

    def take_step(self) -> Metrics:
        """One meta-step, with a validation where one is due.

        That of the start is due with the second step, so that nobody waits for it to see the
        first, or with the first where the second has one of its own.

        Returns:
            Its figures: loss, gradient_norm, rate, seconds, validation where done, and with a
            curriculum the mean score of the tasks it chose.

        Raises:
            NonFiniteLoss: If the loss or the meta-gradient is not finite; the state stays.
            TypeError: If there is a curriculum, but the learner gives no losses of single tasks.
        """
        began = time.perf_counter()
        figures: Metrics = {}
        if self.step == (1 if min(self.loop.validate_every, self.loop.steps) > 2 else 0):
            figures |= self._score_start()
        episode = self._episodes(self.step)
        gradient, metrics = meta_gradient(
            self.learner, self.state, episode, self.step / self.loop.steps, self._world
        )
        losses = metrics.pop("losses", None)
        if self._curriculum is not None and losses is None:
            name = type(self.learner).__name__
            raise TypeError(f"{name} gives no losses of single tasks for a curriculum")
        size = float(norm(gradient))
        if not (math.isfinite(metrics["loss"]) and math.isfinite(size)):
            raise NonFiniteLoss(
                f"loss {metrics['loss']}, meta-gradient norm {size} at meta-step "
                f"{self.step + 1}; the state before it is kept: lower inner.rate or outer.rate"
            )
        rate = self.loop.rate_at(self.step)
        shrink = min(1.0, self.loop.clip / (size + 1e-12)) if self.loop.clip > 0 else 1.0
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        for name, value in self.state.items():
            value.grad = torch.mul(gradient[name], shrink, out=self._slopes[name])
        self._optimizer.step()
        if self._curriculum is not None:
            figures["task_score"] = self._curriculum.observe(episode.index, losses)
        self.step += 1
        if self.step % self.loop.validate_every == 0 or self.step == self.loop.steps:
            figures |= self._score()
        seconds = time.perf_counter() - began
        return metrics | {"gradient_norm": size, "rate": rate, "seconds": seconds} | figures

    def _score_start(self) -> Metrics:
        """Validate the state before the first step, which is the best so far, unless it is done."""
        if self._validate is None or math.isfinite(self.best_score):
            return {}
        self.best_score = self._validate(self.best)
        return {"validation": self.best_score, "best": self.best_score}

    def _score(self) -> Metrics:
        """Validate the state; keep it if it is the best so far."""
        if self._validate is None:
            self.best = {name: value.clone() for name, value in self.state.items()}
            self.best_step = self.step
            return {}
        score = self._validate(self.state)
        if score > self.best_score:
            self.best_score, self.best_step, self._stale = score, self.step, 0
            self.best = {name: value.clone() for name, value in self.state.items()}
        else:
            self._stale += 1
        return {"validation": score, "best": self.best_score}

    def snapshot(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """All that the rest of the training depends on: tensors, and numbers for JSON."""
        tensors = {f"state/{n}": v.detach().clone() for n, v in self.state.items()}
        tensors |= {f"best/{n}": v.detach().clone() for n, v in self.best.items()}
        for name, value in self.state.items():
            for key, item in self._optimizer.state.get(value, {}).items():
                tensors[f"optimizer/{key}/{name}"] = item.detach().clone()
        numbers = {
            "step": self.step,
            "best_score": self.best_score if math.isfinite(self.best_score) else None,
            "best_step": self.best_step,
            "stale": self._stale,
        }
        if self._curriculum is not None:
            numbers["curriculum"] = self._curriculum.state()
        return tensors, numbers

    def restore(self, tensors: dict[str, Tensor], numbers: dict[str, Any]) -> None:
        """Go back to a snapshot."""
        for name, value in self.state.items():
            value.detach().copy_(tensors[f"state/{name}"])
            self.best[name] = tensors[f"best/{name}"].to(value, copy=True)
            self._optimizer.state[value] = {
                # AdamW counts its steps on the CPU, wherever the values are.
                key.split("/", 2)[1]: item.to(value.device if item.dim() else "cpu", copy=True)
                for key, item in tensors.items()
                if key.startswith("optimizer/") and key.split("/", 2)[2] == name
            }
        self.step = numbers["step"]
        score = numbers["best_score"]
        self.best_score = -math.inf if score is None else score
        self.best_step = numbers["best_step"]
        self._stale = numbers["stale"]
        if self._curriculum is not None:
            self._curriculum.restore(numbers["curriculum"])
