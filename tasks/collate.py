"""From drawn tasks to one `Episode` of padded, stacked tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tasks.episode import IGNORE, Batch, Episode, Example, Task, TaskError, Tokens

Key = tuple[str, str, int]
"""Family name, kind and record id: what tokens are kept under."""


def label_text(name: str) -> str:
    """A label name as a phrase: lower case, underscores and hyphens read as spaces.

    Example:
        >>> label_text("Card_payment-fee_charged")
        'card payment fee charged'
    """
    words = name.lower().replace("_", " ").replace("-", " ").split()
    return " ".join(words) or name


@dataclass(frozen=True, slots=True)
class _Encoding:
    """Kept tokens of one example (or, with `example` None, of one label name).

    Attributes:
        example: What was tokenized, to notice other data under the same family name and id.
        ids: `[L]` token ids.
        segments: `[L]` 0 or 1, None unless the example is a pair.
        starts: Positions of the tokens that begin a word (kind "token").
        words: Which word begins there.
        targets: `[L']` token ids of the target (kind "sequence").
    """

    example: Example | None
    ids: np.ndarray
    segments: np.ndarray | None = None
    starts: np.ndarray | None = None
    words: tuple[int, ...] = ()
    targets: np.ndarray | None = None


class Collator:
    """Pads tasks into episodes; every record of a source is tokenized once and kept.

    N and K may vary between the tasks of an episode.  Support and query are padded separately, to
    the longest sequence that occurs in each, and always on the right.  A target sequence carries
    no special tokens but a final end-of-sequence token where the tokenizer has one.

    Args:
        tokenizer: A Hugging Face fast tokenizer; None for kind "value".  For kind "token" a
            byte-level one (GPT-2, RoBERTa) wants `add_prefix_space=True`, or words are glued.
        max_length: Longest sequence in tokens; longer texts are cut.

    Example:
        >>> from tasks.episode import EpisodeShape, TaskStream
        >>> from tasks.sources.sinusoid import Sinusoid
        >>> stream = TaskStream(Sinusoid(), "train", EpisodeShape(shots=(2, 9)), seed=0)
        >>> tasks = stream.tasks([0, 1])
        >>> [len(task.support) for task in tasks]
        [8, 9]
        >>> episode = Collator(None).collate(tasks, [0, 1])
        >>> episode.support.inputs.shape, episode.support.example_mask.sum(1).tolist()
        (torch.Size([2, 9, 1]), [8, 9])
    """

    def __init__(self, tokenizer: Any, *, max_length: int = 128) -> None:
        self.tokenizer = tokenizer
        self.max_length = max_length
        # A decoder may have no pad token: any id will do, the mask is False there.
        self._pad = getattr(tokenizer, "pad_token_id", None) or 0
        self._kept: dict[Key, _Encoding] = {}
        self._kept_names: dict[str, _Encoding] = {}

    def collate(self, tasks: Sequence[Task], indices: Sequence[int]) -> Episode:
        """The tasks as one episode.

        Args:
            tasks: T tasks of the same kind.
            indices: Position of each task in its stream.

        Raises:
            TaskError: If the kinds differ, there is no task, or a text has no tokens.
        """
        if not tasks or len(tasks) != len(indices):
            raise TaskError(f"{len(tasks)} tasks with {len(indices)} indices make no episode")
        kinds = sorted({task.kind for task in tasks})
        if len(kinds) > 1:
            raise TaskError(f"an episode cannot mix the kinds {kinds}; collate each kind by itself")
        names = None
        if kinds[0] != "value":
            if self.tokenizer is None:
                raise TaskError(f"kind {kinds[0]!r} needs a tokenizer; give the backbone's")
            self._tokenize(tasks)
        if kinds[0] in ("class", "token"):
            names = self._names(tasks)
        support = self._batch(tasks, [task.support for task in tasks], names)
        query = self._batch(tasks, [task.query for task in tasks], names)
        self._forget_made(tasks)
        return Episode(tuple(indices), support, query)

    def _batch(
        self, tasks: Sequence[Task], rows: Sequence[Sequence[Example]], names: Tokens | None
    ) -> Batch:
        kind = tasks[0].kind
        classes = [task.class_ids for task in tasks]
        class_ids = _stack(classes, -1)
        batch = {
            "source": tuple(task.source for task in tasks),
            "kind": kind,
            "ids": _stack([[example.id for example in row] for row in rows], -1),
            "example_mask": _stack([[True] * len(row) for row in rows], False),
            "class_mask": _stack([[True] * len(row) for row in classes], False),
            "class_ids": class_ids,
            "label_names": tuple(task.label_names for task in tasks),
            "names": names,
        }
        if kind == "value":
            batch["inputs"] = _numbers(rows, lambda example: example.inputs)
            batch["values"] = _numbers(rows, lambda example: example.values)
            return Batch(**batch)
        kept = [
            [self._lookup((task.source, kind, example.id), example) for example in row]
            for task, row in zip(tasks, rows, strict=True)
        ]
        batch["tokens"] = self._pad_tokens(
            [[item.ids for item in row] for row in kept],
            [[item.segments for item in row] for row in kept],
        )
        if kind == "class":
            batch["labels"] = _class_labels(tasks, rows)
        elif kind == "token":
            batch["token_labels"] = _token_labels(tasks, kept, batch["tokens"].ids.shape)
        else:
            batch["targets"] = self._pad_tokens(
                [[item.targets for item in row if item.targets is not None] for row in kept]
            )
        return Batch(**batch)

    def _pad_tokens(
        self,
        rows: Sequence[Sequence[np.ndarray]],
        segments: Sequence[Sequence[np.ndarray | None]] | None = None,
    ) -> Tokens:
        """Sequences of varying length in rows of varying number as `[T, B, L]`."""
        shape = (
            len(rows),
            max(len(row) for row in rows),
            max((len(item) for row in rows for item in row), default=0),
        )
        ids = np.full(shape, self._pad, dtype=np.int64)
        mask = np.zeros(shape, dtype=bool)
        for t, row in enumerate(rows):
            for b, item in enumerate(row):
                ids[t, b, : len(item)] = item
                mask[t, b, : len(item)] = True
        second = None
        if segments and any(item is not None for row in segments for item in row):
            second = np.zeros(shape, dtype=np.int64)
            for t, parts in enumerate(segments):
                for b, part in enumerate(parts):
                    if part is not None:
                        second[t, b, : len(part)] = part
        return Tokens(
            torch.from_numpy(ids),
            torch.from_numpy(mask),
            None if second is None else torch.from_numpy(second),
        )

    def _names(self, tasks: Sequence[Task]) -> Tokens:
        """Tokens of the label names, `[T, N, L]`."""
        names = {name for task in tasks for name in task.label_names}
        new = sorted(name for name in names if name not in self._kept_names)
        if new:
            encoded = self._encode([label_text(name) for name in new])["input_ids"]
            for name, ids in zip(new, encoded, strict=True):
                self._kept_names[name] = _Encoding(None, np.asarray(ids, dtype=np.int64))
        return self._pad_tokens(
            [[self._kept_names[name].ids for name in task.label_names] for task in tasks]
        )

    def _tokenize(self, tasks: Sequence[Task]) -> None:
        """Tokenize and keep what is new among the examples, in one call for each kind of input."""
        kind = tasks[0].kind
        new: dict[Key, Example] = {}
        for task in tasks:
            for example in (*task.support, *task.query):
                key = (task.source, kind, example.id)
                if key not in self._kept or not _same(self._kept[key].example, example):
                    new[key] = example
        singles = {key: example for key, example in new.items() if example.text_b is None}
        pairs = {key: example for key, example in new.items() if example.text_b is not None}
        for group in (singles, pairs):
            examples = list(group.values())
            if examples and kind == "token":
                self._keep(group, self._encode_words(examples))
            elif examples:
                self._keep(group, self._encode_texts(examples, kind == "sequence"))

    def _keep(self, examples: Mapping[Key, Example], encodings: Sequence[_Encoding]) -> None:
        for (key, example), encoding in zip(examples.items(), encodings, strict=True):
            if not len(encoding.ids):
                raise TaskError(
                    f"{key[0]!r}, record {example.id}: the tokenizer finds no token in "
                    f"{example.text[:40]!r}; remove the record"
                )
            self._kept[key] = encoding

    def _forget_made(self, tasks: Sequence[Task]) -> None:
        """Drop the tokens of augmented examples: few come again, and there is no end of them."""
        for task in tasks:
            for example in (*task.support, *task.query):
                if example.origins:
                    self._kept.pop((task.source, task.kind, example.id), None)

    def _lookup(self, key: Key, example: Example) -> _Encoding:
        if not _same(self._kept[key].example, example):
            raise TaskError(
                f"two families of one episode are named {key[0]!r}, and record {key[2]} differs "
                "between them; give each family its own name"
            )
        return self._kept[key]

    def _encode(self, texts: Sequence[Any], pairs: Sequence[str] | None = None, **options) -> Any:
        return self.tokenizer(
            list(texts), pairs, truncation=True, max_length=self.max_length, **options
        )

    def _encode_texts(self, examples: Sequence[Example], sequence: bool) -> list[_Encoding]:
        """Encodings of single texts, or of pairs (all examples alike), with their targets."""
        texts = [example.text for example in examples]
        second = [example.text_b for example in examples if example.text_b is not None]
        segments: Any = [None] * len(texts)
        if second and not self._separates_pairs():
            texts = [f"{a}\n{b}" for a, b in zip(texts, second, strict=True)]
            second = []
        encoded = self._encode(texts, second or None)
        if second and "token_type_ids" in encoded:
            segments = [np.asarray(row, dtype=np.int64) for row in encoded["token_type_ids"]]
        targets: Any = [None] * len(texts)
        if sequence:
            targets = self._encode_targets([example.targets[0] for example in examples])
        ids = [np.asarray(row, dtype=np.int64) for row in encoded["input_ids"]]
        return [
            _Encoding(example, ids[i], segments[i], targets=targets[i])
            for i, example in enumerate(examples)
        ]

    def _separates_pairs(self) -> bool:
        """Whether the tokenizer marks the border of a pair (plain GPT-2 ones do not)."""
        count = self.tokenizer.num_special_tokens_to_add
        return count(pair=True) > count(pair=False)

    def _encode_targets(self, texts: Sequence[str]) -> list[np.ndarray]:
        end = getattr(self.tokenizer, "eos_token_id", None)
        tail = [] if end is None else [end]
        encoded = self._encode(texts, add_special_tokens=False)["input_ids"]
        room = self.max_length - len(tail)
        return [np.asarray([*row[:room], *tail], dtype=np.int64) for row in encoded]

    def _encode_words(self, examples: Sequence[Example]) -> list[_Encoding]:
        """Encodings of word sequences, with the token at which each word begins."""
        words = [example.text.split(" ") for example in examples]
        encoded = self._encode(words, is_split_into_words=True)
        encodings = []
        for i, example in enumerate(examples):
            first: dict[int, int] = {}
            for position, word in enumerate(encoded.word_ids(i)):
                if word is not None:
                    first.setdefault(word, position)
            ids = np.asarray(encoded["input_ids"][i], dtype=np.int64)
            starts = np.fromiter(first.values(), dtype=np.int64, count=len(first))
            encodings.append(_Encoding(example, ids, starts=starts, words=tuple(first)))
        return encodings


def _same(kept: Example | None, example: Example) -> bool:
    """Whether kept tokens are those of `example`; identity is the usual, cheap answer."""
    return kept is example or kept == example


def _stack(rows: Sequence[Sequence[Any]], fill: Any) -> Tensor:
    """Rows of varying length as one int64 (or bool) `[T, B]`."""
    dtype = bool if isinstance(fill, bool) else np.int64
    stacked = np.full((len(rows), max(len(row) for row in rows)), fill, dtype=dtype)
    for t, row in enumerate(rows):
        stacked[t, : len(row)] = row
    return torch.from_numpy(stacked)


def _numbers(
    rows: Sequence[Sequence[Example]], field: Callable[[Example], tuple[float, ...]]
) -> Tensor:
    """A numeric field as float32 `[T, B, F]`, zero at padding."""
    widths = {len(field(example)) for row in rows for example in row} or {0}
    if len(widths) > 1:
        raise TaskError(f"numeric examples of one episode differ in width: {sorted(widths)}")
    stacked = np.zeros((len(rows), max(len(row) for row in rows), *widths), dtype=np.float32)
    for t, row in enumerate(rows):
        for b, example in enumerate(row):
            stacked[t, b] = field(example)
    return torch.from_numpy(stacked)


def _class_labels(tasks: Sequence[Task], rows: Sequence[Sequence[Example]]) -> Tensor:
    """Position of each example's class among the classes of its task, `[T, B]`."""
    labels = []
    for task, row in zip(tasks, rows, strict=True):
        position = {name: c for c, name in enumerate(task.label_names)}
        labels.append([position[example.label or ""] for example in row])
    return _stack(labels, IGNORE)


def _token_labels(
    tasks: Sequence[Task], kept: Sequence[Sequence[_Encoding]], shape: torch.Size
) -> Tensor:
    """Tag of the first token of each word, IGNORE elsewhere, `[T, B, L]`."""
    labels = np.full(tuple(shape), IGNORE, dtype=np.int64)
    for t, (task, row) in enumerate(zip(tasks, kept, strict=True)):
        position = {name: c for c, name in enumerate(task.label_names)}
        for b, item in enumerate(row):
            tags = item.example.token_labels if item.example else ()
            labels[t, b, item.starts] = [position[tags[word]] for word in item.words]
    return torch.from_numpy(labels)
