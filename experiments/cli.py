"""The command `metalearn`.

Handlers import what they need themselves: help and the catalog answer without loading torch.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from experiments.arguments import Parser
from experiments.endings import STATUSES, ended, rank
from experiments.errors import UserError, nearest
from experiments.named import experiment as experiment_named
from experiments.named import newest


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Returns:
        The exit status, see `experiments.endings.STATUSES`.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    return ended(words, lambda: _dispatch(words))


def _dispatch(words: list[str]) -> int:
    parser = _parser()
    if not words:
        parser.print_help()
        return 0
    if not words[0].startswith("-") and words[0] not in COMMANDS:
        hint = nearest(words[0], COMMANDS) or "; see metalearn --help"
        raise UserError(f"no command {words[0]}{hint}")
    if words[0] != "train" and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError(f"only train works in several processes; start {words[0]} without torchrun")
    # The settings of an experiment are tyro's to read; argparse must not look into them.
    if words[0] == "train":
        _train(words[1:])
    elif words[0] == "sweep":
        from experiments.sweep import command

        return command(words[1:])
    elif words[0] == "evaluate":
        _evaluate(words[1:])
    elif words[0] == "compare":
        from experiments.compare import command as compare

        compare(words[1:])
    elif words[0] == "estimate":
        _estimate(words[1:])
    elif words[0] == "select":
        from experiments.selection.command import command as select

        return select(words[1:])
    else:
        arguments = parser.parse_args(words)
        return arguments.handle(arguments) or 0
    return 0


def _parser() -> Parser:
    parser = Parser(
        prog="metalearn",
        description="Meta-learning over language-model adapters.",
        epilog=f"`metalearn COMMAND --help` shows the options of a command.\n\n{STATUSES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(
        metavar="COMMAND [OPTIONS]", required=True, parser_class=Parser
    )

    def add(
        name: str, handle: Callable[[argparse.Namespace], int | None]
    ) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=COMMANDS[name], description=COMMANDS[name])
        command.set_defaults(handle=handle)
        return command

    add("list", _list)
    # For the list of commands only: these are dispatched before.
    commands.add_parser("train", help=COMMANDS["train"])
    commands.add_parser("sweep", help=COMMANDS["sweep"])
    commands.add_parser("evaluate", help=COMMANDS["evaluate"])
    commands.add_parser("compare", help=COMMANDS["compare"])
    commands.add_parser("estimate", help=COMMANDS["estimate"])
    commands.add_parser("select", help=COMMANDS["select"])

    adapt = add("adapt", _adapt)
    adapt.add_argument("run", type=Path, metavar="RUN", help="folder of a run, or of a policy")
    adapt.add_argument(
        "--support", type=Path, required=True, metavar="FILE", help="examples (jsonl, csv, parquet)"
    )
    adapt.add_argument(
        "--output", type=Path, required=True, metavar="DIR", help="folder for the adapted model"
    )
    adapt.add_argument(
        "--learner", help="which learner (default: the best of a run, the choice of a policy)"
    )
    adapt.add_argument("--steps", type=int, help="inner steps (default: the run's choice)")

    predict = add("predict", _predict)
    predict.add_argument("adapter", type=Path, metavar="DIR", help="folder written by adapt")
    predict.add_argument("--input", type=Path, required=True, metavar="FILE", help="texts")
    predict.add_argument("--output", type=Path, metavar="FILE", help="default: the terminal")

    reproduce = add("reproduce", _reproduce)
    reproduce.add_argument("key", nargs="?", metavar="KEY", help="which result, see --list")
    reproduce.add_argument("--list", action="store_true", help="one line a result")
    reproduce.add_argument("--seed", type=int, default=0, help="seed of the training (default: 0)")
    reproduce.add_argument(
        "--smoke", action="store_true", help="a hundredth of the budget: only tries the code"
    )
    reproduce.add_argument("--output", type=Path, metavar="FILE.json", help="keep the record")
    reproduce.add_argument(
        "--run-dir",
        type=Path,
        metavar="DIR",
        help="where a long one keeps what is done, and goes on from (default: runs/KEY-seedN)",
    )

    tasks = add("tasks", _tasks)
    tasks.add_argument("folder", type=Path, metavar="FOLDER", help="a csv or jsonl file a task")
    tasks.add_argument("--name", help="name of the family (default: that of the folder)")
    tasks.add_argument("--text", default="text", help="column of the text (default: text)")
    tasks.add_argument("--text-b", default="", help="column of the second text of a pair")
    tasks.add_argument("--label", default="label", help="column of the class (default: label)")
    tasks.add_argument("--split-seed", type=int, default=0, help="of the meta-splits (default: 0)")
    tasks.add_argument("--folds", default="", metavar="FILE", help="JSON with the meta-splits")
    tasks.add_argument("--fold", default="", help="which fold of it")
    tasks.add_argument("--shots", type=int, default=1, help="that tasks will have (default: 1)")
    tasks.add_argument("--queries", type=int, default=5, help="a class (default: 5)")
    tasks.add_argument("--backbone", default="minilm", help="counts tokens (default: minilm)")
    tasks.add_argument("--output", type=Path, metavar="FILE", help="default: FOLDER/CARD.md")

    report = add("report", _report)
    report.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="run folder")
    report.add_argument("--output", type=Path, metavar="FILE", help="default: RUN/report.html")
    return parser


COMMANDS = {
    "list": "show families, backbones, adapters, learners and experiments",
    "train": "meta-train and compare the learners of an experiment",
    "sweep": "run an experiment with many settings, from a W&B sweep file",
    "evaluate": "evaluate runs or experiments on the same tasks, in one table",
    "compare": "say whether the difference between two runs is real",
    "estimate": "predict memory and operations of a meta-step, and what fits a card",
    "select": "judge policies that choose the learner for a task, and let one choose",
    "tasks": "check a folder of tasks of your own and write its card",
    "adapt": "turn a few examples into a PEFT adapter, or what a cheaper learner needs",
    "predict": "label texts with an adapted model",
    "reproduce": "measure a published result and judge it by its band",
    "report": "write one HTML page about one run or several",
}


def _list(_: argparse.Namespace) -> None:
    from experiments import catalog

    experiments = {name: entry.description for name, entry in catalog.EXPERIMENTS.items()}
    sections = {
        "families": catalog.FAMILIES,
        "backbones": catalog.BACKBONES,
        "adapters": catalog.ADAPTERS,
        "learners": catalog.LEARNERS,
        "experiments": experiments,
    }
    width = max(len(name) for entries in sections.values() for name in entries) + 2
    for title, entries in sections.items():
        print(f"{title}")
        for name, line in entries.items():
            print(f"  {name:<{width}}{line}")


TRAIN_USAGE = """usage: metalearn train NAME [--run-dir DIR] [--resume [DIR]] [--config FILE]
                       [--SETTING VALUE ...]

  NAME          experiment of the catalog, see `metalearn list`
  --run-dir DIR run folder (default: runs/NAME-<time>)
  --resume      go on with --run-dir, or with the newest run of NAME
  --config FILE settings as JSON, that of a run folder or of a sweep; options come after them

