"""CAVIA on sinusoid regression: a few context parameters are enough to fit a new curve.

Zintgraf, Shiarlis, Kurin, Hofmann and Whiteson 2019, "Fast Context Adaptation via Meta-Learning",
section 5.1 and table 1.
"""

from __future__ import annotations

from experiments.papers.reproduction import Job, Measured, Quantity, Reproduction
from experiments.papers.sinusoids import SINUSOIDS, mean, meta_train, query_errors, smaller

EXPERIMENT = SINUSOIDS.override(
    {
        "name": "cavia-sinusoid",
        "description": "CAVIA on sinusoids, 50,000 meta-steps of 25 tasks, 10 shots",
        "learners": ("cavia",),
        "backbone.weights": "uniform",
        "inner.rate": 1.0,
        "inner.clamp": 10.0,
        "outer.steps": 50_000,
        "evaluation.tasks": 4_000,
    }
)
SHOTS = 10
POINTS = 100
PROTOCOL_TASKS = 100
# By number of context parameters: published, by an independent implementation, band.
ERRORS = {
    1: (0.84, 0.897, 0.75, 0.95),
    2: (0.21, 0.214, 0.18, 0.24),
    3: (0.20, 0.200, 0.17, 0.23),
    5: (0.19, 0.196, 0.16, 0.22),
}


def _name(context: int) -> str:
    return f"n = {context}"


def _first(context: int) -> str:
    return f"n = {context}, first {PROTOCOL_TASKS} tasks"


def run(job: Job) -> Measured:
    """Meta-train with each number of context parameters, then judge on the same tasks."""
    experiment = smaller(EXPERIMENT) if job.smoke else EXPERIMENT
    experiments = {f"n={n}": experiment.override({"inner.context": n}) for n in ERRORS}
    states = meta_train(experiments, job.seed, SHOTS)
    measured: Measured = {}
    for context in ERRORS:
        name = f"n={context}"
        errors = query_errors(
            experiments[name], states[name], shots=SHOTS, queries=POINTS, steps=1
        )[:, 1]
        measured[_name(context)] = mean(errors)
        measured[_first(context)] = mean(errors[:PROTOCOL_TASKS])
    return measured


REPRODUCTION = Reproduction(
    number="R4",
    key="cavia-sinusoid",
    title="CAVIA on sinusoids: two context parameters are enough",
    claim=(
        "Adapting two or more inputs of the network fits a new sinusoid as well as adapting all of "
        "its weights; one is too few for a family of two parameters."
    ),
    protocol=(
        "y = A sin(x - b), A in [0.1, 5], b in [0, pi], x in [-5, 5]; ReLU network of 40-40-1 on x "
        "and n = 1, 2, 3 or 5 context parameters, its fresh weights uniform as in "
        "torch.nn.Linear; 50,000 meta-steps of 25 tasks, 10 support and 10 "
        "query points; one inner step at 1.0, second order, the meta-gradient of each task clamped "
        "to 10; Adam at 0.001. Judged on 4,000 new tasks of 100 points after the step, and on the "
        "first 100 of them as in the paper; mean squared error."
    ),
    source=(
        "Zintgraf et al. 2019, table 1 (its numbers were not checked against the text); "
        "protocol from github.com/lmzintgraf/cavia"
    ),
    quantities=(
        *(Quantity(_name(context), *known) for context, known in ERRORS.items()),
        *(Quantity(_first(context), known[0], known[1]) for context, known in ERRORS.items()),
    ),
    run=run,
    settings={
        f"n={n}": EXPERIMENT.override({"inner.context": n}).model_dump(mode="json") for n in ERRORS
    },
    note=(
        "The bands are narrower than the error of a mean over 100 tasks, so 4,000 tasks are judged."
    ),
)
