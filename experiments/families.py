"""The families that an experiment is judged on: its own, or others by name (cross-domain).

Like `experiments.config`, this module must not import torch.
"""

from __future__ import annotations

import re
from pathlib import Path

from pydantic import ValidationError

from experiments.catalog import TEST_FAMILIES
from experiments.config import Experiment, FamilySettings
from experiments.errors import UserError, one_of
from experiments.files import read_json


def named_family(word: str) -> FamilySettings:
    """Settings of a family by its name in the catalog, or in a JSON file.

    Raises:
        UserError: If there is none, or the file holds no family settings.

    Example:
        >>> named_family("trec").path
        'trec/data.jsonl.gz'
    """
    if not word.endswith(".json"):
        if word not in TEST_FAMILIES:
            hint = one_of(word, TEST_FAMILIES)
            raise UserError(f"evaluation.families: no family {word}{hint}, or a JSON file")
        return TEST_FAMILIES[word]
    if not Path(word).is_file():
        raise UserError(f"evaluation.families: no file {word}; write family settings into it")
    try:
        return FamilySettings.model_validate(read_json(Path(word)))
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"])) or "the whole file"
        raise UserError(f"evaluation.families: {word}: {name}: {first['msg']}") from None


def judged_on(experiment: Experiment) -> list[Experiment]:
    """The settings on each family whose test classes are read.

    Raises:
        UserError: If a family is unknown, or two have one name.

    Example:
        >>> wanted = Experiment().override({"evaluation.families": ("trec", "subj")})
        >>> [settings.family.name for settings in judged_on(wanted)]
        ['trec', 'subj']
    """
    if not experiment.evaluation.families:
        return [experiment]
    found: dict[str, Experiment] = {}
    for word in experiment.evaluation.families:
        family = named_family(word)
        if not re.fullmatch(r"[\w.-]+", family.name):
            raise UserError(
                f"evaluation.families: the name {family.name!r} of {word} goes into file names; "
                "use letters, digits, dots and hyphens"
            )
        if family.name in found:
            raise UserError(f"evaluation.families: two are named {family.name}; rename one")
        found[family.name] = experiment.model_copy(update={"family": family})
    return list(found.values())


def placed_on(slug: str, settings: Experiment) -> str:
    """The name of what is judged, with that of the family where there may be several."""
    return f"{slug}-on-{settings.family.name}" if settings.evaluation.families else slug