`metalearn train NAME --help` shows every setting of an experiment and its value. SIGTERM and
SIGINT save at the next step and end with status 75, a second one ends at once."""


def _train(words: list[str]) -> None:
    if not words or words[0] in ("-h", "--help"):
        print(TRAIN_USAGE)
        if not words:
            raise UserError("train needs the name of an experiment; see metalearn list")
        return
    name, rest = words[0], words[1:]
    options = Parser(prog=f"metalearn train {name}", add_help=False, allow_abbrev=False)
    options.add_argument("--run-dir", type=Path)
    options.add_argument("--resume", nargs="?", type=Path, const=True)
    options.add_argument("--config", type=Path)
    given, settings = options.parse_known_args(rest)

    from experiments.folder import CONFIG, load_experiment
    from experiments.settings import load_settings, parse, replaced

    default = experiment_named(name)
    filed = load_settings(given.config) if given.config else {}
    default = replaced(default, filed, f"--config {given.config}")
    about = f"{default.description}\n\nAlso: --run-dir DIR (run folder), --resume, --config FILE."
    command = f"metalearn train {name}"
    experiment = parse(default, settings, command, about)
    folder = given.run_dir
    if given.resume:
        if isinstance(given.resume, Path):
            if folder not in (None, given.resume):
                raise UserError(f"--resume {given.resume} and --run-dir {folder} differ; give one")
            folder = given.resume
        folder = folder or newest(experiment.name)
        if (folder / CONFIG).exists():
            stored = replaced(load_experiment(folder), filed, f"--config {given.config}")
            if stored.name != experiment.name:
                raise UserError(
                    f"run folder {folder} holds {stored.name}, not {experiment.name}; "
                    f"resume it with metalearn train {stored.name}"
                )
            experiment = parse(stored, settings, command, about)

    from experiments.run import run

    path = run(experiment, folder, bool(given.resume))
    if not rank():
        print(path)


EVALUATE_USAGE = """usage: metalearn evaluate TARGET ... [--run-dir DIR] [--resume]
                          [--SETTING VALUE ...]

  TARGET        run folder (its trained learners), experiment of the catalog, or a learner that
                needs no training; the tasks are those of the first run folder or experiment
  --run-dir DIR folder for the table (default: runs/evaluate-<time>)
  --resume      go on with --run-dir, or with the newest runs/evaluate-<time>

