"""Command-line options whose mistakes end in one line."""

from __future__ import annotations

import argparse
from typing import NoReturn

from experiments.errors import UserError


class Parser(argparse.ArgumentParser):
    """An `argparse` parser that raises instead of ending the process.

    Example:
        >>> Parser(prog="metalearn").parse_args(["--colour"])
        Traceback (most recent call last):
        experiments.errors.UserError: unrecognized arguments: --colour; see metalearn --help
    """

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see {self.prog} --help")
