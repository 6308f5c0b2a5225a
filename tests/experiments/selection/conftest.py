"""A performance matrix that was made up: which learner is best can be read from two features."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from experiments.selection import portfolio
from tests.experiments.selection import mortal_matrix as made

LEARNERS = made.UNTRAINED
FEATURES = ("shape.ways", "shape.shots", "words.tokens", "words.new_terms")
PASSES = (0.0, 0.0, 0.5, 1.0, 5.0)
SETS, QUERIES = 3, 68


def accuracies(features: np.ndarray) -> list[float]:
    """TF-IDF wins where `words.new_terms` is low, prototypes elsewhere."""
    low = features[3] < 0.5
    return [0.3, 0.8 if low else 0.4, 0.55, 0.5 if low else 0.75, 0.6]


def records(tasks: int = 40, sources: int = 8, seed: int = 0) -> list[dict]:
    """What the matrix keeps of every task."""
    random = np.random.default_rng(seed)
    found = []
    for task in range(tasks):
        features = random.uniform([2, 1, 5, 0], [8, 9, 40, 1])
        drawn = [
            {
                "support": [0],
                "example": list(range(QUERIES)),
                "label": [0] * QUERIES,
                "part": [query % 2 for query in range(QUERIES)],
            }
            for _ in range(SETS)
        ]
        learners = {}
        for name, passes, chance in zip(LEARNERS, PASSES, accuracies(features), strict=True):
            right = [(random.random(QUERIES) < chance).astype(int) for _ in range(SETS)]
            learners[name] = {
                "passes": passes,
                "unable": None,
                "try": chance,
                "predictions": [(1 - said).tolist() for said in right],
                "seconds": [0.01 * (1 + passes)] * SETS,
            }
        found.append(
            {
                "task": f"task{task}",
                "source": f"source{task % sources}",
                "seed": task,
                "features": dict(zip(FEATURES, map(float, features), strict=True)),
                "feature_seconds": {"shape": 0.001, "words": 0.002},
                "sets": drawn,
                "learners": learners,
            }
        )
    return found


def write_matrix(folder: Path, found: list[dict]) -> Path:
    """The folder of a matrix that holds these records."""
    from experiments.files import write_json
    from experiments.folder import environment
    from experiments.selection.matrix import _settings
    from experiments.selection.sources import Planned
    from experiments.selection.tables import store

    planned = [
        Planned(
            name=record["task"],
            source=record["source"],
            path="none.jsonl.gz",
            classes=("a", "b"),
            shots=1,
            queries=QUERIES,
            sets=SETS,
        )
        for record in found
    ]
    folder.mkdir(parents=True, exist_ok=True)
    settings = {"wanted": _settings(planned, LEARNERS), "environment": environment()}
    write_json(folder / "settings.json", settings)
    store(folder, found)
    return folder


@pytest.fixture(scope="module")
def tiny():
    """The tiny portfolio; the real one is put back."""
    trained, entries = portfolio.TRAINED, dict(portfolio.ENTRIES)
    made.tiny()
    yield
    portfolio.TRAINED = trained
    portfolio.ENTRIES.clear()
    portfolio.ENTRIES.update(entries)


@pytest.fixture
def make_matrix(tiny, tmp_path) -> Callable[..., Path]:
    """Makes a matrix; `change` is given the records before they are written."""

    def make(change: Callable[[list[dict]], None] | None = None, **sizes: int) -> Path:
        found = records(**sizes)
        if change is not None:
            change(found)
        return write_matrix(tmp_path / "matrix", found)

    return make


@pytest.fixture(scope="module")
def matrix(tiny, tmp_path_factory) -> Path:
    """A matrix that tests only read."""
    return write_matrix(tmp_path_factory.mktemp("selection") / "matrix", records())
