"""A matrix of a tiny portfolio, in some processes: `mortal_matrix.py DIR N WORKERS` kills itself
before task N; with N = none it goes to the end."""

import json
import os
import signal
import sys
from pathlib import Path

from experiments.config import AdapterSettings, BackboneSettings, Experiment, FamilySettings
from experiments.selection import bench, matrix, portfolio
from experiments.selection.portfolio import Entry
from experiments.selection.sources import Planned

TINY = Experiment(
    name="tiny",
    family=FamilySettings(name="clinc150"),
    backbone=BackboneSettings(name="tiny-bert", max_length=32, trunk_disk=0.0),
    adapter=AdapterSettings(layers=(1,)),
    threads=1,
)
ENTRIES = {
    "majority": Entry("majority", "none"),
    "tfidf-bayes": Entry("tfidf-bayes", "tfidf"),
    "half-ridge": Entry("ridge", "tiny-bert@1"),
    "prototypes": Entry("prototypes", "tiny-bert"),
    "lora": Entry("finetune", "tiny-bert", TINY.adapter, {"inner.steps": 2}),
    "protonet": Entry("protonet", "tiny-bert", TINY.adapter, trained=True),
}
UNTRAINED = tuple(name for name, entry in ENTRIES.items() if not entry.trained)


def tiny() -> None:
    """Put a portfolio of random models in the place of the real one."""
    portfolio.TRAINED = TINY
    portfolio.ENTRIES.clear()
    portfolio.ENTRIES.update(ENTRIES)


def plan(folder: Path, tasks: int = 4) -> list[Planned]:
    """Tasks of a made-up file: a class has a word of its own in most of its texts."""
    folder.mkdir(exist_ok=True)
    rows = [
        {"text": f"{'abcdef'[c] * 3 if i % 5 else 'xyz'} w{i} v{i % 7}", "label": f"class {c}"}
        for c in range(4)
        for i in range(40)
    ]
    path = folder / "made.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return [
        Planned(
            name=f"task-{n}",
            source=f"source {n % 2}",
            path=str(path),
            classes=tuple(f"class {c}" for c in range(2 + n % 3)),
            shots=1 + 3 * n,
            balanced=n < 3,
            queries=8,
            sets=3,
        )
        for n in range(tasks)
    ]


def die_before(task: str) -> None:
    judge = bench.Bench.judge

    def counted(self: bench.Bench, planned: Planned, folds: int) -> dict:
        if planned.name == task:
            os.kill(os.getpid(), signal.SIGKILL)
        return judge(self, planned, folds)

    bench.Bench.judge = counted


if __name__ in ("__main__", "__mp_main__"):  # its workers see the same portfolio
    tiny()
if __name__ == "__main__":
    die_before(f"task-{sys.argv[2]}")
    place = Path(sys.argv[1])
    matrix.compute(place / "matrix", plan(place), UNTRAINED, int(sys.argv[3]))
