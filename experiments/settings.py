"""Settings from the command line: every field of an `Experiment` is an option, read by tyro."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Sequence
from typing import Any, get_origin

import tyro

from experiments.config import Experiment
from experiments.errors import UserError, nearest
from experiments.folder import flatten

REGISTRY = tyro.constructors.ConstructorRegistry()


@REGISTRY.primitive_rule
def _json_dictionary(info: tyro.constructors.PrimitiveTypeInfo) -> Any:
    """Dictionaries are given as JSON."""
    if get_origin(info.type) is not dict:
        return None
    return tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="JSON",
        instance_from_str=lambda words: json.loads(words[0]),
        is_instance=lambda value: isinstance(value, dict),
        str_from_instance=lambda value: [json.dumps(value)],
    )


def parse(default: Experiment, options: Sequence[str], command: str, about: str) -> Experiment:
    """An experiment with settings replaced by command-line options.

    Args:
        default: Where the other settings come from.
        options: `--inner.rate 0.1` and the like; `--help` shows them all and exits.
        command: What was typed before the options, for messages.
        about: Description above the help.

    Raises:
        UserError: If an option is unknown or its value does not fit.

    Example:
        >>> parse(Experiment(), ["--inner.rate", "0.5"], "metalearn train x", "").inner.rate
        0.5
    """
    if not {"-h", "--help"} & set(options):
        _check_names(options, default)
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(
                Experiment,
                default=default,
                args=list(options),
                prog=command,
                description=about,
                registry=REGISTRY,
            )
    except SystemExit as exit:
        if not exit.code:
            raise
        message = f"{_first_paragraph(said.getvalue())}; see {command} --help"
    raise UserError(message)


def _check_names(options: Sequence[str], default: Experiment) -> None:
    names = [f"--{name.replace('_', '-')}" for name in flatten(default.model_dump())]
    for option in options:
        if not option.startswith("--"):
            continue
        given = option.split("=")[0].replace("_", "-")
        # `--backbone.no-normalize` turns a switch off.
        if given not in names and given.replace(".no-", ".") not in names:
            raise UserError(f"no setting {given}{nearest(given, names)}")


def _first_paragraph(box: str) -> str:
    """The message in the frame that tyro draws, as one line."""
    lines = [line.strip("│ ") for line in box.splitlines()[1:]]
    end = next((i for i, line in enumerate(lines) if line.startswith(("─", "╰"))), len(lines))
    # What pydantic adds to a validation error is of no use to a user.
    text = " ".join(lines[:end]).split(" [type=")[0]
    return text.rstrip(".")
