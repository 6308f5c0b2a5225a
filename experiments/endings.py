"""How a command ends: with one line on standard error, and a status that says what to do.

Nothing heavy is imported here: `metalearn --help` answers through it.
"""

from __future__ import annotations

import errno
import logging
import os
import shlex
import sys
from collections.abc import Callable, Sequence

from experiments.errors import LostProcess, RankError, Stopped, UserError
from experiments.stopping import terminable

NOT_REPRODUCED, MISTAKE, LOST, FULL = 1, 2, 3, 4
PREEMPTED = 75
"""EX_TEMPFAIL of sysexits.h: try again; schedulers can be told to."""
INTERRUPTED, TERMINATED = 130, 143
STATUSES = """exit status:
  0    done
  1    not reproduced, or a trial of a sweep has failed
  2    a mistake in what was asked for; one line says which
  3    another process of the run, or that of W&B, was lost; --resume goes on
  4    no space left to write to; free some, and --resume goes on
  75   stopped by SIGTERM or SIGINT, and saved: --resume goes on (a second signal ends at once)
  130  interrupted by SIGINT where there is nothing to save; 143: by SIGTERM"""

RESUMABLE = ("train", "evaluate", "sweep")
"""Commands with the option --resume."""
NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def ended(words: Sequence[str], command: Callable[[], int]) -> int:
    """Run a command to its end, whatever that is.

    Args:
        words: What was typed after `metalearn`.
        command: Does it, and returns the exit status.

    Returns:
        The exit status, see `STATUSES`.
    """
    logging.raiseExceptions = False  # a log that cannot be written says so in forty lines
    terminated = None
    try:
        with terminable() as terminated:
            return command()
    except KeyboardInterrupt:
        how = "terminated" if terminated and terminated() else "interrupted"
        _say(f"{how}{_remedy(words)}", before="\n")
        return TERMINATED if how == "terminated" else INTERRUPTED
    except Stopped as error:
        if not rank():
            _say(f"{error}{_remedy(words, error.folder)}")
        return PREEMPTED
    except LostProcess as error:
        _say(f"{error}{_remedy(words)}")
        return LOST
    except Exception as error:
        if (full := _full(error)) is not None:
            _say(f"{full}; free some space{_remedy(words, joint=' and resume with: ')}")
            return FULL
        if not isinstance(error, _user_errors()):
            raise
        # What all processes meet is said once.
        if not rank() or isinstance(error, RankError):
            _say(" ".join(str(error).split()))
        return MISTAKE


def rank() -> int:
    """Which of the processes of torchrun this is; 0 where it is alone."""
    return int(os.environ.get("RANK", "0"))


def _say(line: str, before: str = "") -> None:
    print(f"{before}metalearn: {line}", file=sys.stderr)


def _user_errors() -> tuple[type[Exception], ...]:
    # An error can only have come from a module that is loaded; importing them would load torch.
    found: list[type[Exception]] = [UserError]
    for module, name in (
        ("tasks.episode", "TaskError"),
        ("meta_models.errors", "ModelError"),
        ("metalearn.distributed", "StoppedByFirst"),
    ):
        if module in sys.modules:
            found.append(getattr(sys.modules[module], name))
    return tuple(found)


def _full(error: BaseException | None) -> str | None:
    """What has no space left, if that is what an error, or the one it came from, says."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in NO_SPACE:
            where = f": {error.filename}" if error.filename else ""
            return f"{os.strerror(error.errno)}{where}"
        # Libraries in other languages have errors of their own, with the words of the system.
        if os.strerror(errno.ENOSPC) in str(error):
            return os.strerror(errno.ENOSPC)
        error = error.__cause__ or error.__context__
    return None


def _remedy(words: Sequence[str], folder: str = "", joint: str = "; resume with: ") -> str:
    if not words or words[0] not in RESUMABLE:
        return ""
    named = {"--run-dir", "--resume"} & set(words)
    again = shlex.join([*words, *([] if "--resume" in words else ["--resume"])])
    if folder and not named:
        again = shlex.join([*words, "--resume", folder])
    if "WORLD_SIZE" not in os.environ:
        return f"{joint}metalearn {again}"
    from experiments.ranks import restart

    return f"{joint}{restart(again)}"
