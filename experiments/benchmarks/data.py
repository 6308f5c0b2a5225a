"""The tensors that every method works on: the same texts, and the same start."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch

from experiments.benchmarks.plan import Work
from meta_models.params import Params
from tasks.episode import Batch, Episode, Tokens

SCALE = 10.0  # inverse temperature of the logits, as in the head's default
DEVIATION = 0.02  # of every other meta-parameter: LoRA's B too, so that no gradient is zero


def synthetic(work: Work, vocabulary: int) -> Episode:
    """T tasks of random tokens, every text of the same length: nothing to pad, nothing to pack.

    Args:
        work: Sizes.
        vocabulary: Number of token ids; the upper half is drawn from, where no special token lies.

    Example:
        >>> synthetic(Work(tasks=2, ways=3, shots=1), 512).support.tokens.ids.shape
        torch.Size([2, 3, 20])
    """
    generator = torch.Generator().manual_seed(0)

    def batch(examples: int, first: int) -> Batch:
        labels = torch.arange(work.ways).repeat_interleave(examples).expand(work.tasks, -1)
        shape = (*labels.shape, work.tokens)
        ids = torch.randint(vocabulary // 2, vocabulary, shape, generator=generator)
        classes = torch.arange(work.ways).expand(work.tasks, -1)
        return Batch(
            source=("synthetic",) * work.tasks,
            kind="class",
            ids=first + torch.arange(labels.numel()).view_as(labels),
            example_mask=torch.ones_like(labels, dtype=torch.bool),
            class_mask=torch.ones_like(classes, dtype=torch.bool),
            class_ids=classes,
            label_names=(tuple(f"class {c}" for c in range(work.ways)),) * work.tasks,
            tokens=Tokens(ids, torch.ones_like(ids, dtype=torch.bool)),
            labels=labels.contiguous(),
        )

    episode = Episode(tuple(range(work.tasks)), batch(work.shots, 0), batch(work.queries, 10**6))
    return episode.map(lambda tensor: tensor.to(work.device))


def initial(shapes: Mapping[str, tuple[int, ...]]) -> Params:
    """Meta-parameters at a point where no gradient vanishes, the same whoever asks.

    Args:
        shapes: Shape of each value; names as in a state of MAML.
    """
    generator = torch.Generator().manual_seed(1)
    values = {
        name: DEVIATION * torch.randn(shapes[name], generator=generator) for name in sorted(shapes)
    }
    return values | {"scale": torch.tensor(math.log(SCALE))}
