"""Being asked to stop: by SIGTERM, as schedulers do before they take a machine, or by SIGINT.

What can go on later hears the first signal and stops at its next boundary, where its work is saved:
a meta-step, a batch of test tasks.  A second signal ends the process at once, which loses no more
than `kill -9` does: what is done since the last checkpoint, and is done again.

Under `torchrun` a signal that one process has heard stops all of them, at the same boundary.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

from experiments.errors import Stopped

if TYPE_CHECKING:
    from metalearn.distributed import World

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Terminated(KeyboardInterrupt):
    """SIGTERM, where there is nothing to save."""


class _Heard:
    """What this process has heard; signals are of a process, and so is this."""

    name = ""
    listening = False


_heard = _Heard()


@contextmanager
def terminable() -> Iterator[Callable[[], bool]]:
    """Let SIGTERM unwind the stack, like SIGINT: what is half made is cleared away.

    Yields:
        Says whether it has: libraries may turn what is raised into a plain KeyboardInterrupt.

    Raises:
        Terminated: Where the signal comes; a second one ends the process at once.
    """
    heard = False

    def terminate(*_: object) -> NoReturn:
        nonlocal heard
        heard = True
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        raise Terminated

    with _handling({signal.SIGTERM: terminate}):
        yield lambda: heard


@contextmanager
def deferred() -> Iterator[None]:
    """Hold SIGTERM and SIGINT back until `check` or `asked` is called; also a decorator.

    Inside of another one, and in a thread that is not the main one, it does nothing: signals are
    then somebody else's to hear.

    Example:
        >>> with deferred():
        ...     signal.raise_signal(signal.SIGTERM)
        ...     asked()
        True
        >>> asked()
        False
    """
    if _heard.listening:
        yield
        return
    with _handling(dict.fromkeys(SIGNALS, _hear)) as handled:
        _heard.listening = handled
        try:
            yield
        finally:
            _heard.listening, _heard.name = False, ""


def asked(world: World | None = None) -> bool:
    """Whether this process has been asked to stop, or any other of its world.

    Args:
        world: The processes, all of which ask here together; None: this one alone.
    """
    own = bool(_heard.name)
    return own if world is None else world.any(own)


def check(world: World | None = None) -> None:
    """Stop here, if that is asked for.

    Args:
        world: The processes, all of which check here together; None: this one alone.

    Raises:
        Stopped: If this process, or another one of its world, has heard a signal.
    """
    if asked(world):
        raise Stopped(_heard.name or "a signal to another process")


@contextmanager
def _handling(handlers: dict[signal.Signals, Any]) -> Iterator[bool]:
    """Handle signals, and give them back; False where only the main thread may."""
    if threading.current_thread() is not threading.main_thread():
        yield False
        return
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield True
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _hear(number: int, _: FrameType | None) -> None:
    shared = int(os.environ.get("WORLD_SIZE", "1")) > 1
    first, _heard.name = not _heard.name, _heard.name or signal.Signals(number).name
    if first and not shared:
        # Not print: the signal may have come in the middle of one.
        rest = "stops at its next boundary; a second signal ends it at once"
        os.write(2, f"\nmetalearn: {_heard.name}: {rest}\n".encode())
    # torchrun sends SIGTERM after a death, and after the SIGINT that a terminal gives to all
    # processes; it kills those that do not end.
    for deadly in {signal.SIGINT, number} - {signal.SIGTERM} if shared else SIGNALS:
        signal.signal(deadly, signal.SIG_DFL)
