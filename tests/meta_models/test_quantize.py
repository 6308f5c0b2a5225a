"""Quantized backbones: gradients of any order are those of a model with the rounded weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from torch import Tensor

from meta_models import quantize
from meta_models.adapters import Adapter
from meta_models.backbone import Backbone, load_backbone
from meta_models.errors import ModelError
from meta_models.fingerprint import fingerprint
from meta_models.heads import Head
from meta_models.model import AdaptedModel
from meta_models.quantize import Product, Quantization, unpacking
from metalearn.algorithms.maml import MAML
from metalearn.inner.loop import InnerLoop

pytest.importorskip("bitsandbytes", reason="needs the extra 'quantized'")

KINDS: tuple[Quantization, ...] = ("8bit", "4bit")
NAMES = ("tiny-bert", "tiny-gpt2", "tiny-llama")
OPTIONS: dict[str, dict[str, Any]] = {
    "lora": {"r": 2},
    "dora": {"r": 2},
    "vera": {"r": 4},
    "ln_tuning": {},
    "prefix_tuning": {"num_virtual_tokens": 2},
}


def twins(
    name: str, kind: Quantization, dtype: torch.dtype = torch.float64
) -> tuple[Backbone, Backbone]:
    """A quantized model, and an ordinary one whose weights are the rounded ones."""
    packed = load_backbone(name, quantize=kind, dtype=dtype)
    plain = load_backbone(name, dtype=dtype)
    count = 0
    for path, module in packed.model.named_modules():
        if (unpack := unpacking(module)) is not None:
            weight: Any = plain.model.get_submodule(path).weight
            value = unpack(dtype)
            # GPT-2 stores its weights the other way round.
            value = value.T if type(plain.model.get_submodule(path)).__name__ == "Conv1D" else value
            with torch.no_grad():
                assert 0 < (weight - value).norm() < 0.4 * weight.norm()
                weight.copy_(value)
            count += 1
    assert count >= 4 * packed.layers
    return packed, plain


def learner(backbone: Backbone, method: str, order: int) -> MAML:
    adapter = Adapter(backbone, method, OPTIONS[method])
    model = AdaptedModel(adapter, Head("prototype", backbone.width))
    loop = InnerLoop(2, {"adapter": 0.05, "head": 0.05}, exact_steps=None if order == 2 else 0)
    found = MAML(model, loop)
    found.tasks_per_pass = 8 if model.batched else 1
    return found


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("method", OPTIONS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", NAMES)
def test_meta_gradients_are_those_of_the_rounded_weights(
    name: str, kind: Quantization, method: str, order: int, make_episode, generic
) -> None:
    """Second order through these weights is allowed because of this test."""
    episode = make_episode(tasks=2)
    packed, plain = twins(name, kind)
    mine, other = (learner(backbone, method, order) for backbone in (packed, plain))
    state = generic(other.init(torch.Generator()))
    ours, _ = mine.meta_gradient(state, episode)
    theirs, _ = other.meta_gradient(state, episode)

    assert ours.keys() == theirs.keys()
    scale = max(value.norm() for value in theirs.values())
    # Llama's norms and rotations round to fp32 inside.
    tolerance = 1e-5 if name == "tiny-llama" else 1e-9
    for key, value in theirs.items():
        assert (ours[key] - value).norm() <= tolerance * scale, key


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", KINDS)
def test_hidden_states_in_the_precision_of_training(
    kind: Quantization, dtype: torch.dtype, rows
) -> None:
    packed, plain = twins("tiny-bert", kind, dtype)
    ids, mask = rows
    ours, theirs = (Adapter(b, "none").hidden({}, ids, mask, None) for b in (packed, plain))
    assert ours.dtype == dtype
    torch.testing.assert_close(
        ours[mask], theirs[mask], rtol=1e-2, atol=10 * torch.finfo(dtype).eps
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", ["lora", "dora", "ia3", "vera", "bias"])
def test_several_tasks_go_through_one_product(kind: Quantization, method: str) -> None:
    backbone = load_backbone("tiny-bert", quantize=kind)
    assert Adapter(backbone, method, OPTIONS.get(method, {})).batched


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # by torch's forward mode
@pytest.mark.parametrize("transposed", [False, True])
def test_the_product_has_all_derivatives(transposed: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(3, 4, generator=generator, dtype=torch.float64)
    x = torch.randn(2, 3 if transposed else 4, generator=generator, dtype=torch.float64)
    x.requires_grad_()

    def squared(x: Tensor) -> Tensor:
        product: Any = Product.apply(x, weight.to, transposed)
        return product**2

    def mapped(x: Tensor) -> Tensor:
        return torch.vmap(squared, in_dims=1)(x[:, None])

    torch.testing.assert_close(mapped(x), squared(x)[None])
    for function in (squared, mapped):
        checks = {"check_batched_grad": True, "check_forward_ad": True}
        assert torch.autograd.gradcheck(function, (x,), **checks)
        assert torch.autograd.gradgradcheck(function, (x,), check_fwd_over_rev=True)


def test_unpacked_weights_are_not_kept_for_the_way_back() -> None:
    backbone = load_backbone("tiny-llama", quantize="4bit")
    adapter = Adapter(backbone, "lora", {"r": 2})
    values = {n: v.requires_grad_() for n, v in adapter.init(torch.Generator()).items()}
    ids = torch.full((1, 3), 7)
    kept = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tuple(tensor.shape))
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        adapter.hidden(values, ids, torch.ones_like(ids, dtype=torch.bool), None)

    large = {(16, 16), (16, 32), (32, 16)}
    assert kept and not large & set(kept)


@pytest.mark.parametrize("kind", KINDS)
def test_an_adapter_goes_out_and_comes_back(kind: Quantization, tmp_path: Path) -> None:
    adapter = Adapter(load_backbone("tiny-bert", quantize=kind), "lora", {"r": 2})
    values = {name: value + 1 for name, value in adapter.init(torch.Generator()).items()}
    adapter.export(values, tmp_path)
    back = adapter.read(tmp_path)
    assert all(torch.equal(back[name], value) for name, value in values.items())


@pytest.mark.parametrize("kind", KINDS)
def test_the_scales_belong_to_the_fingerprint(kind: Quantization) -> None:
    backbone = load_backbone("tiny-bert", quantize=kind)
    before = fingerprint(backbone, 1)
    assert before == fingerprint(load_backbone("tiny-bert", quantize=kind), 1)
    assert before != fingerprint(load_backbone("tiny-bert"), 1)
    weight: Any = backbone.model.get_parameter("encoder.layer.0.attention.self.query.weight")
    (weight.SCB if kind == "8bit" else weight.quant_state.absmax)[0] *= 2
    assert before != fingerprint(backbone, 1)


def test_without_bitsandbytes_one_line_says_what_to_install(monkeypatch) -> None:
    monkeypatch.setattr(quantize, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"^backbone.quantize 4bit needs .* 'metalearn\[quant"):
        load_backbone("tiny-bert", quantize="4bit")


def test_weights_that_others_quantized_are_refused() -> None:
    model: Any = load_backbone("tiny-bert").model
    model.is_quantized = True
    model.config.quantization_config = type("Other", (), {"quant_method": "gptq"})()
    with pytest.raises(ModelError, match=r"^weights quantized by gptq have no exact"):
        quantize.exact(model)


def test_the_setting_has_the_same_kinds() -> None:
    from experiments.config import BackboneSettings

    annotation = BackboneSettings.model_fields["quantize"].annotation
    assert get_args(annotation) == get_args(Quantization)
