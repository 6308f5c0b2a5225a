"""From a few examples to a PEFT adapter, and from an adapter folder to labels.

The folder is an ordinary PEFT adapter (`adapter_config.json`, `adapter_model.safetensors`) with
two files beside it: `head.safetensors` (head.weight `[N, D]`, head.bias `[N]`, scale) and
`metalearn.json` (labels, backbone, pooling, where it came from).  With f(x) the pooled last hidden
state under the adapter,

    logits(x) = scale * (W f(x) + b)
"""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from pydantic import ValidationError
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from safetensors import SafetensorError
from torch import Tensor
from torch.nn.functional import cross_entropy

from experiments.build import Workshop, build_model, seeded
from experiments.cells import Cell
from experiments.config import AdapterSettings, BackboneSettings, HeadSettings
from experiments.errors import UserError
from experiments.files import read_json, write_bytes, write_json
from experiments.folder import environment
from experiments.trained import TrainedRun
from meta_models.adapters import Adapter
from meta_models.model import AdaptedModel
from meta_models.params import Params, part, pick, stack
from metalearn.algorithms.protonet import Prototypes
from metalearn.learner import Adapted, Learner
from tasks.collate import Collator
from tasks.episode import Batch, Example, Task
from tasks.sources.files import read_examples

HEAD = "head.safetensors"
RECORD = "metalearn.json"
TEXTS_PER_PASS = 64  # of a prediction: the hidden states of 64 short texts are a few MB


def adapt(
    run: Path,
    support: Path,
    output: Path,
    *,
    learner: str | None = None,
    steps: int | None = None,
) -> Path:
    """Adapt a learner of a finished run to a user's examples and write a PEFT adapter folder.

    Args:
        run: Run folder.
        support: Examples with columns text and label: N >= 2 classes, any number of each.
        output: Folder to write; it must not exist, or be empty.
        learner: Which learner of the run; None: the trained one with the best query accuracy.
        steps: Inner steps; None: what the run chose.

    Returns:
        `output`.

    Raises:
        UserError: If the run, the learner, the examples or the output folder cannot be used.
    """
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UserError(f"{output} exists and is not empty; choose another --output")
    trained = TrainedRun(run)
    _check_text(trained)
    pair = trained.experiment.family.text_b
    examples = read_examples(support, text_b=pair)
    count = Counter(str(example.label) for example in examples)
    if len(count) < 2:
        raise UserError(f"{support} has a single class, {next(iter(count))}; give at least two")
    name = _choose(trained, learner)
    cell = trained.cell(name, shots=len(examples) / len(count))
    workshop = trained.workshop(cell, None if steps is None else {"inner.steps": steps})
    adapter = workshop.learner(name)
    batch = batch_of(workshop.collator, examples, sorted(count))
    path = adapter.adapt(trained.state(adapter, cell)[0], batch)
    if steps and len(path) == 1:
        raise UserError(f"{name} takes no inner steps; leave out --steps")
    before, after = (_fit(adapter, path[step], batch) for step in (0, -1))
    if not after["loss"] < float("inf"):
        raise UserError(f"{name} diverged (loss {after['loss']}); give fewer --steps")
    model, values = workshop.language_model, _values(path[-1])
    record = _record(trained, cell, workshop, model) | {
        "context": len(values.get("context.vectors", ())),
        "steps": len(path) - 1,
        "labels": sorted(count),
        "examples": dict(sorted(count.items())),
        "support": {"before": before, "after": after},
        "text_b": pair,
    }
    _write(output.resolve(), model.adapter, values, record)
    _show(run, output, record)
    return output


def _check_text(run: TrainedRun) -> None:
    family, backbone = run.experiment.family, run.experiment.backbone.name
    if backbone == "mlp" or family.source == "sinusoid":
        raise UserError(
            f"run {run.path} learned regression with the {backbone}; "
            "adapt needs a run on text with a language model"
        )
    if family.kind != "class":
        raise UserError(f"run {run.path} has tasks of kind {family.kind}; adapt needs classes")


def _choose(run: TrainedRun, asked: str | None) -> str:
    """The learner asked for, or the best one with an adapter."""
    learners = run.learners()
    if asked is not None:
        run.cell(asked)  # refuses a learner that the run does not have
        if _has_adapter(run, asked):
            return asked
    ready = [name for name in learners if _has_adapter(run, name)]
    if not ready or asked is not None:
        them = f"learners of {run.path} that have: {', '.join(ready) or 'none'}"
        raise UserError(f"{asked or 'no learner'} has no adapter to write; {them}")
    accuracy: dict[str, list[float]] = {name: [] for name in learners}
    for row in run.result["rows"]:
        accuracy[row["learner"]].append(row["accuracy"]["mean"])
    trained = [name for name in ready if learners[name]] or ready
    return max(trained, key=lambda name: sum(accuracy[name]) / len(accuracy[name]))


def _has_adapter(run: TrainedRun, name: str) -> bool:
    learner = run.workshop(run.cell(name)).learner(name)
    return any(part(key) == "adapter" for key in learner.init(seeded(0)))


def batch_of(collator: Collator, examples: Sequence[Example], labels: Sequence[str]) -> Batch:
    """Examples as the batch of one task.

    Args:
        collator: Tokenizes them.
        examples: Records with distinct ids.
        labels: Names of the classes, in the order of the logits.
    """
    ids = tuple(range(len(labels)))
    task = Task("examples", "class", tuple(examples), (), tuple(labels), ids)
    return collator.collate([task], [0]).support


