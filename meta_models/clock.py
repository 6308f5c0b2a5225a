"""A clock on which kept work takes the time that it took when it was done.

Learners that share kept features, or kept layers, would else look cheap or dear by the order in
which they run: the first one pays, the others find.  On this clock all of them pay.  It counts
seconds of the processor, which do not depend on what else the machine does; work of an accelerator
is not among them.
"""

from __future__ import annotations

import time

_charged = 0.0


def now() -> float:
    """Seconds, of which only differences mean something.

    Example:
        >>> began = now()
        >>> charge(60.0)
        >>> now() - began > 60
        True
    """
    return time.process_time() + _charged


def charge(seconds: float) -> None:
    """Put the clock forward: what was asked for has once taken so long."""
    global _charged
    _charged += seconds
