"""`metalearn select`: learned choice of the learner for a task."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from experiments.arguments import Parser
from experiments.errors import UserError, one_of
from experiments.selection.policies import POLICIES

USAGE = f"""usage: metalearn select evaluate --aslib FOLDER ... [--policy NAME ...] [--seed N]
                                 [--measure NAME] [--folds N] [--output FILE.json]

  evaluate      judge policies by cross-validation, in one table

  --aslib       folder of an ASlib scenario, or several
  --policy      {", ".join(list(POLICIES)[:4])},
                {", ".join(list(POLICIES)[4:])} (default: all)
  --seed N      of whatever a policy draws (default: 0)
  --measure     which performance measure of the scenario (default: its first)
  --folds N     where a scenario has no cv.arff (default: 10)
  --output      keep every number as JSON"""


def command(words: Sequence[str]) -> int:
    """Run `metalearn select`.

    Raises:
        UserError: If there is no such subcommand or option, or what it is given cannot be.
    """
    if not words or {"-h", "--help"} & set(words):
        print(USAGE)
        if not words:
            raise UserError("select needs a subcommand; see metalearn select --help")
        return 0
    if words[0] not in COMMANDS:
        raise UserError(f"no subcommand {words[0]} of select{one_of(words[0], COMMANDS)}")
    return COMMANDS[words[0]](list(words[1:]))


def _evaluate(words: list[str]) -> int:
    options = Parser(prog="metalearn select", add_help=False, allow_abbrev=False)
    options.add_argument("--aslib", type=Path, nargs="+", action="extend", default=[])
    options.add_argument("--policy", nargs="+", action="extend", default=[])
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--measure", default="")
    options.add_argument("--folds", type=int, default=10)
    options.add_argument("--output", type=Path)
    given = options.parse_args(words)
    if not given.aslib:
        raise UserError("select evaluate needs --aslib FOLDER, of one scenario or several")
    unknown = [name for name in given.policy if name not in POLICIES]
    if unknown:
        raise UserError(f"no policy {unknown[0]}{one_of(unknown[0], POLICIES)}")
    if given.seed < 0:
        raise UserError(f"--seed {given.seed} is negative; give 0 or more")
    # Before the minutes of work, not after them.
    if given.output and (given.output.is_dir() or not given.output.parent.is_dir()):
        raise UserError(f"--output {given.output} is no file in an existing folder")

    from experiments.selection.evaluate import evaluate

    evaluate(
        given.aslib,
        given.policy or list(POLICIES),
        seed=given.seed,
        measure=given.measure,
        folds=given.folds,
        output=given.output,
    )
    return 0


COMMANDS = {"evaluate": _evaluate}
