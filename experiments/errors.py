"""The mistakes of users: the command line turns them into one line and exit status 2."""

from collections.abc import Iterable
from difflib import get_close_matches


class UserError(ValueError):
    """A mistake in what was asked; the message names the thing and the remedy, in one line."""


class Diverged(UserError):
    """A training whose loss became infinite or NaN: of the settings, and so every time again."""


class RankError(UserError):
    """A mistake that only one of several processes has met, which is not the one that speaks."""


class LostProcess(Exception):
    """A process that this one works with has died; the message names it."""


class LostRank(LostProcess):
    """Processes of this run have died; the message names them."""


class Stopped(Exception):
    """A run was asked to stop, and has saved what it had done.

    Args:
        name: The signal.
        folder: The run folder; empty: there was none yet.
    """

    def __init__(self, name: str, folder: str = "") -> None:
        super().__init__(f"stopped by {name}" + (f", saved in {folder}" if folder else ""))
        self.name = name
        self.folder = folder


def nearest(given: str, names: Iterable[str]) -> str:
    """The end of a message about an unknown name; empty where no name is near.

    Example:
        >>> nearest("mamml", ["maml", "anil"])
        '; did you mean maml?'
    """
    close = get_close_matches(given, list(names), n=1)
    return f"; did you mean {close[0]}?" if close else ""


def one_of(given: object, names: Iterable[str]) -> str:
    """Like `nearest`, but where no name is near they are all told.

    Example:
        >>> one_of("rando", ["grid", "random"]), one_of("x", ["grid", "random"])
        ('; did you mean random?', '; it is one of grid, random')
    """
    known = list(names)
    return nearest(str(given), known) or f"; it is one of {', '.join(known)}"
