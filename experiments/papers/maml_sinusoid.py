"""MAML on sinusoid regression: one gradient step from the learned start fits a new curve.

Finn, Abbeel and Levine 2017, "Model-Agnostic Meta-Learning for Fast Adaptation of Deep Networks",
section 5.1 and figure 3.
"""

from __future__ import annotations

import math

from experiments.papers.reproduction import Job, Measured, Quantity, Reproduction
from experiments.papers.sinusoids import SINUSOIDS, mean, meta_train, query_errors, smaller

EXPERIMENT = SINUSOIDS.override(
    {
        "name": "maml-sinusoid",
        "description": "MAML on sinusoids, 70,000 meta-steps of 25 tasks, 10 shots",
        "learners": ("maml",),
        "outer.steps": 70_000,
        "evaluation.tasks": 4_000,
    }
)
TRAIN_SHOTS = 10
STEPS = 10
RERUN = {
    5: {0: 3.09, 1: 0.594, 2: 0.443, 5: 0.378, 10: 0.328},
    10: {0: 3.09, 1: 0.338, 2: 0.190, 5: 0.136, 10: 0.108},
    20: {0: 3.09, 1: 0.208, 2: 0.099, 5: 0.059, 10: 0.040},
}
"""Error by shots and step."""
BANDS = {5: (0.54, 0.70), 10: (0.30, 0.38), 20: (0.17, 0.25)}
"""Band of the error after one step, by shots."""


def _name(shots: int, step: int) -> str:
    return f"{shots}-shot, step {step}"


def _rise(shots: int) -> str:
    return f"{shots}-shot, largest change in a step"


def _worse(shots: int) -> str:
    return f"{shots}-shot, tasks worse after ten steps, %"


def _quantity(shots: int, step: int) -> Quantity:
    low, high = BANDS[shots] if step == 1 else (None, None)
    return Quantity(_name(shots, step), rerun=RERUN[shots][step], low=low, high=high)


def run(job: Job) -> Measured:
    """Meta-train, then follow ten steps at each number of shots."""
    experiment = smaller(EXPERIMENT) if job.smoke else EXPERIMENT
    state = meta_train({"loss": experiment}, job.seed, TRAIN_SHOTS)["loss"]
    measured: Measured = {}
    for shots in RERUN:
        errors = query_errors(experiment, state, shots=shots, queries=shots, steps=STEPS)
        measured |= {_name(shots, step): mean(errors[:, step]) for step in RERUN[shots]}
        changes = [mean(errors[:, step + 1] - errors[:, step]) for step in range(STEPS)]
        # An error that is no longer a number is the largest change of all.
        measured[_rise(shots)] = max(changes, key=lambda c: (math.isnan(c.value), c.value))
        # Nor is it smaller than the error before the first step.
        measured[_worse(shots)] = mean(100.0 * ~(errors[:, STEPS] <= errors[:, 0]))
    return measured


REPRODUCTION = Reproduction(
    number="R3",
    key="maml-sinusoid",
    title="MAML on sinusoids: one step fits a new curve, ten go on falling",
    claim=(
        "A network meta-trained for one inner step on ten points fits a new sinusoid after one "
        "step, with more or fewer points too, and goes on improving over ten steps."
    ),
    protocol=(
        "y = A sin(x - b), A in [0.1, 5], b in [0, pi], x in [-5, 5]; 1-40-40-1 ReLU network, "
        "its fresh weights of deviation 0.01; 70,000 meta-steps of 25 tasks, 10 support and 10 "
        "query points; one inner step at 0.01, second order; Adam at 0.001. Judged on 4,000 new "
        "tasks (the paper: 600) with 5, 10 and 20 support and as many query points, after 0 to 10 "
        "steps; mean squared error, its largest change from a step to the next, and how many tasks "
        "have a larger error after ten steps than before the first."
    ),
    source=(
        "Finn et al. 2017, figure 3 (no table), and main.py of github.com/cbfinn/maml; bands "
        "around an independent implementation of the same protocol"
    ),
    quantities=(
        *(_quantity(shots, step) for shots in RERUN for step in RERUN[shots]),
        *(Quantity(_rise(shots), high=0.0) for shots in RERUN),
        *(Quantity(_worse(shots)) for shots in RERUN),
    ),
    run=run,
    note=(
        "Whether the mean error falls through ten steps is decided by the few tasks whose points "
        "lie where steps of 0.01 diverge. How many they are differs from training to training, by "
        "no more than the order in which sums are rounded: with the same seed it has fallen before."
    ),
    settings={"maml": EXPERIMENT.model_dump(mode="json")},
)
