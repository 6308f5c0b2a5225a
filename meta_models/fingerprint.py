"""A name for all that the hidden states before layer j of a frozen model depend on."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Iterator
from importlib.metadata import version

import torch
from torch import Tensor

from meta_models.backbone import Backbone
from meta_models.targets import layer_of

FORMAT = 1  # of what is kept; another one never meets the files of this one


def fingerprint(backbone: Backbone, below: int) -> str:
    """32 hexadecimal digits, of the weights below layer j and of what computes with them.

    Equal fingerprints mean equal bits: versions, processor and number of threads count, since they
    decide in which order sums are taken.  The machine's name does as well: several machines that
    share a home folder cannot write one memory-mapped file.  Reads every weight below layer j: one
    or two seconds a gigabyte.

    Args:
        backbone: The frozen model, with or without an adapter at layer j and above.
        below: j.

    Example:
        >>> from meta_models.backbone import load_backbone
        >>> one, other = (load_backbone("tiny-bert", seed=seed) for seed in (0, 1))
        >>> fingerprint(one, 1) == fingerprint(one, 1) != fingerprint(other, 1)
        True
    """
    digest = hashlib.sha256(json.dumps(_settings(backbone, below), default=str).encode())
    for name, value in _weights(backbone, below):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        raw = value.detach().contiguous().cpu().flatten().view(torch.uint8)
        digest.update(raw.numpy().data)
    return digest.hexdigest()[:32]


def _settings(backbone: Backbone, below: int) -> list[object]:
    config = backbone.model.config.to_dict()  # pyright: ignore
    config.pop("_name_or_path", None)  # the same weights elsewhere
    device = next(backbone.model.parameters()).device
    on = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor()
    return [
        *(FORMAT, below, sorted(config.items())),
        backbone.model.config._attn_implementation,  # pyright: ignore
        backbone.tokenizer.backend_tokenizer.to_str(),
        *(torch.__version__, version("transformers"), platform.node()),
        *(str(device), on, torch.backends.cpu.get_cpu_capability()),
        *(torch.get_num_threads(), torch.get_float32_matmul_precision()),
    ]


def _weights(backbone: Backbone, below: int) -> Iterator[tuple[str, Tensor]]:
    """Values outside of layers and in those below j, without what PEFT puts there.

    Its method for biases puts a product that is zero, of random factors, into the first layer.
    """
    values = backbone.model.state_dict() | dict(backbone.model.named_buffers())
    for name, value in sorted(values.items()):
        if (layer_of(name) or 0) < below and ".lora_" not in name:
            yield name.replace(".base_layer", ""), value
