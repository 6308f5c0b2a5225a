"""The functional model that algorithms see: values and a batch in, features, logits and losses out.

`Model` is the interface; `AdaptedModel` is a frozen language model with an adapter and a head.
Every value carries the task axis T, so that each task of a batch has parameters of its own.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from meta_models.adapters import Adapter
from meta_models.errors import ModelError
from meta_models.heads import Head, linear, prototypes
from meta_models.params import Params, part, pick
from tasks.episode import IGNORE, Batch, Tokens

GROUP = 32  # rows of one length group over all tasks: fewer pad less, more keep products large

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
            real = batch.example_mask
        else:
            target = item_labels(batch)
            error = cross_entropy(
                outputs.transpose(1, 2), target, ignore_index=IGNORE, reduction="none"
            )
            real = target != IGNORE
        return (error * real).sum(1) / real.sum(1).clamp(min=1)


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
        self.dtype = next(adapter.backbone.model.parameters()).dtype

    def init(self, generator: torch.Generator) -> Params:
        values = self.adapter.init(generator)
        head = {name: v.to(self.dtype) for name, v in self.head.init(generator).items()}
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
        if batch.kind == "token":
            tokens = _filled(batch.tokens)
            states = self._hidden(values, tokens, self._known(tokens)).flatten(1, 2)
            return _unit(states) if self.unit else states
        return self._pooled(values, batch.tokens)

    def logits(self, values: Params, batch: Batch, features: Tensor | None = None) -> Tensor:
        if features is None:
            features = self.features(values, batch)
        return linear(values, features, batch.class_mask)

    def _pooled(self, values: Params, tokens: Tokens) -> Tensor:
        """`[T, B, D]`, computed in groups of rows of like length so that little padding is."""
        tokens = _filled(tokens)
        known = self._known(tokens)
        lengths = tokens.mask.sum(-1)
        order = lengths.argsort(dim=1, descending=True, stable=True)
        parts = []
        for rows in order.split(max(4, GROUP // len(order)), dim=1):
            width = int(lengths.gather(1, rows).max())
            group = _rows(tokens, rows, width)
            below = None if known is None else _taken(known, rows, width)
            parts.append(self._pool(self._hidden(values, group, below), group.mask))
        back = order.argsort(dim=1).unsqueeze(-1)
        grouped = torch.cat(parts, dim=1)
        features = grouped.gather(1, back.expand_as(grouped))
        return _unit(features) if self.unit else features

    def _pool(self, states: Tensor, mask: Tensor) -> Tensor:
        if self.pooling == "mean":
            weight = mask.unsqueeze(-1).to(states.dtype)
            return (states * weight).sum(2) / weight.sum(2)
        if self.pooling == "first":
            return states[:, :, 0]
        last = (mask.sum(-1) - 1)[..., None, None]
        return states.gather(2, last.expand(-1, -1, 1, states.shape[-1])).squeeze(2)

    def _known(self, tokens: Tokens) -> Tensor | None:
        return None if self.trunk is None else self.trunk.states(tokens)

    def _hidden(self, values: Params, tokens: Tokens, known: Tensor | None) -> Tensor:
        """`[T, B, L, D]`: the tasks of a batch by vmap, a single task without it."""
        adapter = {n.split(".", 1)[1]: v for n, v in values.items() if part(n) == "adapter"}
        context = values["context.vectors"] if self.context else None
        segments = tokens.segments
        if tokens.ids.shape[0] == 1:
            states = self.adapter.hidden(
                {name: value[0] for name, value in adapter.items()},
                tokens.ids[0],
                tokens.mask[0],
                None if segments is None else segments[0],
                None if context is None else context[0],
                None if known is None else known[0],
            )
            return states.unsqueeze(0)
        if not self.batched:
            raise ModelError(
                f"adapter {self.adapter.method!r} runs one task at a time; "
                "set inner.tasks_per_pass to 1"
            )
        inputs = (adapter, tokens.ids, tokens.mask, segments, context, known)
        dims = tuple(None if x is None else 0 for x in inputs)
        return torch.vmap(self.adapter.hidden, in_dims=dims)(*inputs)


def _unit(features: Tensor) -> Tensor:
    """Features of length one; one that is exactly zero stays zero, and has no derivative.

    A padded example of a decoder is: its padding token is embedded as zero.  The second derivative
    of a length at zero would be NaN.
    """
    nothing = (features == 0).all(-1, keepdim=True)
    return normalize(features.where(~nothing, 1.0), dim=-1).where(~nothing, 0.0)


def _filled(tokens: Tokens) -> Tokens:
    """Rows without tokens (padding) see their first one.

    Attention over nothing would be NaN, and so would be the second derivative of a mean over
    nothing that is scaled to unit length.
    """
    first = torch.zeros_like(tokens.mask)
    first[..., 0] = ~tokens.mask.any(-1)
    return replace(tokens, mask=tokens.mask | first)


def _rows(tokens: Tokens, rows: Tensor, width: int) -> Tokens:
    """The given rows of each task, cut to `width` tokens."""
    segments = None if tokens.segments is None else _taken(tokens.segments, rows, width)
    return Tokens(_taken(tokens.ids, rows, width), _taken(tokens.mask, rows, width), segments)


def _taken(tensor: Tensor, rows: Tensor, width: int) -> Tensor:
    """`[T, R, width, ...]` of `tensor` `[T, B, L, ...]`, for rows `[T, R]`."""
    tasks = torch.arange(len(rows), device=rows.device).unsqueeze(1)
    return tensor[tasks, rows, :width]