Settings that concern the tasks (--evaluation.tasks 600, --episodes.shots 1 5,
--evaluation.families trec sst2, ...) may be replaced; `metalearn train NAME --help` shows them all.
table.csv and table.parquet hold a row a family, learner and number of shots."""


def _evaluate(words: list[str]) -> None:
    if {"-h", "--help"} & set(words):
        print(EVALUATE_USAGE)
        return
    first = next((i for i, word in enumerate(words) if word.startswith("-")), len(words))
    if not first:
        raise UserError("evaluate needs a run folder or an experiment; see metalearn list")
    options = Parser(prog="metalearn evaluate", add_help=False, allow_abbrev=False)
    options.add_argument("--run-dir", type=Path)
    options.add_argument("--resume", action="store_true")
    given, settings = options.parse_known_args(words[first:])

    from experiments.evaluate import evaluate

    folder = given.run_dir or (newest("evaluate") if given.resume else None)
    print(evaluate(words[:first], settings, folder, given.resume))


ESTIMATE_USAGE = """usage: metalearn estimate NAME [--learner LEARNER] [--card SIZE] [--tokens L]
                          [--rate R] [--SETTING VALUE ...]

  NAME          experiment of the catalog, see `metalearn list`
  --learner     which learner (default: the last of the experiment that trains)
  --card SIZE   memory of an accelerator, 24GB say: also shows which settings would fit it
  --tokens L    texts of L tokens each (default: the texts of the experiment)
  --rate R      10^12 operations a second of the device: also shows seconds

Settings are those of `metalearn train NAME --help`. The backbone is not loaded: the folder of a
configuration, a config.json or a hub name will do, of a model of any size."""


def _estimate(words: list[str]) -> None:
    if {"-h", "--help"} & set(words):
        print(ESTIMATE_USAGE)
        return
    if not words:
        raise UserError("estimate needs the name of an experiment; see metalearn list")
    name, rest = words[0], words[1:]
    options = Parser(prog=f"metalearn estimate {name}", add_help=False, allow_abbrev=False)
    options.add_argument("--learner", default="")
    options.add_argument("--card")
    options.add_argument("--tokens", type=int)
    options.add_argument("--rate", type=float)
    given, settings = options.parse_known_args(rest)

    from experiments.settings import parse

    experiment = parse(experiment_named(name), settings, f"metalearn estimate {name}", "")

    from experiments.cards import tell

    told = tell(experiment, given.learner, card=given.card, tokens=given.tokens, rate=given.rate)
    for line in told:
        print(line, flush=True)


def _adapt(arguments: argparse.Namespace) -> None:
    if arguments.steps is not None and arguments.steps < 0:
        raise UserError(f"--steps {arguments.steps} is negative; give 0 or more")

    from experiments.adaptation import adapt

    print(
        adapt(
            arguments.run,
            arguments.support,
            arguments.output,
            learner=arguments.learner,
            steps=arguments.steps,
        )
    )


def _predict(arguments: argparse.Namespace) -> None:
    from experiments.prediction import predict

    predict(arguments.adapter, arguments.input, arguments.output)


def _tasks(arguments: argparse.Namespace) -> None:
    from experiments.config import BackboneSettings, FamilySettings
    from experiments.task_card import card
    from tasks.episode import EpisodeShape

    if arguments.shots < 0 or arguments.queries < 1:
        raise UserError("--shots must be 0 or more, and --queries 1 or more")
    family = FamilySettings(
        source="folder",
        path=str(arguments.folder),
        name=arguments.name or arguments.folder.resolve().name,
        text=arguments.text,
        text_b=arguments.text_b,
        label=arguments.label,
        split_seed=arguments.split_seed,
        folds=arguments.folds,
        fold=arguments.fold,
    )
    shape = EpisodeShape(shots=arguments.shots, queries=arguments.queries)
    print(card(family, shape, BackboneSettings(name=arguments.backbone), arguments.output))


def _reproduce(arguments: argparse.Namespace) -> int:
    from experiments.papers import registry

    if arguments.list:
        found = [registry.load(key) for key in registry.FILES]
        width = max(len(key) for key in registry.FILES) + 2
        for entry in found:
            print(f"{entry.number}  {entry.key:<{width}}{entry.title}")
        return 0
    if arguments.key is None:
        raise UserError("reproduce needs the key of a result; see metalearn reproduce --list")

    from experiments.reproduce import reproduce

    return reproduce(
        arguments.key,
        seed=arguments.seed,
        smoke=arguments.smoke,
        output=arguments.output,
        run_dir=arguments.run_dir,
    )


def _report(arguments: argparse.Namespace) -> None:
    from experiments.report import write_report

    print(write_report(arguments.runs, arguments.output))


if __name__ == "__main__":
    sys.exit(main())
