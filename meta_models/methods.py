"""The adapter methods that have a name here: what each changes, its defaults and its paper.

Knows neither torch nor PEFT, so that `metalearn list` answers at once.  Any other method of PEFT
works by the lower-case name of its type.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Method:
    """An adapter method.

    Attributes:
        kind: PEFT type by its lower-case name.
        changes: What it does to the frozen model, in a few words and symbols.
        paper: Authors, year and title.
        fixed: Fields of the PEFT configuration that make it this method.
        defaults: Fields that options may change.
    """

    kind: str
    changes: str = ""
    paper: str = ""
    fixed: Mapping[str, Any] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)


METHODS = {
    "lora": Method(
        "lora",
        "W + (alpha / r) B A at the query and value projections",
        'Hu et al. 2022, "LoRA: Low-Rank Adaptation of Large Language Models", section 4.1',
        defaults={"r": 8, "lora_alpha": 16},
    ),
    "rslora": Method(
        "lora",
        "W + (alpha / sqrt r) B A: LoRA whose scale does not shrink with the rank",
        'Kalajdzievski 2023, "A Rank Stabilization Scaling Factor for Fine-Tuning with LoRA", '
        "section 3",
        fixed={"use_rslora": True},
        defaults={"r": 8, "lora_alpha": 16},
    ),
    "dora": Method(
        "lora",
        "m V / norm(V) row by row, V = W + (alpha / r) B A: LoRA with learned magnitudes m",
        'Liu et al. 2024, "DoRA: Weight-Decomposed Low-Rank Adaptation", section 4.1',
        fixed={"use_dora": True},
        defaults={"r": 8, "lora_alpha": 16},
    ),
    "ia3": Method(
        "ia3",
        "learned scales of keys, values and the inner units of the feed-forward",
        'Liu et al. 2022, "Few-Shot Parameter-Efficient Fine-Tuning is Better and Cheaper than '
        'In-Context Learning", section 3.3',
    ),
    "vera": Method(
        "vera",
        "W + diag(b) B diag(d) A: only b and d are learned, A and B are random and shared by all "
        "layers",
        'Kopiczko, Blankevoort and Asano 2024, "VeRA: Vector-based Random Matrix Adaptation", '
        "section 3.1",
        defaults={"r": 256},
    ),
    "prefix_tuning": Method(
        "prefix_tuning",
        "virtual keys and values that every layer attends to",
        'Li and Liang 2021, "Prefix-Tuning: Optimizing Continuous Prompts for Generation", '
        "section 4",
        defaults={"num_virtual_tokens": 8},
    ),
    "prompt_tuning": Method(
        "prompt_tuning",
        "virtual tokens before the text, started from words of the vocabulary",
        'Lester, Al-Rfou and Constant 2021, "The Power of Scale for Parameter-Efficient Prompt '
        'Tuning", section 2',
        defaults={"num_virtual_tokens": 8, "prompt_tuning_init": "SAMPLE_VOCAB"},
    ),
    "ln_tuning": Method(
        "ln_tuning",
        "weights and biases of the normalizations, those of the embeddings excepted",
        'Zhao et al. 2024, "Tuning LayerNorm in Attention: Towards Efficient Multi-Modal LLM '
        'Finetuning", figure 1',
    ),
    "bias": Method(
        "lora",
        "the biases of all layers (of `target_modules`, if given)",
        'Ben Zaken, Goldberg and Ravfogel 2022, "BitFit: Simple Parameter-efficient Fine-tuning '
        'for Transformer-based Masked Language-models", section 3',
        fixed={"bias": "all"},
        defaults={"r": 1},
    ),
}


def resolve(name: str, options: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """PEFT type and complete fields of a method.

    Args:
        name: A method of the table, or a PEFT type.
        options: Fields of the PEFT configuration, over the defaults of the method.

    Raises:
        ValueError: If the options turn the method into another one.

    Example:
        >>> resolve("dora", {"r": 4})
        ('lora', {'r': 4, 'lora_alpha': 16, 'use_dora': True})
        >>> resolve("lora", {"use_dora": True})
        Traceback (most recent call last):
        ValueError: use_dora makes it the method 'dora'; name that one
    """
    method = METHODS.get(name, Method(name))
    for other, variant in METHODS.items():
        added = variant.fixed.items() - method.fixed.items()
        if variant.kind == name and added and added <= options.items():
            raise ValueError(f"{min(added)[0]} makes it the method {other!r}; name that one")
    for given in method.fixed.keys() & options.keys():
        raise ValueError(f"{given} is what makes it {name!r}; leave it out")
    return method.kind, {**method.defaults, **options, **method.fixed}
