"""`metalearn select`: learned choice of the learner for a task."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from textwrap import fill
from typing import Any

from pydantic import ValidationError

from experiments.arguments import Parser
from experiments.config import TrackingSettings
from experiments.errors import UserError, one_of
from experiments.selection.policies import POLICIES, known, row_named
from experiments.selection.settings import WEIGHTS, Fitting, Judging, Viewing

LISTED = fill(", ".join(POLICIES), 80, break_on_hyphens=False).replace("\n", "\n" + 18 * " ")
QUICK = ("single-best", "nearest-tasks", "regret-ensemble")
"""Policies that are judged on scenarios unless others are named: the bound, a simple one and the
best one.  Scenarios may have thousands of tasks."""
_LAMBDAS = f"{' '.join(f'{weight:g}' for weight in WEIGHTS)}; fit: {WEIGHTS[-1]:g}"
USAGE = f"""usage: metalearn select matrix --output DIR [--workers N] [--plan FILE.json]
                               [--learners NAME ...] [--trained RUN]
       metalearn select view MATRIX [--weight LAMBDA ...] [--cost UNIT] [--missing HOW]
       metalearn select evaluate MATRIX [--policy NAME ...] [--weight LAMBDA ...]
                                 [--folds N] [--repetitions N] [--no-learning] [--workers N]
                                 [--run-dir DIR] [--resume] [OPTIONS]
       metalearn select evaluate --aslib FOLDER ... [--policy NAME ...] [--seed N]
                                 [--measure NAME] [--folds N] [--output FILE.json]
       metalearn select fit MATRIX --policy NAME --output DIR [--weight LAMBDA] [OPTIONS]
       metalearn select recommend DIR --support FILE [--output FILE.json]

  matrix          judge every learner of the portfolio on every task; the same command goes on
  view            what a matrix says before any policy is fitted, with two figures
  evaluate        judge policies on sources that they were not fitted on, in one table
  fit             fit a policy to all tasks of a matrix, and keep it with its portfolio
  recommend       which learner for examples of your own, and the command that adapts it

  MATRIX          folder of a performance matrix, which select matrix has made
  --output        folder or file to write
  --workers N     processes that share tasks, or policies (default: 1)
  --plan FILE     the tasks as JSON (default: those of the folder, or all of METALEARN_DATA)
  --learners      members of the portfolio (default: all)
  --trained RUN   run folder of the members that are meta-trained (default: trained in DIR)
  --policy        {LISTED}
                  (default: all; with --aslib {", ".join(QUICK)},
                  in minutes)
  --weight        lambda, utility that a unit of cost takes away (default: {_LAMBDAS})
  --folds N       of sources (default: 10)
  --repetitions N cross-validations, with folds drawn anew (default: 5)
  --no-learning   online policies learn nothing from the tasks they are judged on
  --run-dir DIR   run folder (default: runs/select-evaluate)
  --resume        go on with it
  --aslib         folder of an ASlib scenario, or several; with --measure, which performance
                  measure (default: its first), and --output, every number as JSON
  --support FILE  jsonl, csv or parquet with columns text and label

OPTIONS
  --cost          passes through the whole backbone (default), or seconds
  --missing       refuse cells that were not measured (default), or marginalize over the others
  --seed N        of whatever is drawn (default: 0)
  --tracking MODE W&B: offline (default), online or disabled"""


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
    COMMANDS[words[0]](list(words[1:]))
    return 0


def _parser(matrix: bool = True) -> Parser:
    parser = Parser(prog="metalearn select", add_help=False, allow_abbrev=False)
    if matrix:
        parser.add_argument("matrix", type=Path, nargs="?")
        parser.add_argument("--cost", choices=("passes", "seconds"))
        parser.add_argument("--missing", choices=("refuse", "marginalize"))
    return parser


def _run_parser() -> Parser:
    """Of the subcommands that have a run folder."""
    parser = _parser()
    parser.add_argument("--tracking", choices=("offline", "online", "disabled"))
    parser.add_argument("--seed", type=int)
    return parser


def _given(given: Namespace, *names: str) -> dict[str, Any]:
    """Settings that were given; those left out keep their defaults."""
    found = {name: getattr(given, name) for name in names if getattr(given, name) is not None}
    if getattr(given, "tracking", None) is not None:
        found["tracking"] = TrackingSettings(mode=given.tracking, job_type="select")
    return found | {"matrix": str(given.matrix)}


def _made(kind: Any, values: dict[str, Any]) -> Any:
    """Settings of the words of a command.

    Raises:
        UserError: If a value is none that can be.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        option = "weight" if first["loc"][0] == "weights" else first["loc"][0]
        raise UserError(f"--{option} {first['input']}: {first['msg'].lower()}") from None


