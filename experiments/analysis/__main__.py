"""Tables and figures of finished runs, in their folders.

python -m experiments.analysis RUN ...
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from experiments.analysis.figures import analyse
from experiments.errors import UserError


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.analysis", description="Tables and figures of finished runs."
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="finished run folder")
    try:
        for run in parser.parse_args().runs:
            for path in analyse(run):
                print(path)
    except UserError as error:
        print(f"analysis: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
