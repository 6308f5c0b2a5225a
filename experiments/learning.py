"""The settings of learning: inner and outer loop, training tasks, and what single learners have.

Like `experiments.config`, which puts them into an experiment, this module must not import torch.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from experiments.schema import Settings


class InnerSettings(Settings):
    """The inner loop."""

    steps: int = Field(default=5, ge=0)
    """S, gradient steps on the support set."""
    rate: float = 0.1
    """Inner learning rate of the adapter."""
    head_rate: float | None = None
    """Inner learning rate of the head; none: `rate`."""
    parts: tuple[Literal["adapter", "head"], ...] = Field(default=("adapter", "head"), min_length=1)
    """Parts that adapt, where the learner does not say it; for an mlp, adapter is its body."""
    optimizer: Literal["sgd", "momentum", "adam"] = "sgd"
    """Optimizer of the inner steps, differentiated through."""
    momentum: float = Field(default=0.9, ge=0, lt=1)
    """Decay of the momentum optimizer."""
    rates_per: Literal["tensor", "element"] = "element"
    """What has a learned rate of its own in meta-sgd."""
    order: Literal[1, 2] = 2
    """Order of the meta-gradient."""
    first_order_until: float = Field(default=0.0, ge=0, le=1)
    """Fraction of the meta-training in first order before it is in second; maml++ has its own."""
    exact_steps: int | None = Field(default=None, ge=0)
    """Last steps that a second-order gradient goes through in full, the ones before as in first
    order; none: all."""
    gradient: Literal["unrolled", "adjoint"] = "unrolled"
    """Second order by the graph of all steps, or step by step in constant memory; the same to
    rounding."""
    adjoint: Literal["auto", "reverse", "forward"] = "auto"
    """The adjoint's Hessian-vector products: a backward through the backward, or tangents through
    it; auto: the faster one on the device.  The same to rounding."""
    chunks: int = Field(default=1, ge=1)
    """Parts of support and query set whose gradients are taken one by one and summed: less memory,
    the same to rounding.  A graph of unrolled steps holds all parts of the support."""
    engine: Literal["native", "higher", "learn2learn"] = "native"
    """Who takes the inner steps: metalearn, or one task at a time, and to rounding the same, one of
    two libraries; gbml is always run by learn2learn."""
    transform: Literal["kronecker", "curvature", "linear"] = "kronecker"
    """Learnable transform of the gradients in gbml: two Kronecker factors that are positive
    semi-definite, the factors of Meta-Curvature, or a full matrix for each tensor."""
    proximal: float = Field(default=1.0, gt=0)
    """Weight of the proximal term of imaml."""
    solver_steps: int = Field(default=5, ge=1)
    """Steps of conjugate gradients of imaml."""
    context: int = Field(default=4, ge=1)
    """Context parameters of cavia: inputs of an mlp, soft-prompt vectors of a language model; their
    inner rate is `rate`."""
    clamp: float = Field(default=0.0, ge=0)
    """Largest entry of the meta-gradient of a single task in cavia; 0: no limit."""
    epsilon: float = Field(default=0.1, gt=0, le=1)
    """Fraction of the way that reptile-serial goes after each task."""
    tasks_per_pass: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    """Tasks that go through one batched pass and whose graph is held at once; 1: one at a time;
    auto: as many as keep the device busy and fit half of its memory."""


class OuterSettings(Settings):
    """The outer loop."""

    steps: int = Field(default=100, ge=1)
    """Meta-steps."""
    tasks: int = Field(default=4, ge=1)
    """T, tasks a meta-step."""
    rate: float = 1e-3
    """Peak rate of AdamW."""
    schedule: Literal["constant", "cosine"] = "cosine"
    """Shape of the rate after the warm-up."""
    warmup: int = Field(default=10, ge=0)
    """Meta-steps of linear warm-up."""
    weight_decay: float = 0.0
    """Decoupled weight decay of AdamW, towards zero."""
    clip: float = 1.0
    """Largest norm of the meta-gradient; 0: off."""
    validate_every: int = Field(default=20, ge=1)
    """Meta-steps between validations (step 0 and the last step are always validated)."""
    validation_tasks: int = Field(default=40, ge=1)
    """Tasks of a validation, the same every time."""
    patience: int = Field(default=5, ge=0)
    """Validations without a better score before training stops; 0: never."""
    checkpoint_every: int = Field(default=10, ge=1)
    """Meta-steps between checkpoints."""


class SamplingSettings(Settings):
    """What is done with the tasks of meta-training; validation and test tasks never change."""

    curriculum: Literal["none", "difficulty", "progress"] = "none"
    """Which tasks of a pool are trained on: the first ones; by difficulty, from easy to hard; those
    on which the loss changes.  Each training learns it from its own losses."""
    pool: int = Field(default=4, ge=2)
    """Tasks drawn for each one that a curriculum chooses."""
    quantiles: tuple[float, float] = (0.0, 1.0)
    """Quantile of the difficulty in the pool at the first and at the last meta-step."""
    floor: float = Field(default=0.1, gt=0, le=1)
    """Share of the probability that "progress" spreads over all tasks of the pool."""
    fast: float = Field(default=0.3, gt=0, le=1)
    """Rate of the running mean of the loss of each class."""
    slow: float = Field(default=0.05, gt=0, le=1)
    """Rate of a second, slower mean; their distance is the progress of a class."""
    mix: float = Field(default=0.0, ge=0, le=1)
    """Probability that the classes of a task are made of two of its classes each: an example is a
    pair of texts."""
    delete: float = Field(default=0.0, ge=0, le=1)
    """Probability of each word to be left out."""
    swap: float = Field(default=0.0, ge=0, le=1)
    """Probability of each word to change places with another one."""
    duplicate: float = Field(default=0.0, ge=0, le=1)
    """Probability of each word to be written twice."""
    mask: float = Field(default=0.0, ge=0, le=1)
    """Probability of each word to be replaced by the mask token of the backbone."""
    sets: tuple[Literal["support", "query"], ...] = Field(default=("support",), min_length=1)
    """Sets whose words are edited."""

    @field_validator("quantiles")
    @classmethod
    def _shares(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not all(0 <= quantile <= 1 for quantile in value):
            raise ValueError(f"{value[0]} and {value[1]} must be from 0 to 1")
        return value

    @field_validator("slow")
    @classmethod
    def _slower(cls, value: float, info: ValidationInfo) -> float:
        if value >= info.data.get("fast", math.inf):
            raise ValueError(f"{value} must be smaller than fast")
        return value


class BaselineSettings(Settings):
    """Settings that only baselines have."""

    strength: float = 10.0
    """C of logistic regression, the inverse of its regularization."""


class EvolutionSettings(Settings):
    """Evolution strategies."""

    pairs: int = Field(default=8, ge=1)
    """Antithetic pairs a meta-step."""
    deviation: float = Field(default=0.02, gt=0)
    """Standard deviation of the noise on the meta-parameters."""
