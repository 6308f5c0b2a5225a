"""From a folder that `adapt` wrote to labels.

An adapter's folder is read as PEFT would (`experiments.adaptation` says what is in it); a learner
without an adapter adapts again to the examples in its folder (`experiments.refitting`).
"""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from torch import Tensor

from experiments.adapted import RECORD, TEXTS_PER_PASS, Adapted, batch_of, undamaged
from experiments.build import build_model
from experiments.config import AdapterSettings, BackboneSettings, HeadSettings
from experiments.errors import UserError
from experiments.files import read_json, write_bytes
from experiments.refitting import Refitted
from meta_models.params import stack
from tasks.collate import Collator
from tasks.episode import Example
from tasks.sources.files import read_examples

HEAD = "head.safetensors"


def opened(folder: Path) -> Adapted:
    """What a folder of `adapt` holds.

    Raises:
        UserError: If it is none, or a file in it is damaged.
    """
    if not (folder / RECORD).exists():
        raise UserError(f"{folder} has no {RECORD}; name a folder that metalearn adapt wrote")
    if (folder / HEAD).exists():
        return Classifier(folder)
    return Refitted(folder)


class Classifier:
    """An adapted model, see `Adapted`.

    Args:
        folder: The adapter folder.

    Attributes:
        labels: Class names, in the order of the logits.
        text_b: Column of the second text; empty: single texts.

    Raises:
        UserError: If a file in it is damaged.
    """

    def __init__(self, folder: Path) -> None:
        record = read_json(folder / RECORD)
        with undamaged(folder):
            self.labels = tuple(record["labels"])
            self.text_b = record["text_b"]
            backbone = BackboneSettings.model_validate(record["backbone"])
            adapter = AdapterSettings.model_validate(record["adapter"])
            head = safetensors.torch.load_file(folder / HEAD)
            scale = head.pop("scale").log()
            context = head.pop("context", None)
        if len(self.labels) != len(head["head.weight"]):
            raise UserError(f"{folder}: {RECORD} and {HEAD} differ in classes; adapt again")
        size = 0 if context is None else len(context)
        self.model = build_model(backbone, adapter, HeadSettings(), size)
        values = self.model.adapter.read(folder)
        values = {f"adapter.{name}": value for name, value in values.items()}
        if context is not None:
            values["context.vectors"] = context - self.model.adapter.neutral
        self._values = stack(values | head | {"scale": scale}, 1)
        self._collator = Collator(
            self.model.adapter.backbone.tokenizer, max_length=backbone.max_length
        )

    @torch.no_grad()
    def logits(self, examples: Sequence[Example]) -> Tensor:
        """`[I, N]` logits of examples; their labels are not looked at."""
        rows = []
        for first in range(0, len(examples), TEXTS_PER_PASS):
            # A batch wants labels, and those of the user may be missing or unknown here.
            chosen = [
                replace(example, label=self.labels[0])
                for example in examples[first : first + TEXTS_PER_PASS]
            ]
            batch = batch_of(self._collator, chosen, self.labels)
            rows.append(self.model.logits(self._values, batch)[0])
        return torch.cat(rows)


def predict(adapter: Path, input: Path, output: Path | None = None) -> None:
    """Label texts with an adapted model.

    Args:
        adapter: Folder that `adapt` wrote.
        input: Texts: jsonl, jsonl.gz, csv or parquet with a column text, or txt, one a line.
        output: A jsonl or csv file to write (replacing it); None: standard output, as a table on
            a terminal and tab-separated elsewhere.

    Raises:
        UserError: If the folder or the name of the output cannot be used.
        TaskError: If the texts cannot be read.
    """
    if output is not None and output.suffix not in (".jsonl", ".csv"):
        raise UserError(f"cannot write {output}; give an --output that ends in .jsonl or .csv")
    if output is not None and output.resolve() == input.resolve():
        raise UserError(f"--output {output} would replace the input; choose another file")
    classifier = opened(adapter)
    examples = read_examples(input, text_b=classifier.text_b, labeled=False)
    probability, said = classifier.logits(examples).softmax(-1).max(-1)
    labels = [classifier.labels[index] for index in said.tolist()]
    rows = [
        {"text": example.text}
        | ({"text_b": example.text_b} if classifier.text_b else {})
        | {"label": label, "probability": round(p, 6)}
        for example, label, p in zip(examples, labels, probability.tolist(), strict=True)
    ]
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(output, _encoded(rows, output.suffix).encode())
        print(output)
    elif sys.stdout.isatty():
        Console().print(_table(rows, [example.label for example in examples]))
    else:
        for row in rows:
            print("\t".join(" ".join(str(value).split()) for value in row.values()))
    _say_accuracy(examples, labels, classifier.labels)


def _encoded(rows: list[dict[str, Any]], ending: str) -> str:
    if ending == ".jsonl":
        return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _table(rows: list[dict[str, Any]], known: Sequence[str | None]) -> Table:
    """Predictions for a terminal; wrong ones are marked where the label is known."""
    table = Table(box=SIMPLE_HEAD, show_edge=False, padding=(0, 1))
    for name in rows[0]:
        table.add_column(name, justify="right" if name == "probability" else "left")
    for row, label in zip(rows, known, strict=True):
        wrong = label is not None and label != row["label"]
        shown = row | {
            "label": f"{row['label']} (not {label})" if wrong else row["label"],
            "probability": f"{row['probability']:.3f}",
        }
        cells = [escape(str(value or "")) for value in shown.values()]
        table.add_row(*cells, style="red" if wrong else None)
    return table


def _say_accuracy(examples: Sequence[Example], said: Sequence[str], labels: Sequence[str]) -> None:
    """Accuracy over the labeled texts, on standard error: standard output is for the labels."""
    pairs = [(e.label, s) for e, s in zip(examples, said, strict=True) if e.label is not None]
    if not pairs:
        return
    correct = sum(true == guess for true, guess in pairs)
    line = f"accuracy {correct / len(pairs):.1%} ({correct} of {len(pairs)} labeled texts)"
    unknown = sorted({true for true, _ in pairs} - set(labels))
    if unknown:
        line += f"; labels this adapter does not have: {', '.join(unknown)}"
    print(line, file=sys.stderr)
