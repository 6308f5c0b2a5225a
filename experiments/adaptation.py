"""From a few examples to an adapted model.

Of a learner with an adapter the folder is an ordinary PEFT adapter (`adapter_config.json`,
`adapter_model.safetensors`) with two files beside it: `head.safetensors` (head.weight `[N, D]`,
head.bias `[N]`, scale) and `metalearn.json` (labels, backbone, pooling, where it came from).  With
f(x) the pooled last hidden state under the adapter,

    logits(x) = scale * (W f(x) + b)

A learner that trains nothing keeps the examples instead (`experiments.refitting`).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from torch.nn.functional import cross_entropy

from experiments.adapted import RECORD, batch_of, refuse_occupied, written_whole
from experiments.build import Workshop
from experiments.errors import UserError
from experiments.files import write_json
from experiments.folder import environment
from experiments.prediction import HEAD
from experiments.refitting import keep
from experiments.selection.serving import is_fitted, ready_of_policy
from experiments.trained import TrainedRun
from meta_models.adapters import Adapter
from meta_models.params import Params, part, pick, stack
from metalearn.algorithms.protonet import Prototypes
from metalearn.learner import Adapted, Learner
from tasks.episode import Batch
from tasks.sources.files import read_examples


@dataclass(frozen=True)
class Ready:
    """A learner that can be adapted.

    Attributes:
        name: By which it was asked for.
        workshop: With its settings.
        learner: The learner.
        state: Its meta-parameters.
        origin: Where it comes from, for the record.
    """

    name: str
    workshop: Workshop
    learner: Learner
    state: Params
    origin: dict[str, Any]

    @property
    def has_adapter(self) -> bool:
        """Whether an adapter can be written."""
        return any(part(name) == "adapter" for name in self.state)


def adapt(
    run: Path,
    support: Path,
    output: Path,
    *,
    learner: str | None = None,
    steps: int | None = None,
) -> Path:
    """Adapt a learner to a user's examples, and write what `predict` reads.

    Args:
        run: Folder of a finished run, or of a policy that `metalearn select fit` wrote.
        support: Examples with columns text and label: N >= 2 classes, any number of each.
        output: Folder to write; it must not exist, or be empty.
        learner: Which learner; None: of a run the trained one with the best query accuracy, of a
            policy the one that it chooses for these examples.
        steps: Inner steps; None: what the run chose.

    Returns:
        `output`.

    Raises:
        UserError: If the run, the learner, the examples or the output folder cannot be used.
    """
    refuse_occupied(output)
    trained = None if is_fitted(run) else TrainedRun(run)
    pair = "" if trained is None else _check_text(trained)
    examples = read_examples(support, text_b=pair)
    count = Counter(str(example.label) for example in examples)
    if len(count) < 2:
        raise UserError(f"{support} has a single class, {next(iter(count))}; give at least two")
    settings = {} if steps is None else {"inner.steps": steps}
    if trained is None:
        ready = Ready(*ready_of_policy(run, learner, support, settings))
    else:
        name = _choose(trained, learner)
        ready = _of_run(trained, name, len(examples) / len(count), settings)
    labels = sorted(count)
    batch = batch_of(ready.workshop.collator, examples, labels)
    path = ready.learner.adapt(ready.state, batch)
    if steps and len(path) == 1:
        raise UserError(f"{ready.name} takes no inner steps; leave out --steps")
    before, after = (_fit(ready.learner, path[step], batch) for step in (0, -1))
    if not after["loss"] < float("inf"):
        raise UserError(f"{ready.name} diverged (loss {after['loss']}); give fewer --steps")
    record = {
        **ready.origin,
        "packages": environment()["packages"],
        "steps": len(path) - 1,
        "labels": labels,
        "examples": dict(sorted(count.items())),
        "support": {"before": before, "after": after},
        "text_b": pair,
    }
    if ready.has_adapter:
        values = _values(path[-1])
        record |= _model(ready.workshop) | {"context": len(values.get("context.vectors", ()))}
        _write(output.resolve(), ready.workshop.language_model.adapter, values, record)
    else:
        keep(output.resolve(), record, ready.workshop.experiment, examples)
    _show(run, output, record)
    return output


def _of_run(
    run: TrainedRun, name: str, shots: float, settings: dict[str, Any] | None = None
) -> Ready:
    cell = run.cell(name, shots=shots)
    workshop = run.workshop(cell, settings)
    learner = workshop.learner(name)
    origin = {"run": run.name, "experiment": run.experiment.name, **cell._asdict()}
    origin["settings"] = run.choice(cell)["settings"]
    return Ready(name, workshop, learner, run.state(learner, cell)[0], origin)


def _check_text(run: TrainedRun) -> str:
    """The column of the second text; refuses what is no run on classes of texts."""
    family, backbone = run.experiment.family, run.experiment.backbone.name
    if backbone == "mlp" or family.source == "sinusoid":
        raise UserError(
            f"run {run.path} learned regression with the {backbone}; "
            "adapt needs a run on text with a language model"
        )
    if family.kind != "class":
        raise UserError(f"run {run.path} has tasks of kind {family.kind}; adapt needs classes")
    return family.text_b


def _choose(run: TrainedRun, asked: str | None) -> str:
    """The learner asked for, or the best one with an adapter."""
    learners = run.learners()
    ready = [name for name in learners if _of_run(run, name, 0).has_adapter]
    if asked is not None:
        run.cell(asked)  # refuses a learner that the run does not have
        if asked in ready or not learners[asked]:
            return asked
    if not ready or asked is not None:
        them = f"learners of {run.path} that have: {', '.join(ready) or 'none'}"
        raise UserError(f"{asked or 'no learner'} has no adapter to write; {them}")
    accuracy: dict[str, list[float]] = {name: [] for name in learners}
    for row in run.result["rows"]:
        accuracy[row["learner"]].append(row["accuracy"]["mean"])
    trained = [name for name in ready if learners[name]] or ready
    return max(trained, key=lambda name: sum(accuracy[name]) / len(accuracy[name]))


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


def _model(workshop: Workshop) -> dict[str, Any]:
    """What has to be known of the model that an adapter is for."""
    experiment, model = workshop.experiment, workshop.language_model
    backbone = experiment.backbone.model_dump(mode="json") | {"pooling": model.pooling}
    if Path(backbone["name"]).is_dir():  # the folder is used from elsewhere
        backbone["name"] = str(Path(backbone["name"]).resolve())
    return {
        "base_model": model.adapter.backbone.model.name_or_path or backbone["name"],
        "backbone": backbone,
        "adapter": experiment.adapter.model_dump(mode="json"),
    }


def _write(output: Path, adapter: Adapter, values: Params, record: dict[str, Any]) -> None:
    inner = {n.split(".", 1)[1]: v for n, v in values.items() if part(n) == "adapter"}
    head = {name: values[name].contiguous().clone() for name in ("head.weight", "head.bias")}
    head["scale"] = values["scale"].exp()
    if "context.vectors" in values:
        head["context"] = adapter.neutral + values["context.vectors"]
    with written_whole(output) as folder:
        adapter.export(inner, folder)
        safetensors.torch.save_file(head, folder / HEAD)
        (folder / "README.md").write_text(_card(record), encoding="utf-8")
        write_json(folder / RECORD, record)


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