def _matrix(words: list[str]) -> None:
    options = _parser(matrix=False)
    options.add_argument("--output", type=Path)
    options.add_argument("--workers", type=int, default=1)
    options.add_argument("--plan", type=Path)
    options.add_argument("--learners", nargs="+", action="extend")
    options.add_argument("--trained", type=Path)
    given = options.parse_args(words)
    if given.output is None:
        raise UserError("select matrix needs --output DIR")
    _check_workers(given)

    from experiments.selection.matrix import compute, tasks_of
    from experiments.selection.portfolio import ENTRIES

    learners = tuple(dict.fromkeys(given.learners or ENTRIES))
    tasks = tasks_of(given.output, given.plan)
    print(compute(given.output, tasks, learners, given.workers, given.trained))


def _check_workers(given: Namespace) -> None:
    if given.workers < 1:
        raise UserError(f"--workers {given.workers}: there must be at least one")


def _view(words: list[str]) -> None:
    options = _parser()
    options.add_argument("--weight", type=float, nargs="+", dest="weights")
    given = options.parse_args(words)
    if given.matrix is None:
        raise UserError("select view needs the folder of a matrix")
    wanted = _given(given, "weights", "cost", "missing")

    from experiments.selection.view import view

    view(_made(Viewing, wanted))


def _evaluate(words: list[str]) -> None:
    options = _run_parser()
    options.add_argument("--aslib", type=Path, nargs="+", action="extend", default=[])
    options.add_argument("--policy", nargs="+", action="extend", default=[])
    options.add_argument("--weight", type=float, nargs="+", dest="weights")
    options.add_argument("--folds", type=int)
    options.add_argument("--repetitions", type=int)
    options.add_argument("--no-learning", action="store_const", const=False, dest="learning")
    options.add_argument("--workers", type=int, default=1)
    options.add_argument("--run-dir", type=Path, default=Path("runs/select-evaluate"))
    options.add_argument("--resume", action="store_true")
    options.add_argument("--measure", default="")
    options.add_argument("--output", type=Path)
    given = options.parse_args(words)
    if (given.matrix is None) == (not given.aslib):
        raise UserError("select evaluate needs --aslib FOLDER, or the folder of a matrix")
    policies = known(given.policy or (QUICK if given.aslib else ()))
    if given.seed is not None and given.seed < 0:
        raise UserError(f"--seed {given.seed} is negative; give 0 or more")
    if given.aslib:
        _evaluate_aslib(given, policies)
        return
    if given.measure or given.output:
        raise UserError("--measure and --output go with --aslib; a matrix has a --run-dir")
    _check_workers(given)
    names = ("weights", "cost", "missing", "folds", "repetitions", "seed", "learning")
    wanted = _made(Judging, _given(given, *names) | {"policies": policies})

    from experiments.selection.judging import evaluate

    print(evaluate(wanted, given.run_dir, given.resume, given.workers))


def _evaluate_aslib(given: Namespace, policies: list[str]) -> None:
    for name in policies:
        if row_named(name).looks != "features":
            raise UserError(
                f"policy {name} looks at {row_named(name).looks}, of which a scenario says "
                "nothing; leave it out, or judge it on a matrix"
            )
    # Before the minutes of work, not after them.
    if given.output and (given.output.is_dir() or not given.output.parent.is_dir()):
        raise UserError(f"--output {given.output} is no file in an existing folder")

    from experiments.selection.evaluate import evaluate

    evaluate(
        given.aslib,
        policies,
        seed=given.seed or 0,
        measure=given.measure,
        folds=10 if given.folds is None else given.folds,
        output=given.output,
    )


def _fit(words: list[str]) -> None:
    options = _run_parser()
    options.add_argument("--policy", default="")
    options.add_argument("--weight", type=float)
    options.add_argument("--output", type=Path)
    given = options.parse_args(words)
    if given.matrix is None or not given.policy or given.output is None:
        raise UserError("select fit needs MATRIX --policy NAME --output DIR")
    row_named(given.policy)
    wanted = _given(given, "policy", "weight", "cost", "missing", "seed")

    from experiments.selection.fitting import fit

    print(fit(_made(Fitting, wanted), given.output))


def _recommend(words: list[str]) -> None:
    options = _parser(matrix=False)
    options.add_argument("folder", type=Path, nargs="?")
    options.add_argument("--support", type=Path)
    options.add_argument("--output", type=Path)
    given = options.parse_args(words)
    if given.folder is None or given.support is None:
        raise UserError("select recommend needs DIR --support FILE")
    if given.output and (given.output.is_dir() or not given.output.resolve().parent.is_dir()):
        raise UserError(f"--output {given.output} is no file in an existing folder")

    from experiments.selection.recommending import recommend

    recommend(given.folder, given.support, given.output)


COMMANDS = {
    "matrix": _matrix,
    "view": _view,
    "evaluate": _evaluate,
    "fit": _fit,
    "recommend": _recommend,
}
