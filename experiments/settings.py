"""Settings from the command line: every field of an `Experiment` is an option, read by tyro."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_origin

import tyro
from pydantic import ValidationError

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


def load_settings(path: Path) -> dict[str, Any]:
    """Settings from a JSON file, by dotted name: nested ones like those of a `config.json`, too.

    Raises:
        UserError: If it cannot be read.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"--config {path}: {error.strerror}; name a JSON file") from None
    except ValueError as error:
        raise UserError(f"--config {path} is not JSON: {error}") from None
    if not isinstance(content, dict):
        raise UserError(f'--config {path} holds no settings; write {{"inner.rate": 0.1}}')
    return flatten(content)


def replaced(default: Experiment, settings: Mapping[str, Any], where: str) -> Experiment:
    """An experiment with dotted settings replaced.

    Args:
        default: Where the other settings come from.
        settings: Values by name; `-` in a name is `_`.
        where: What names the settings, for messages.

    Raises:
        UserError: If a name is no setting, or its value does not fit.

    Example:
        >>> replaced(Experiment(), {"inner.rat": 0.5}, "file.json")
        Traceback (most recent call last):
        experiments.errors.UserError: file.json: no setting inner.rat; did you mean inner.rate?
    """
    names = list(flatten(default.model_dump()))
    given = {name.replace("-", "_"): value for name, value in settings.items()}
    for name in given:
        if name not in names:
            raise UserError(f"{where}: no setting {name}{nearest(name, names)}")
    try:
        return default.override(given)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        raise UserError(f"{where}: {name}: {first['msg']}; got {first['input']!r}") from None


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
