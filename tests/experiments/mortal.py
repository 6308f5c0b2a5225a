"""A rank that gets a signal: of `mortal.py SIGKILL RANK STEP train ...` this one, at this step."""

import os
import signal
import sys

from experiments.cli import main
from metalearn.learner import Metrics
from metalearn.training import MetaTraining


def signal_at(name: str, rank: int, step: int) -> None:
    taken = MetaTraining.take_step

    def take_step(training: MetaTraining) -> Metrics:
        if (int(os.environ["RANK"]), training.step) == (rank, step):
            os.kill(os.getpid(), signal.Signals[name])
        return taken(training)

    MetaTraining.take_step = take_step


if __name__ == "__main__":
    signal_at(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
    sys.exit(main(sys.argv[4:]))
