"""Training episodes made ahead: a thread draws and collates the next step while one is trained on.

What a step trains on does not change: an episode is a function of its step, and all of them are
made by the one thread, in the order of the steps.  So a run with a thread ahead of it, one without
and a resumed one see the same bits.  With a curriculum the next tasks depend on the losses of the
last ones: nothing can be made ahead.  Tasks of numbers are drawn in less time than a thread takes
to hand them over.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Self

from tasks.episode import Episode


class Prefetch:
    """A function of the step that is computed ahead of being asked for.

    Outside of a `with` block it computes when it is asked.  Inside, one thread is `ahead` steps in
    front; it ends with the block, however the block ends.

    Args:
        make: The episode of step 0, 1, ...
        stop: The step after the last one that will be asked for.
        ahead: Steps that are made before they are asked for, each of which holds an episode; 0: no
            thread.

    Example:
        >>> with Prefetch(lambda step: step * step, stop=3) as squares:
        ...     [squares(step) for step in range(3)]
        [0, 1, 4]
    """

    def __init__(self, make: Callable[[int], Episode], stop: int, ahead: int = 2) -> None:
        self._make = make
        self._stop = stop
        self._ahead = ahead
        self._pool: ThreadPoolExecutor | None = None
        self._coming: dict[int, Future[Episode]] = {}

    def __call__(self, step: int) -> Episode:
        """The episode of a step; what its making raised is raised here."""
        if self._pool is None:
            return self._make(step)
        wanted = range(step, max(step + 1, min(step + 1 + self._ahead, self._stop)))
        for other in set(self._coming) - set(wanted):  # nobody goes back, unless after an error
            self._coming.pop(other).cancel()
        for next_step in wanted:
            if next_step not in self._coming:
                self._coming[next_step] = self._pool.submit(self._make, next_step)
        return self._coming.pop(step).result()

    def __enter__(self) -> Self:
        if self._ahead:
            self._pool = ThreadPoolExecutor(1, thread_name_prefix="prefetch")
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is None:
            return
        self._pool.shutdown(cancel_futures=True)  # waits for the episode that is being made
        self._pool = None
        self._coming.clear()
