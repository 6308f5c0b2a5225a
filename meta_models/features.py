"""Features under one adapter for all tasks: in one pass, or computed once a record and kept."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from meta_models.clock import charge, now
from meta_models.model import Model
from meta_models.params import Params, pick, stack
from tasks.episode import Batch, Tokens


def shared_features(model: Model, meta: Params, batch: Batch) -> Tensor:
    """`[T, B, D]` features when all tasks share the parameters: T x B rows of one task.

    Args:
        model: The functional model.
        meta: Parameters without a task axis.
        batch: Class batch of T tasks.
    """
    rows = _one_task(batch)
    found = model.features(stack(pick(meta, model.encoder), 1), rows)
    return found.view(*batch.ids.shape, -1)


def _one_task(batch: Batch) -> Batch:
    assert batch.tokens is not None

    def flat(tensor: Tensor) -> Tensor:
        return tensor.reshape(1, -1, *tensor.shape[2:])

    tokens = batch.tokens
    segments = None if tokens.segments is None else flat(tokens.segments)
    return replace(
        batch,
        ids=flat(batch.ids),
        example_mask=flat(batch.example_mask),
        tokens=Tokens(flat(tokens.ids), flat(tokens.mask), segments),
    )


class FeatureStore:
    """Features of frozen parameters, computed once a record.

    Evaluation draws the same records again and again; a learner that does not change its encoder
    needs each of them once.  The store empties itself when it is asked with other parameters.  What
    it finds is charged to the clock (`meta_models.clock`).

    Args:
        model: The functional model.
    """

    def __init__(self, model: Model) -> None:
        self.model = model
        self._meta: Params = {}
        self._rows: dict[tuple[str, int], Tensor] = {}
        self._seconds: dict[tuple[str, int], float] = {}

    @torch.no_grad()
    def features(self, meta: Params, batch: Batch) -> Tensor:
        """`[T, B, D]` features without a gradient; padded examples are zero.

        Args:
            meta: Parameters without a task axis.
            batch: Class batch.
        """
        self._forget_others(pick(meta, self.model.encoder))
        places = [
            (task, row, (batch.source[task], record))
            for task, records in enumerate(batch.ids.tolist())
            for row, record in enumerate(records)
            if record >= 0
        ]
        missing = {key: (t, b) for t, b, key in places if key not in self._rows}
        charge(sum(self._seconds[key] for key in {key for *_, key in places} - missing.keys()))
        if missing:
            began = now()
            task, row = (
                torch.tensor(index, device=batch.ids.device)
                for index in zip(*missing.values(), strict=True)
            )
            self._rows.update(zip(missing, self._compute(batch, task, row), strict=True))
            self._seconds |= dict.fromkeys(missing, (now() - began) / len(missing))
        sample = next(iter(self._rows.values()))
        result = sample.new_zeros(*batch.ids.shape, sample.shape[-1])
        for task, row, key in places:
            result[task, row] = self._rows[key]
        return result

    def _compute(self, batch: Batch, task: Tensor, row: Tensor) -> Tensor:
        assert batch.tokens is not None
        tokens = batch.tokens
        segments = None if tokens.segments is None else tokens.segments[task, row][None]
        rows = replace(
            batch,
            ids=batch.ids[task, row][None],
            example_mask=batch.example_mask[task, row][None],
            tokens=Tokens(tokens.ids[task, row][None], tokens.mask[task, row][None], segments),
        )
        return self.model.features(stack(self._meta, 1), rows)[0]

    def _forget_others(self, meta: Params) -> None:
        """Empty the store unless `meta` has the very values it was filled with."""
        same = meta.keys() == self._meta.keys() and all(
            torch.equal(value, self._meta[name]) for name, value in meta.items()
        )
        if not same:
            self._rows.clear()
            self._seconds.clear()
            self._meta = {name: value.detach().clone() for name, value in meta.items()}
