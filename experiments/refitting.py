"""A learner that trains nothing, adapted: its settings and the examples, adapted to when read.

The folder holds `support.jsonl` (text, text_b, label), `metalearn.json` (the record, with all
settings of the learner) and a README.  What it says of a text is what the learner said when the
folder was written: adapting is a function of settings and examples.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from experiments.adapted import RECORD, TEXTS_PER_PASS, batch_of, undamaged, written_whole
from experiments.build import Workshop, seeded
from experiments.config import Experiment
from experiments.files import read_json, write_json
from tasks.episode import Example
from tasks.sources.files import read_examples

SUPPORT = "support.jsonl"


def keep(
    output: Path, record: dict[str, Any], experiment: Experiment, examples: Sequence[Example]
) -> None:
    """Write the folder.

    Args:
        output: The folder.
        record: What is known of the adaptation; "algorithm" or "learner" is the learner's name.
        experiment: Its settings.
        examples: The support set.

    Raises:
        UserError: If another process has written there.
    """
    rows = [
        {"text": e.text, **({"text_b": e.text_b} if e.text_b else {}), "label": e.label}
        for e in examples
    ]
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    with written_whole(output) as folder:
        (folder / SUPPORT).write_text(lines, encoding="utf-8")
        (folder / "README.md").write_text(_card(record), encoding="utf-8")
        write_json(folder / RECORD, record | {"learns": experiment.model_dump(mode="json")})


def _card(record: dict[str, Any]) -> str:
    classes = "\n".join(f"- {name} ({count})" for name, count in record["examples"].items())
    return f"""# {record["learner"]}

A few-shot classifier without an adapter: {record["learner"]} adapts to the examples in `{SUPPORT}`
whenever it is read. Classes (number of examples):

{classes}

`metalearn predict FOLDER --input FILE` labels texts.
"""


class Refitted:
    """A learner that is adapted again, see `experiments.adapted.Adapted`.

    Args:
        folder: The folder.

    Raises:
        UserError: If a file in it is damaged.
    """

    def __init__(self, folder: Path) -> None:
        record = read_json(folder / RECORD)
        with undamaged(folder):
            self.labels = tuple(record["labels"])
            self.text_b = record["text_b"]
            workshop = Workshop(Experiment.model_validate(record["learns"]))
            self._support = read_examples(folder / SUPPORT, text_b="text_b" if self.text_b else "")
            if sorted({str(example.label) for example in self._support}) != list(self.labels):
                raise ValueError(f"{SUPPORT} has other classes")
            self._learner = workshop.learner(record.get("algorithm", record["learner"]))
        self._collator = workshop.collator
        support = batch_of(self._collator, self._support, self.labels)
        self._adapted = self._learner.adapt(self._learner.init(seeded(0)), support)[-1]

    @torch.no_grad()
    def logits(self, examples: Sequence[Example]) -> Tensor:
        """`[I, N]` logits of examples; their labels are not looked at."""
        rows = []
        for first in range(0, len(examples), TEXTS_PER_PASS):
            # Features are kept by number, and those of the support set are taken.
            chosen = [
                replace(example, id=len(self._support) + first + place, label=self.labels[0])
                for place, example in enumerate(examples[first : first + TEXTS_PER_PASS])
            ]
            batch = batch_of(self._collator, chosen, self.labels)
            rows.append(self._learner.predict(self._adapted, batch)[0])
        return torch.cat(rows)
