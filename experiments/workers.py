"""Processes of one thread each that share work, and end with the process that started them."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context, parent_process
from threading import Thread
from typing import Any


def pool(
    workers: int, begin: Callable[..., object] | None = None, *arguments: Any
) -> ProcessPoolExecutor:
    """Processes that have begun, to map over.

    A worker of the standard library waits for ever for a process that was killed; these end.

    Args:
        workers: How many.
        begin: Is called in each of them first, if anything is.
        arguments: Of `begin`.
    """
    context = get_context("spawn")  # a forked torch may wait for threads that are not there
    return ProcessPoolExecutor(workers, context, _begin, (begin, arguments))


def _begin(begin: Callable[..., object] | None, arguments: tuple[Any, ...]) -> None:
    Thread(target=_end_with_parent, daemon=True).start()
    if begin is not None:
        begin(*arguments)


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
