"""From settings to the inner loop: its parts and rates, its optimizer, and who takes its steps."""

from __future__ import annotations

from collections.abc import Sequence

from experiments.config import Experiment
from experiments.learning import InnerSettings
from meta_models.errors import ModelError
from metalearn.inner.engines import Engine
from metalearn.inner.higher_engine import Higher
from metalearn.inner.learn2learn_engine import Learn2Learn
from metalearn.inner.loop import InnerLoop
from metalearn.inner.optimizers import SGD, Adam, Momentum


def build_loop(
    experiment: Experiment, parts: Sequence[str] | None = None, order: int = 1
) -> InnerLoop:
    """The inner loop that settings describe.

    Args:
        experiment: The settings.
        parts: "adapter", "head" or "context", or several; None: those of `inner.parts`.
        order: Order of the meta-gradient that will be taken through it.

    Raises:
        ModelError: If the attention has no second derivative or the layers are sharded, and one is
            needed; if the engine cannot run such a loop, or checkpointing not such an adjoint.
    """
    inner, backbone = experiment.inner, experiment.backbone
    parts = parts or inner.parts
    fused = backbone.attention != "eager" and backbone.name != "mlp"
    if order == 2 and fused and {"adapter", "context"} & set(parts):
        raise ModelError(
            f"attention {backbone.attention!r} has no second derivative; "
            "use --backbone.attention eager, or --inner.order 1"
        )
    adjoint = inner.adjoint
    if backbone.checkpoint and adjoint != "reverse":
        if adjoint == "forward":
            raise ModelError(
                "backbone.checkpoint computes again in reverse only; "
                "leave out --inner.adjoint forward"
            )
        adjoint = "reverse"
    if order == 2 and backbone.shard:
        raise ModelError(
            "second order needs the weights of sharded layers again when they are gone; "
            "use --inner.order 1, or --backbone.no-shard"
        )
    head = inner.rate if inner.head_rate is None else inner.head_rate
    body = "body" if backbone.name == "mlp" else "adapter"
    rates = {
        "adapter": (body, inner.rate),
        "head": ("head", head),
        "context": ("context", inner.rate),
    }
    optimizers = {"sgd": SGD(), "momentum": Momentum(inner.momentum), "adam": Adam()}
    return InnerLoop(
        steps=inner.steps,
        rates=dict(rates[part] for part in parts),
        optimizer=optimizers[inner.optimizer],
        exact_steps=inner.exact_steps,
        gradient=inner.gradient,
        adjoint=adjoint,
        chunks=inner.chunks,
        engine=build_engine(inner),
    )


def build_engine(inner: InnerSettings) -> Engine | None:
    """The library that takes the inner steps; None: metalearn itself.

    Example:
        >>> build_engine(InnerSettings(engine="higher"))
        Higher()
    """
    engines = {"native": None, "higher": Higher(), "learn2learn": Learn2Learn()}
    return engines[inner.engine]
