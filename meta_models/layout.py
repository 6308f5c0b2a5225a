"""Where the tokens of a batch lie while the encoder computes them: in rows, packed or padded.

Short texts padded to the longest are mostly padding.  Packed, several texts of a task share a row,
each sees itself alone, and every linear layer computes real tokens only:

    a_ij = 0 if text_i = text_j else -inf,    position_i counts from the beginning of its text

The rows of a task hold no token of another task, so that they go through `torch.vmap` like texts.
Rows are filled by first fit, longest texts first (Johnson 1973, "Near-Optimal Bin Packing
Algorithms", section 2), and their width is the one that costs least.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from tasks.episode import Tokens

LayoutKind = Literal["packed", "grouped", "padded"]
"""packed: several texts a row; grouped: a text a row, rows of like length together; padded: a text
a row, all as wide as the longest."""

GROUP = 32  # rows of one length group over all tasks: fewer pad less, more keep products large
WIDEST = 128  # tokens in a packed row, unless a single text is longer
# Width of a row at which attention costs as much as the linear layers: 6 D tokens by operations,
# less by what the softmax moves.
EVEN = 512
STRIDE = 16  # tokens between the widths that are tried


class Packing(NamedTuple):
    """What tells the texts of a row apart.

    Attributes:
        text: `[..., R, W]` text that a token belongs to, -1 at padding.
        position: `[..., R, W]` place of a token in its text, from 0.
    """

    text: Tensor
    position: Tensor


@dataclass(frozen=True)
class Rows:
    """Tokens as the encoder computes them.

    Attributes:
        ids: `[T, R, W]` token ids.
        mask: `[T, R, W]` True at real tokens.
        segments: `[T, R, W]` token types, or None.
        packing: Texts and positions, where a row may hold several texts; else None.
        constants: `[T, R, W, D]` what the layers below the first adapter make of them, where known;
            then whatever else is made of that and does not change.
    """

    ids: Tensor
    mask: Tensor
    segments: Tensor | None
    packing: Packing | None
    constants: tuple[Tensor, ...] | None


@dataclass(frozen=True)
class Layout:
    """The rows of a batch, and the way back from them.

    Attributes:
        rows: Groups of rows; P is the number of places in all of them.
        text: `[T, P]` text at each place, -1 at padding.
        place: `[T, B, L]` place of each token; 0 at padding.
        lengths: `[T, B]` tokens of each text.
    """

    rows: tuple[Rows, ...]
    text: Tensor
    place: Tensor
    lengths: Tensor


def arrange(tokens: Tokens, kind: LayoutKind, states: Tensor | None = None) -> Layout:
    """Lay out the texts of T tasks.

    Args:
        tokens: `[T, B, L]` token ids, real tokens first; texts without tokens take no place, or
            one row of padding where a row is a text.
        kind: How.
        states: `[T, B, L, D]` hidden states to begin with, laid out like the tokens.

    Example:
        >>> ids = torch.tensor([[[5, 6, 7, 8], [3, 4, 0, 0], [9, 0, 0, 0]]])
        >>> rows = arrange(Tokens(ids, ids > 0), "packed").rows[0]
        >>> rows.ids.tolist()
        [[[5, 6, 7, 8], [3, 4, 9, 5]]]
        >>> rows.packing.text.tolist(), rows.packing.position.tolist()
        ([[[0, 0, 0, 0], [1, 1, 2, -1]]], [[[0, 1, 2, 3], [0, 1, 0, 0]]])
    """
    lengths = tokens.mask.sum(-1)
    known = lengths.cpu().numpy()
    grids = {"packed": _packed, "grouped": _grouped, "padded": _padded}[kind](known)
    device, tasks = tokens.ids.device, len(known)
    place = np.zeros(tuple(tokens.ids.shape), dtype=np.int64)
    rows, first = [], 0
    for text, position in grids:
        t, r, w = np.nonzero(text >= 0)
        place[t, text[t, r, w], position[t, r, w]] = first + r * text.shape[2] + w
        first += text.shape[1] * text.shape[2]
        where = torch.from_numpy(text).to(device), torch.from_numpy(position).to(device)
        rows.append(_take(tokens, states, *where, packed=kind == "packed"))
    flat = np.concatenate([text.reshape(tasks, -1) for text, _ in grids], axis=1)
    to_places = torch.from_numpy(place).to(device)
    return Layout(tuple(rows), torch.from_numpy(flat).to(device), to_places, lengths)


def _take(
    tokens: Tokens, states: Tensor | None, text: Tensor, position: Tensor, *, packed: bool
) -> Rows:
    # Padding shows some real token: whatever it computes stays finite and is never read.
    index = text.clamp(min=0), position
    tasks = torch.arange(len(text), device=text.device)[:, None, None]
    return Rows(
        tokens.ids[tasks, *index],
        text >= 0,
        None if tokens.segments is None else tokens.segments[tasks, *index],
        Packing(text, position) if packed else None,
        None if states is None else (states[tasks, *index],),
    )


Grid = tuple[np.ndarray, np.ndarray]
"""Text (-1 at padding) and position at each place of `[T, R, W]`."""


def _packed(lengths: np.ndarray) -> list[Grid]:
    longest = max(1, int(lengths.max()))
    best: list[list[list[int]]] = []
    least = np.inf
    for width in range(longest, max(longest, WIDEST) + 1, STRIDE):
        filled = [first_fit(task.tolist(), width) for task in lengths]
        cost = max(map(len, filled)) * width * (1 + width / EVEN)
        if cost < least:
            best, least, widest = filled, cost, width
    shape = (len(lengths), max(1, *map(len, best)), widest)
    text, position = np.full(shape, -1), np.zeros(shape, dtype=np.int64)
    for task, rows in enumerate(best):
        for row, members in enumerate(rows):
            sizes = lengths[task, members]
            end = int(sizes.sum())
            text[task, row, :end] = np.repeat(members, sizes)
            starts = np.repeat(np.cumsum(sizes) - sizes, sizes)
            position[task, row, :end] = np.arange(end) - starts
    return [(text, position)]


def first_fit(lengths: Sequence[int], width: int) -> list[list[int]]:
    """Texts of each row: the longest first, each into the first row with room for it.

    Args:
        lengths: Tokens of each text; a text without tokens gets no row.
        width: Tokens of a row.

    Example:
        >>> first_fit([2, 5, 3, 0, 4], 6)
        [[1], [4, 0], [2]]
    """
    rows: list[list[int]] = []
    room: list[int] = []
    for text in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        size = lengths[text]
        if not size:
            break
        row = next((row for row, free in enumerate(room) if free >= size), len(rows))
        if row == len(rows):
            rows.append([])
            room.append(width)
        rows[row].append(text)
        room[row] -= size
    return rows


def _grouped(lengths: np.ndarray) -> list[Grid]:
    order = np.argsort(-lengths, axis=1, kind="stable")
    size = max(4, GROUP // len(order))
    return [
        _one_a_row(order[:, first : first + size], lengths)
        for first in range(0, order.shape[1], size)
    ]


def _padded(lengths: np.ndarray) -> list[Grid]:
    return [_one_a_row(np.arange(lengths.shape[1])[None].repeat(len(lengths), 0), lengths)]


def _one_a_row(texts: np.ndarray, lengths: np.ndarray) -> Grid:
    """Rows of one text each, `texts` `[T, R]`, as wide as the longest of them."""
    sizes = np.take_along_axis(lengths, texts, 1)[..., None]
    position = np.arange(max(1, int(sizes.max())))
    real = position < sizes
    return np.where(real, texts[..., None], -1), np.where(real, position, 0)
