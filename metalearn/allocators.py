"""What allocators make of the tensors that are alive: bytes taken from the system or the card.

    Blocks: sum of ceil(n / b) b     an accelerator's, b = 512; pages, b = 4096
    Heap:   sum of h n               glibc's malloc as it comes, that of a CPU on Linux

PyTorch asks glibc for 64-byte alignment.  `posix_memalign` then looks for n + 112 bytes, cuts
n + 16 of them out, and keeps what it cuts off for something small, in the cache of the thread or in
a fast bin, where nothing is joined with its neighbours: a freed tensor leaves a hole that is too
small for the next one of its size.  The many tensors of few sizes that an inner loop makes so take
h times their bytes, and h was measured.  Without that cache and those bins (`JOINED`) what was cut
off is joined with the hole again, and without holes the process takes the bytes of its tensors.  So
it does where glibc maps every tensor by itself (MALLOC_MMAP_THRESHOLD_=131072), but there every
page is a new one, which takes longer.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from typing import Protocol

PAGE = 4096
ALIGNED = 64  # bytes that every tensor of PyTorch is aligned to on a CPU
LARGEST = 2**25  # bytes from which on glibc always maps a piece by itself
# h is calibrated, not derived: the mean of three graphs of `experiments.benchmarks.estimate`, whose
# other rows were kept out. It was seen from 1.6 to 2.8, and moves with what the code around the
# tensors allocates: measure again where a few hundred MB matter, or have the tensors mapped.
FRAGMENTED = 2.2
JOINED = "glibc.malloc.tcache_count=0:glibc.malloc.mxfast=0"
"""GLIBC_TUNABLES of a process whose heap has next to no holes; read when it starts."""
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
        2200
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
        >>> of_this_process({"GLIBC_TUNABLES": JOINED}).block
        64
    """
    if any(name in environment for name in _FIXED):
        return Blocks(PAGE)
    tuned = environment.get("GLIBC_TUNABLES", "").split(":")
    joined = all(setting in tuned for setting in JOINED.split(":"))
    glibc = platform.libc_ver()[0] == "glibc"
    return Heap() if glibc and not joined else Blocks(ALIGNED)
