"""What the command line calls by name: experiments of the catalog, and their newest folders."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from experiments.errors import UserError, nearest

if TYPE_CHECKING:
    from experiments.config import Experiment

RUNS = Path("runs")
"""Where new run folders go."""


def experiment(name: str) -> Experiment:
    """The experiment of this name.

    Raises:
        UserError: If there is none.
    """
    from experiments import catalog

    if name not in catalog.EXPERIMENTS:
        hint = nearest(name, catalog.EXPERIMENTS) or "; see metalearn list"
        raise UserError(f"no experiment {name}{hint}")
    return catalog.EXPERIMENTS[name]


def newest(name: str) -> Path:
    """The newest folder `runs/<name>-<timestamp>`.

    Raises:
        UserError: If there is none.
    """
    pattern = re.compile(rf"{re.escape(name)}-(\d{{8}}-\d{{6}})(?:-(\d+))?")
    found = []
    for path in RUNS.glob(f"{name}-*"):
        match = pattern.fullmatch(path.name)
        if match and path.is_dir():
            found.append((match[1], int(match[2] or 1), path))
    if not found:
        raise UserError(f"no run of {name} in {RUNS}/ to resume; name one with --run-dir")
    return max(found)[2]