def _fit(learner: Learner, adapted: Adapted, support: Batch) -> dict[str, float]:
    """Loss and accuracy on the examples that were adapted to."""
    logits = learner.predict(adapted, support)[0]
    assert support.labels is not None
    labels = support.labels[0]
    correct = (logits.argmax(-1) == labels).double().mean().item()
    return {"loss": cross_entropy(logits, labels).item(), "accuracy": correct}


def _values(adapted: Adapted) -> Params:
    """Adapter, head and scale without a task axis."""
    if isinstance(adapted, Prototypes):
        adapted = stack(pick(adapted.state, ("adapter",)), 1) | adapted.values
    return {name: value[0].detach() for name, value in adapted.items()}


def _record(run: TrainedRun, cell: Cell, workshop: Workshop, model: AdaptedModel) -> dict[str, Any]:
    experiment = workshop.experiment
    backbone = experiment.backbone.model_dump(mode="json") | {"pooling": model.pooling}
    if Path(backbone["name"]).is_dir():  # the folder is used from elsewhere
        backbone["name"] = str(Path(backbone["name"]).resolve())
    model_name = model.adapter.backbone.model.name_or_path or backbone["name"]
    origin = {
        "base_model": model_name,
        "run": run.name,
        "experiment": experiment.name,
    } | cell._asdict()
    return origin | {
        "settings": run.choice(cell)["settings"],
        "backbone": backbone,
        "adapter": experiment.adapter.model_dump(mode="json"),
        "packages": environment()["packages"],
    }


def _write(output: Path, adapter: Adapter, values: Params, record: dict[str, Any]) -> None:
    """Write the folder beside its place and move it there when it is whole."""
    temporary = output.with_name(f".{output.name}-{os.getpid()}.tmp")
    temporary.mkdir(parents=True)
    try:
        inner = {n.split(".", 1)[1]: v for n, v in values.items() if part(n) == "adapter"}
        adapter.export(inner, temporary)
        head = {name: values[name].contiguous().clone() for name in ("head.weight", "head.bias")}
        head["scale"] = values["scale"].exp()
        if "context.vectors" in values:
            head["context"] = adapter.neutral + values["context.vectors"]
        safetensors.torch.save_file(head, temporary / HEAD)
        (temporary / "README.md").write_text(_card(record), encoding="utf-8")
        write_json(temporary / RECORD, record)
        if output.exists() and any(output.iterdir()):  # another process was faster
            raise UserError(f"{output} exists and is not empty; choose another --output")
        os.replace(temporary, output)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _card(record: dict[str, Any]) -> str:
    """The folder's README: what it is and how to use it without this package."""
    classes = "\n".join(f"- {name} ({count})" for name, count in record["examples"].items())
    backbone = record["backbone"]
    unit = ", scaled to unit length" if backbone["normalize"] else ""
    prompt = (
        f"\nBefore the input embeddings of a text come the {record['context']} rows of `context`\n"
        f"in `{HEAD}`, left out again before the pooling."
        if record["context"]
        else ""
    )
    return f"""---
library_name: peft
tags: [{record["adapter"]["method"]}, text-classification, few-shot]
---
A {record["adapter"]["method"]} adapter of `{record["base_model"]}`,
adapted by {record["learner"]} in {record["steps"]} steps to these classes (number of examples):

{classes}

`metalearn predict FOLDER --input FILE` labels texts. Without it: load the backbone with
`transformers.AutoModel`, the adapter with `peft.PeftModel.from_pretrained(model, FOLDER)`; features
are the last hidden states, pooled by "{backbone["pooling"]}" over real tokens{unit}, and
`logits = scale * (features @ head.weight.T + head.bias)` with the tensors of `{HEAD}`.
The order of the classes is that of `labels` in `{RECORD}`.{prompt}
"""


def _show(run: Path, output: Path, record: dict[str, Any]) -> None:
    console = Console(highlight=False)
    table = Table(box=SIMPLE_HEAD, show_edge=False, padding=(0, 1))
    table.add_column("class")
    table.add_column("examples", justify="right")
    for name, count in record["examples"].items():
        table.add_row(escape(name), str(count))
    console.print(table)
    before, after = record["support"]["before"], record["support"]["after"]
    steps = record["steps"]
    how = f"{steps} inner steps" if steps else "no inner steps"
    lines = {
        "learner": f"{record['learner']} of {run}, {how}",
        "loss": f"{before['loss']:.3g} -> {after['loss']:.3g} on these examples",
        "accuracy": f"{before['accuracy']:.1%} -> {after['accuracy']:.1%} on these examples",
        "label texts": f"metalearn predict {output} --input FILE",
    }
    for name, line in lines.items():
        console.print(f"{name:<12} {line}", markup=False, soft_wrap=True)


class Classifier:
    """An adapted model as `adapt` wrote it: texts in, logits out.

    Args:
        folder: The adapter folder.

    Attributes:
        labels: Class names, in the order of the logits.
        text_b: Column of the second text; empty: single texts.

    Raises:
        UserError: If the folder is not one of `adapt`, or a file in it is damaged.
    """

    def __init__(self, folder: Path) -> None:
        if not (folder / RECORD).exists():
            raise UserError(f"{folder} has no {RECORD}; name a folder that metalearn adapt wrote")
        record = read_json(folder / RECORD)
        try:
            self.labels = tuple(record["labels"])
            self.text_b = record["text_b"]
            backbone = BackboneSettings.model_validate(record["backbone"])
            adapter = AdapterSettings.model_validate(record["adapter"])
            head = safetensors.torch.load_file(folder / HEAD)
            scale = head.pop("scale").log()
            context = head.pop("context", None)
        except (KeyError, TypeError, ValidationError, OSError, SafetensorError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(f"{folder} is damaged ({reason}); write it again with adapt") from None
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
    classifier = Classifier(adapter)
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
