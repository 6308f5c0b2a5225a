"""A folder that `metalearn adapt` writes: its record, writing it whole, and reading it.

`experiments.adaptation` writes it, `experiments.prediction` reads it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from safetensors import SafetensorError
from torch import Tensor

from experiments.errors import UserError
from tasks.collate import Collator
from tasks.episode import Batch, Example, Task

RECORD = "metalearn.json"
TEXTS_PER_PASS = 64  # of a prediction: the hidden states of 64 short texts are a few MB


class Adapted(Protocol):
    """What `adapt` wrote, read: texts in, logits out.

    Attributes:
        labels: Class names, in the order of the logits.
        text_b: Column of the second text; empty: single texts.
    """

    labels: tuple[str, ...]
    text_b: str

    def logits(self, examples: Sequence[Example]) -> Tensor:
        """`[I, N]` logits of examples; their labels are not looked at."""
        ...


def batch_of(collator: Collator, examples: Sequence[Example], labels: Sequence[str]) -> Batch:
    """Examples as the batch of one task.

    Args:
        collator: Tokenizes them.
        examples: Records with distinct ids.
        labels: Names of the classes, in the order of the logits.
    """
    ids = tuple(range(len(labels)))
    task = Task("examples", "class", tuple(examples), (), tuple(labels), ids)
    return collator.collate([task], [0]).support


def refuse_occupied(output: Path) -> None:
    """An `--output` must not exist, or be empty.

    Raises:
        UserError: If it holds something.
    """
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UserError(f"{output} exists and is not empty; choose another --output")


@contextmanager
def written_whole(output: Path) -> Iterator[Path]:
    """A folder beside the place of another, and moved there once it is whole.

    Args:
        output: The place.

    Yields:
        The folder to write into.

    Raises:
        UserError: If another process has written there.
    """
    temporary = output.with_name(f".{output.name}-{os.getpid()}.tmp")
    temporary.mkdir(parents=True)
    try:
        yield temporary
        refuse_occupied(output)  # another process may have been faster
        os.replace(temporary, output)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def undamaged(folder: Path) -> Iterator[None]:
    """Read the files of a folder; what is wrong with them becomes a line.

    Raises:
        UserError: If one is damaged.
    """
    try:
        yield
    except (KeyError, TypeError, ValueError, OSError, SafetensorError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{folder} is damaged ({reason}); write it again with adapt") from None
