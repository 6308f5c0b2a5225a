"""What allocators make of the tensors that are alive: bytes taken from the system or the card.

    Blocks: sum of ceil(n / b) b           an accelerator's, b = 512; one mapped piece a tensor, b = 4096
    Heap:   sum of h n, n < 32 MB, + n     glibc's malloc as it is, that of a CPU on Linux

PyTorch asks glibc for 64-byte alignment.  `posix_memalign` then looks for n + 112 bytes, cuts n + 16
of them out, and what it cuts off is soon in use for something small: a freed tensor leaves a hole
that is too small for the next one of its size.  An inner loop, whose tensors are many and of few
sizes, so takes h times their bytes, and h was measured.  That this is the cause shows when tensors
are mapped one by one (MALLOC_MMAP_THRESHOLD_=131072): then the process takes their bytes and no more,
and 1.5 times as long, as every page is a new one.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from typing import Protocol

PAGE = 4096
LARGEST = 2**25  # bytes from which on glibc always maps a piece by itself
# h: measured by `python -m experiments.benchmarks.estimate` on five graphs of 60 to 540 MB, where it
# was 2.2 to 2.8 after the first tasks and did not grow further.
FRAGMENTED = 2.6
# Any of these switches off that glibc moves ever larger pieces from maps to the heap.
_FIXED = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TOP_PAD_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_MAX_")


class Allocator(Protocol):
    """Where tensors come from.

    Attributes:
        held: Bytes taken now.
        peak: Most bytes taken at once.
    """

    held: int
    peak: int

    def take(self, size: int) -> None:
        """Room for a tensor of `size` bytes."""
        ...

    def give(self, size: int) -> None:
        """The room of such a tensor, back."""
        ...


class Blocks:
    """Whole blocks, none of them lost.

    Args:
        block: Bytes of a block.

    Example:
        >>> blocks = Blocks(512)
        >>> blocks.take(600)
        >>> blocks.give(600)
        >>> blocks.held, blocks.peak
        (0, 1024)
    """

    def __init__(self, block: int = 1) -> None:
        self.block = block
        self.held = self.peak = 0

    def take(self, size: int) -> None:
        self.held += self._whole(size)
        self.peak = max(self.peak, self.held)

    def give(self, size: int) -> None:
        self.held -= self._whole(size)

    def _whole(self, size: int) -> int:
        return -(-size // self.block) * self.block


class Heap:
    """The heap of glibc, with the holes in it.

    Example:
        >>> heap = Heap()
        >>> heap.take(1000)
        >>> heap.peak
        2600
    """

    def __init__(self) -> None:
        self.held = self.peak = 0

    def take(self, size: int) -> None:
        self.held += self._with_holes(size)
        self.peak = max(self.peak, self.held)

    def give(self, size: int) -> None:
        self.held -= self._with_holes(size)

    def _with_holes(self, size: int) -> int:
        return size if size >= LARGEST else round(FRAGMENTED * size)


def of_this_process(environment: Mapping[str, str] = os.environ) -> Allocator:
    """The allocator of a process on this CPU.

    Example:
        >>> of_this_process({"MALLOC_MMAP_THRESHOLD_": "131072"}).block
        4096
    """
    fixed = any(name in environment for name in _FIXED)
    glibc = platform.libc_ver()[0] == "glibc"
    return Heap() if glibc and not fixed else Blocks(PAGE if fixed else 64)
