"""The functional model that algorithms see: values and a batch in, features, logits and losses out.

`Model` is the interface; `AdaptedModel` is a frozen language model with an adapter and a head.
Every value carries the task axis T, so that each task of a batch has parameters of its own.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections import OrderedDict
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize
from torch.utils._pytree import tree_map

from meta_models.activations import Closed
from meta_models.adapters import Adapter
from meta_models.checkpointing import Checkpoints, recomputed
from meta_models.errors import ModelError
from meta_models.heads import Head, linear, prototypes
from meta_models.layout import Layout, LayoutKind, Rows, arrange
from meta_models.params import Params, part, pick
from meta_models.targets import layers_of
from tasks.episode import IGNORE, Batch, Tokens

# Batches whose layout is kept: the tasks at work have support (in some parts), query and names.
ARRANGED = 8

_log = logging.getLogger(__name__)


class Model(ABC):
    """What an algorithm may ask of a model.

    Attributes:
        encoder: Parts of the values that features depend on: "adapter" or "body", and "context"
            where the model takes one.
        batched: Whether several tasks can go through one forward pass.
    """

    encoder: tuple[str, ...]
    batched: bool

    @abstractmethod
    def init(self, generator: torch.Generator) -> Params:
        """Fresh meta-parameters, without a task axis."""

    @abstractmethod
    def start(self, meta: Params, support: Batch, features: Tensor | None = None) -> Params:
        """Values that the inner loop starts from, a differentiable function of `meta`.

        Args:
            meta: Meta-parameters with a task axis.
            support: Support sets; a head may be made from them.
            features: Features of the support, if they are known.
        """

    def shapes(self, state: Params) -> dict[str, tuple[int, ...]]:
        """Shape of each value that can adapt, without task and class axes.

        Args:
            state: Meta-parameters, without a task axis.
        """
        return {n: tuple(v.shape) for n, v in state.items() if part(n) in (*self.encoder, "head")}

    @abstractmethod
    def features(self, values: Params, batch: Batch) -> Tensor:
        """`[T, I, D]` features of the items (examples, or tokens for token labels)."""

    @abstractmethod
    def logits(self, values: Params, batch: Batch, features: Tensor | None = None) -> Tensor:
        """`[T, I, N]` logits, or `[T, B, O]` predicted values; `features` saves computing them."""

    def loss(self, values: Params, batch: Batch, features: Tensor | None = None) -> Tensor:
        """`[T]` mean loss over the real items of each task: cross-entropy, or squared error."""
        outputs = self.logits(values, batch, features)
        if batch.kind == "value":
            assert batch.values is not None
            error = (outputs - batch.values.to(outputs.dtype)).square().mean(-1)
        else:
            error = cross_entropy(
                outputs.transpose(1, 2),
                item_labels(batch),
                ignore_index=IGNORE,
                reduction="none",
            )
        real = real_items(batch)
        return (error * real).sum(1) / real.sum(1).clamp(min=1)


def real_items(batch: Batch) -> Tensor:
    """`[T, I]` which items have something to be judged by: a label, or values."""
    return batch.example_mask if batch.kind == "value" else item_labels(batch) != IGNORE


def item_labels(batch: Batch) -> Tensor:
    """`[T, I]` label of every item: of the examples, or of the tokens one after the other."""
    if batch.kind == "class" and batch.labels is not None:
        return batch.labels
    if batch.kind == "token" and batch.token_labels is not None:
        return batch.token_labels.flatten(1)
    raise ModelError(f"a batch of kind {batch.kind!r} has no class labels for this head")


class AdaptedModel(Model):
    """A frozen backbone with an adapter and a linear head.

    features(theta, x) = pool(hidden(theta_adapter, x)), scaled to unit length if `unit`;
    logits = scale * (features W^T + b).  With a context phi `[n, D]` (a soft prompt), the vectors
    e + phi_1, ..., e + phi_n come before the embeddings of x, with e a neutral one; phi is no
    meta-parameter: it is zero at the start of every task.

    Args:
        adapter: The installed adapter with its backbone.
        head: The head.
        pooling: "mean" over real tokens, "first" or "last" real token; None: mean for encoders,
            last for decoders.
        unit: Scale features to unit length.
        context: n, vectors of a context that tasks adapt; 0: none.
        keep_trunk: Keep what the layers below the first adapter make of each text.
        layout: How texts lie in rows; "packed" becomes "grouped" where it would not be exact.
        checkpoint: Keep no activations, compute them again for each gradient: layer by layer where
            a task runs alone, of the whole backbone where several run at once.

    Attributes:
        layout: How they do lie.
    """

    def __init__(
        self,
        adapter: Adapter,
        head: Head,
        *,
        pooling: str | None = None,
        unit: bool = True,
        context: int = 0,
        keep_trunk: bool = True,
        layout: LayoutKind = "packed",
        checkpoint: bool = False,
    ) -> None:
        self.encoder = ("adapter", "context") if context else ("adapter",)
        self.context = context
        self.adapter = adapter
        self.head = head
        self.pooling = pooling or ("last" if adapter.backbone.causal else "mean")
        if self.pooling not in ("mean", "first", "last"):
            raise ModelError(f"no pooling {self.pooling!r}; known: mean, first, last")
        self.unit = unit
        self.trunk = adapter.trunk if keep_trunk and not context else None
        self.batched = adapter.batched
        self.layout: LayoutKind = layout
        if layout == "packed" and (why := "a context" if context else adapter.unpackable):
            _log.info("texts are padded in groups, not packed: %s", why)
            self.layout = "grouped"
        self._closed = Closed(adapter.backbone.model)
        self._checkpoints = Checkpoints(layers_of(adapter.backbone)) if checkpoint else None
        self._arranged: OrderedDict[int, tuple[Tokens, Layout]] = OrderedDict()

    def init(self, generator: torch.Generator) -> Params:
        values = self.adapter.init(generator)
        to = self.adapter.backbone.device, self.adapter.backbone.kind
        head = {name: value.to(*to) for name, value in self.head.init(generator).items()}
        return {f"adapter.{name}": value for name, value in values.items()} | head

    def start(self, meta: Params, support: Batch, features: Tensor | None = None) -> Params:
        centers = None
        classes = support.class_mask.shape[1]
        if self.context:
            shape = (support.tasks, self.context, self.head.width)
            meta = {"context.vectors": meta["scale"].new_zeros(shape)} | meta
        if self.head.kind == "prototype":
            if features is None:
                features = self.features(meta, support)
            centers = prototypes(features, item_labels(support), classes)
        elif self.head.kind == "label":
            if support.names is None:
                raise ModelError("a label head needs label names; these tasks have none")
            centers = self._pooled(meta, support.names)
        return pick(meta, (*self.encoder, "scale")) | self.head.start(meta, centers, classes)

    def shapes(self, state: Params) -> dict[str, tuple[int, ...]]:
        # The head is made for each task: its classes are no axis that tasks share.
        return super().shapes(state) | {"head.weight": (self.head.width,), "head.bias": ()}

    def features(self, values: Params, batch: Batch) -> Tensor:
        if batch.tokens is None:
            raise ModelError("a language model needs text; these tasks have numbers")
        if batch.kind != "token":
            return self._pooled(values, batch.tokens)
        layout = self.arrange(batch.tokens)
        states = _at(self._states(values, layout), layout.place.flatten(1))
        return _unit(states) if self.unit else states

    def logits(self, values: Params, batch: Batch, features: Tensor | None = None) -> Tensor:
        if features is None:
            features = self.features(values, batch)
        return linear(values, features, batch.class_mask)

    def arrange(self, tokens: Tokens) -> Layout:
        """The rows that texts are computed in, with what the layers below make of them.

        A function of the texts alone: worked out once for a batch, not for every inner step.

        Args:
            tokens: `[T, B, L]` token ids.
        """
        if (known := self._arranged.get(id(tokens))) is None:
            known = tokens, self._arrange(tokens)
            self._arranged[id(tokens)] = known  # with the tokens, whose id may else be used again
            while len(self._arranged) > ARRANGED:
                self._arranged.popitem(last=False)
        return known[1]

    def _arrange(self, tokens: Tokens) -> Layout:
        if self.trunk is None:
            return arrange(tokens, self.layout)
        layout = arrange(tokens, self.layout, self.trunk.states(tokens))
        return replace(layout, rows=tuple(map(self.trunk.prepared, layout.rows)))

    def _pooled(self, values: Params, tokens: Tokens) -> Tensor:
        """`[T, B, D]`; zero for texts without tokens."""
        layout = self.arrange(tokens)
        states = self._states(values, layout)
        lengths = layout.lengths
        if self.pooling == "mean":
            texts = torch.arange(lengths.shape[1], device=states.device).unsqueeze(-1)
            member = (layout.text.unsqueeze(1) == texts).to(states.dtype)
            features = member @ states / lengths.clamp(min=1).unsqueeze(-1)
        else:
            last = (lengths - 1).clamp(min=0) if self.pooling == "last" else lengths * 0
            place = layout.place.gather(2, last.unsqueeze(-1)).squeeze(-1)
            features = _at(states, place) * (lengths > 0).unsqueeze(-1)
        return _unit(features) if self.unit else features

    def _states(self, values: Params, layout: Layout) -> Tensor:
        """`[T, P, D]` last hidden states at every place of a layout."""
        backbone = self.adapter.backbone
        adapter = {n.split(".", 1)[1]: v for n, v in pick(values, ("adapter",)).items()}
        context = values["context.vectors"].to(backbone.dtype) if self.context else None
        states = [self._hidden(adapter, context, rows).flatten(1, 2) for rows in layout.rows]
        # A backbone of half precision ends here: pooling, head and loss have that of the values.
        return torch.cat(states, dim=1).to(backbone.kind)

    def _hidden(self, adapter: Params, context: Tensor | None, rows: Rows) -> Tensor:
        """`[T, R, W, D]`: the tasks of a batch by vmap, a single task without it."""
        inputs = (
            adapter,
            rows.ids,
            rows.mask,
            rows.segments,
            context,
            rows.constants,
            rows.packing,
        )
        kept = self._checkpoints
        if rows.ids.shape[0] == 1:
            with self._closed.active(), kept.active() if kept else nullcontext():
                return self.adapter.hidden(*map(_only, inputs)).unsqueeze(0)
        if not self.batched:
            raise ModelError(
                f"adapter {self.adapter.method!r} runs one task at a time; "
                "set inner.tasks_per_pass to 1"
            )
        dims = tuple(None if x is None else 0 for x in inputs)
        hidden = torch.vmap(self.adapter.hidden, in_dims=dims)
        return recomputed(hidden, *inputs) if kept else hidden(*inputs)


def _only(values: Any) -> Any:
    """The only task of some values that carry a task axis."""
    return tree_map(lambda value: None if value is None else value[0], values)


def _at(states: Tensor, place: Tensor) -> Tensor:
    """`[T, I, D]` states at the places `[T, I]` of `[T, P, D]`."""
    return states.gather(1, place.unsqueeze(-1).expand(-1, -1, states.shape[-1]))


def _unit(features: Tensor) -> Tensor:
    """Features of length one; one that is exactly zero stays zero, and has no derivative.

    A padded example is.  The second derivative of a length at zero would be NaN.
    """
    nothing = (features == 0).all(-1, keepdim=True)
    return normalize(features.where(~nothing, 1.0), dim=-1).where(~nothing, 0.0)
