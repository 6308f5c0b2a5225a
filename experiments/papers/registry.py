"""The reproductions by their keys; a file is imported when it is asked for."""

from __future__ import annotations

from importlib import import_module

from experiments.errors import UserError, nearest
from experiments.papers.reproduction import Reproduction

FILES = {
    "mteb-banking77": "mteb_banking77",
    "aslib": "aslib",
    "maml-sinusoid": "maml_sinusoid",
    "cavia-sinusoid": "cavia_sinusoid",
    "meta-sgd-sinusoid": "meta_sgd_sinusoid",
    "bandits": "bandits",
    "protaugment": "protaugment",
    "control": "control",
}
"""File of this package by key, in the order of the list."""


def load(key: str) -> Reproduction:
    """A reproduction by its key.

    Raises:
        UserError: If there is none of that name.

    Example:
        >>> load("maml-sinusoid").number
        'R3'
    """
    if key not in FILES:
        hint = nearest(key, FILES) or "; see metalearn reproduce --list"
        raise UserError(f"no reproduction {key}{hint}")
    return import_module(f"experiments.papers.{FILES[key]}").REPRODUCTION
