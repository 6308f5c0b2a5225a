"""A sweep that kills itself: `mortal_sweep.py N sweep ...` dies at the N-th report of a trial."""

import os
import signal
import sys

from experiments.cli import main
from experiments.sweeps.board import Board
from experiments.sweeps.ledger import Trial


def die_at(report: int) -> None:
    left = report
    update = Board.update

    def counted(self: Board, trial: Trial) -> None:
        nonlocal left
        left -= 1
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)
        update(self, trial)

    Board.update = counted


if __name__ == "__main__":
    die_at(int(sys.argv[1]))
    sys.exit(main(sys.argv[2:]))
