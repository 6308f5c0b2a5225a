"""What a meta-step of an experiment needs, predicted: bytes at the peak, and operations.

    peak = baseline + frozen weights + 5 x meta-parameters + kept states + activations

The learner's own meta-gradient runs on tensors without memory (`metalearn.footprint`), over a
backbone made from its configuration alone, so that any size can be asked about on any machine.
Five copies of the meta-parameters: their values, the best ones so far, the gradient, and the two
moments of AdamW.
"""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from experiments.build import Workshop, seeded
from experiments.config import Experiment
from experiments.errors import UserError
from meta_models.model import AdaptedModel
from meta_models.params import stack
from meta_models.targets import layers_of
from metalearn.allocators import Blocks, of_this_process
from metalearn.footprint import Footprint
from metalearn.learner import Learner
from tasks.episode import Batch, Episode, Tokens

COPIES = 5  # of the meta-parameters in training
LOOKED_AT = 8  # meta-steps among which the one with the longest texts is taken
BLOCK = 512  # bytes that the allocator of an accelerator rounds up to
MADE_UP = "made up"  # source of texts that are token numbers only
NAME_TOKENS = 4  # of a label name, where texts are made up


@dataclass(frozen=True)
class Estimate:
    """Bytes and operations of a meta-step.

    Attributes:
        baseline: Bytes of the process before it has a model; 0 on an accelerator.
        frozen: Bytes of the model's weights.
        training: Bytes of meta-parameters, gradients and optimizer.
        kept: Bytes of kept states of the layers below the first adapter, for the texts of a step;
            0 on an accelerator, which has not to keep them.
        activations: Most bytes that the meta-gradient holds at once.
        flops: Floating-point operations of matrix products in the meta-step.
        forward: Those of one forward pass over the support sets of its tasks.
        tasks: T.
        tasks_per_pass: Tasks whose graph is held at once.
    """

    baseline: int
    frozen: int
    training: int
    kept: int
    activations: int
    flops: int
    forward: int
    tasks: int
    tasks_per_pass: int

    @property
    def peak(self) -> int:
        """Bytes at the peak."""
        return self.baseline + self.frozen + self.training + self.kept + self.activations


def estimate(
    experiment: Experiment,
    learner: str,
    episode: Episode,
    *,
    accelerator: bool = False,
    baseline: int = 0,
    kept: dict[str, Any] | None = None,
) -> Estimate:
    """Predict a meta-step of one learner.

    Args:
        experiment: The settings; `inner.tasks_per_pass` is a number.
        learner: Its catalog name.
        episode: The tasks of the step.
        accelerator: Count as the allocator of an accelerator does.
        baseline: Bytes of the process itself.
        kept: Objects made before, shared where settings agree.

    Raises:
        UserError: If the learner trains nothing.
    """
    if experiment.inner.adjoint == "auto":  # nothing here can be timed
        experiment = experiment.override({"inner.adjoint": "reverse"})
    made = Workshop(experiment, kept, weights=False).learner(learner)
    if not made.trains:
        raise UserError(f"learner {learner} trains nothing; name one that does with --learner")
    return _measure(made, episode, experiment.backbone.quantize, accelerator, baseline)


def _measure(
    learner: Learner, episode: Episode, quantize: str, accelerator: bool, baseline: int
) -> Estimate:
    block = BLOCK if accelerator else 1
    state = learner.init(seeded(0))
    model: Any = getattr(learner, "model", None)
    size, tasks = learner.tasks_per_pass, episode.tasks
    frozen = states = forward = 0
    if isinstance(model, AdaptedModel):
        frozen = _frozen(model, quantize, block)
        few = episode.select(0, min(size, tasks))
        with Footprint(), torch.no_grad():
            for batch in (episode.support, episode.query):
                for tokens in (batch.tokens, batch.names):
                    if tokens is not None:
                        model.arrange(tokens)  # from now on the states of the texts are kept
            values = model.start(stack(state, few.tasks), few.support)
            with Footprint() as once:
                model.features(values, few.support)
        forward = once.flops * tasks // few.tasks
        if model.trunk is not None and not accelerator:  # else in the memory of the machine
            backbone = model.adapter.backbone
            states = count_tokens(episode) * backbone.width * backbone.dtype.itemsize
    # Tasks that are alike make passes that are; the later ones find the gradient of the first.
    alike = episode.support.source[0] == MADE_UP and size < tasks and tasks % size == 0
    part = episode.select(0, size) if alike else episode
    with Footprint(Blocks(BLOCK) if accelerator else of_this_process()) as found:
        learner.meta_gradient(state, part)
    own = _bytes(list(state.values()), block)
    return Estimate(
        baseline=baseline,
        frozen=frozen,
        training=(COPIES + alike) * own,
        kept=states,
        activations=found.peak,
        flops=found.flops * tasks // part.tasks,
        forward=forward,
        tasks=tasks,
        tasks_per_pass=min(size, tasks),
    )


