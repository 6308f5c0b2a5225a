"""Frozen copies: the storage that a learner's clone of a model adds, counted and not run.

The model lies on the device "meta", which has shapes and no numbers: eight billion parameters with
LoRA fit anywhere.  A clone is what each library makes before the first inner step of a task; new
are the storages of its tensors that no tensor of the model lies in.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from experiments.benchmarks.plan import Case
from meta_models.adapters import Adapter
from meta_models.backbone import random_backbone
from meta_models.params import leaves, stack


def count(case: Case) -> dict[str, Any]:
    """Bytes of the model, and of what one clone of it adds."""
    backbone = random_backbone(case.work.sizes, dtype=torch.bfloat16, device="meta")
    adapter = Adapter(backbone, "lora", {"r": case.work.rank})
    for name, parameter in adapter.model.named_parameters():
        parameter.requires_grad_(".lora_" in name)
    own = storages([*adapter.model.parameters(), *adapter.model.buffers()])
    if case.settings["of"] == "higher":  # it cannot patch PEFT's layers: the model without them
        bare = random_backbone(case.work.sizes, dtype=torch.bfloat16, device="meta").model
        held = clone("higher", bare)
    else:
        held = clone(case.settings["of"], adapter.model)
    added = {key: size for key, size in storages(held).items() if key not in own}
    return {"bytes": sum(added.values()), "model_bytes": sum(own.values())}


def storages(tensors: Iterable[Tensor]) -> dict[int, int]:
    """Bytes of each storage that a tensor lies in; on "meta" all have the same address.

    Example:
        >>> a = torch.zeros(3, 2, device="meta")
        >>> list(storages([a, a[0], a.clone()]).values())
        [24, 24]
    """
    found = [tensor.untyped_storage() for tensor in tensors]
    return {storage._cdata: storage.nbytes() for storage in found}


def clone(of: str, model: nn.Module) -> list[Tensor]:
    """The tensors of a clone for one task, as a library makes it."""
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    if of == "metalearn":  # what a meta-step makes of its state for one task
        state = leaves(trained)
        return [*state.values(), *stack(state, 1).values()]
    if of == "torch.func":  # a dictionary of what is there
        return list(trained.values())
    if of == "higher":
        import higher

        patched: Any = higher.monkeypatch(model, copy_initial_weights=False)
        return [*patched.parameters(), *patched.buffers()]
    if of == "learn2learn":
        from metalearn.inner.learn2learn_engine import learn2learn

        cloned = learn2learn().utils.clone_module(model)
        return [*cloned.parameters(), *cloned.buffers()]
    import torchopt

    state: Any = torchopt.extract_state_dict(model, by="copy")
    return [value for held in (*state.params, *state.buffers) for value in held.values()]
