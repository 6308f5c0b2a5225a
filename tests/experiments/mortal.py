"""A rank that kills itself: of `mortal.py RANK STEP train ...` this rank dies before this step."""

import os
import signal
import sys

from experiments.cli import main
from metalearn.learner import Metrics
from metalearn.training import MetaTraining


def die_at(rank: int, step: int) -> None:
    taken = MetaTraining.take_step

    def take_step(training: MetaTraining) -> Metrics:
        if (int(os.environ["RANK"]), training.step) == (rank, step):
            os.kill(os.getpid(), signal.SIGKILL)
        return taken(training)

    MetaTraining.take_step = take_step


if __name__ == "__main__":
    die_at(int(sys.argv[1]), int(sys.argv[2]))
    sys.exit(main(sys.argv[3:]))