def _frozen(model: AdaptedModel, quantize: str, block: int) -> int:
    """Bytes of the weights, as they are stored."""
    network = model.adapter.model
    total = _bytes([*network.parameters(), *network.buffers()], block)
    if quantize == "none":
        return total
    linear = [
        module.weight
        for layer in layers_of(model.adapter.backbone)
        for name, module in layer.named_modules()
        if isinstance(module, torch.nn.Linear) and "lora" not in name
    ]
    for weight in linear:
        # int8 with a scale a row, or four bits with a scale for 64 values
        rest = 4 * len(weight) if quantize == "8bit" else weight.numel() // 2 + weight.numel() // 16
        packed = weight.numel() + rest if quantize == "8bit" else rest
        total -= weight.numel() * weight.element_size() - packed
    # One of them is unpacked at a time.
    return total + max(weight.numel() * weight.element_size() for weight in linear)


def _bytes(tensors: Sequence[torch.Tensor], block: int) -> int:
    return sum(-(-x.numel() * x.element_size() // block) * block for x in tensors)


def tasks_of_a_step(workshop: Workshop, tokens: int | None = None) -> Episode:
    """The tasks of a meta-step.

    Args:
        workshop: Objects of the experiment, with weights or without.
        tokens: L, tokens of every text, which are made up; None: the family's own tasks, of the
            first meta-steps the one with most tokens.

    Raises:
        UserError: If there is no tokenizer and `tokens` is None.
    """
    experiment = workshop.experiment
    if tokens is not None:
        return texts_of_length(experiment, tokens)
    if experiment.backbone.name != "mlp":
        tokenizer = workshop.language_model.adapter.backbone.tokenizer
        if tokenizer is None:
            raise UserError(
                f"backbone {experiment.backbone.name} has no tokenizer here; "
                "give the length of its texts: --tokens 32"
            )
    shots = 0 if experiment.episodes.train_shots else max(experiment.episodes.shots)
    drawn = workshop.training_episodes(shots, experiment.seeds[0])
    steps = min(LOOKED_AT, experiment.outer.steps)
    return max((drawn(step) for step in range(steps)), key=count_tokens)


def count_tokens(episode: Episode) -> int:
    """Real tokens of support and query."""
    texts = (episode.support.tokens, episode.query.tokens)
    return sum(int(text.mask.sum()) for text in texts if text is not None)


def texts_of_length(experiment: Experiment, tokens: int) -> Episode:
    """T tasks of the experiment's shape whose texts all have so many tokens.

    Args:
        experiment: The settings.
        tokens: L.

    Example:
        >>> texts_of_length(Experiment(), 7).support.tokens.ids.shape
        torch.Size([4, 5, 7])
    """
    wanted, tasks = experiment.episodes, experiment.outer.tasks
    ways = wanted.ways if wanted.train_ways is None else wanted.train_ways
    ways = ways if isinstance(ways, int) else ways[1]
    if not ways:
        raise UserError("episodes.ways is 0, all classes; give a number of them beside --tokens")
    shots = wanted.train_shots[1] if wanted.train_shots else max(wanted.shots)
    names = Tokens(_ids(tasks, ways, NAME_TOKENS), torch.ones(tasks, ways, NAME_TOKENS).bool())

    def batch(examples: int) -> Batch:
        labels = torch.arange(ways).repeat_interleave(examples).repeat(tasks, 1)
        ids = _ids(*labels.shape, tokens)
        return Batch(
            source=(MADE_UP,) * tasks,
            kind="class",
            ids=torch.arange(labels.numel()).view_as(labels),
            example_mask=torch.ones_like(labels, dtype=torch.bool),
            class_mask=torch.ones(tasks, ways, dtype=torch.bool),
            class_ids=torch.arange(ways).repeat(tasks, 1),
            label_names=(tuple(f"class {c}" for c in range(ways)),) * tasks,
            tokens=Tokens(ids, torch.ones_like(ids, dtype=torch.bool)),
            labels=labels,
            names=names,
        )

    queries = wanted.train_queries or wanted.queries
    return Episode(tuple(range(tasks)), batch(shots), batch(queries))


def _ids(*shape: int) -> torch.Tensor:
    """Token ids, all different texts; every vocabulary has that many."""
    return torch.randint(5, 300, shape, generator=torch.Generator().manual_seed(0))


def process_baseline(shop: Workshop, learner: str) -> int:
    """Bytes of a training process but for weights and tensors: Python, libraries, tokenizer.

    Args:
        shop: Objects without weights; they are made here, and with them their libraries loaded.
        learner: Catalog name of the learner.
    """
    for module in ("experiments.run", "torch._dynamo"):  # the last comes with the optimizer
        import_module(module)
    shop.learner(learner)
    return resident()


def resident() -> int:
    """Bytes of this process in memory, now (where the system does not say it: at most)."""
    status = Path("/proc/self/statm")
    if status.exists():
        return int(status.read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return peak_resident()


def peak_resident() -> int:
    """Bytes of this process in memory, at most so far."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
