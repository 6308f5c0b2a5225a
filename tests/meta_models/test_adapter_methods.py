"""One table of named adapter methods and backbones, and what every pair must do."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from torch import Tensor

from meta_models.adapters import Adapter
from meta_models.backbone import load_backbone
from meta_models.errors import ModelError
from meta_models.methods import METHODS, resolve
from meta_models.params import Params, gradients

BACKBONES = ("tiny-bert", "tiny-gpt2", "tiny-llama")
SMALL = {
    "lora": {"r": 2, "lora_alpha": 4},
    "rslora": {"r": 2, "lora_alpha": 4},
    "dora": {"r": 2, "lora_alpha": 4},
    "vera": {"r": 4},
    "prefix_tuning": {"num_virtual_tokens": 2},
    "prompt_tuning": {"num_virtual_tokens": 2},
}
PROMPTS = ("prefix_tuning", "prompt_tuning")
# Llama has no biases; transformers looks into the 2-D mask of an encoder with virtual tokens.
TABLE = [
    (backbone, method)
    for method in METHODS
    for backbone in BACKBONES
    if (backbone, method) != ("tiny-llama", "bias")
]
IN_THE_LOOP = [("tiny-bert", method) for method in PROMPTS]
table = pytest.mark.parametrize(("backbone", "method"), TABLE)
identities = pytest.mark.parametrize(
    ("backbone", "method"), [pair for pair in TABLE if pair[1] not in PROMPTS]
)
both_precisions = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
Rows = tuple[Tensor, Tensor]


def installed(
    backbone: str, method: str, dtype: torch.dtype = torch.float64, **more: Any
) -> Adapter:
    more.setdefault("options", SMALL.get(method))
    return Adapter(load_backbone(backbone, dtype=dtype), method, **more)


def drawn(adapter: Adapter, seed: int = 0) -> Params:
    return adapter.init(torch.Generator().manual_seed(seed))


def frozen_states(backbone: str, rows: Rows, dtype: torch.dtype) -> Tensor:
    return installed(backbone, "none", dtype).hidden({}, *rows, None)


def test_every_method_has_its_row() -> None:
    assert {method for _, method in TABLE} == METHODS.keys()
    assert SMALL.keys() <= METHODS.keys()


@table
def test_it_adds_parameters(backbone: str, method: str) -> None:
    adapter = installed(backbone, method)
    frozen = sum(p.numel() for p in adapter.backbone.model.parameters())

    assert 0 < sum(v.numel() for v in drawn(adapter).values()) < frozen / 4
    assert drawn(installed(backbone, method, options=None))  # at the default options


@identities
@both_precisions
def test_a_fresh_one_is_the_frozen_model_bit_for_bit(
    backbone: str, method: str, dtype: torch.dtype, rows: Rows
) -> None:
    adapter = installed(backbone, method, dtype)
    expected = frozen_states(backbone, rows, dtype)

    values = drawn(adapter)
    states = adapter.hidden(values, *rows, None)
    stacked = {name: torch.stack([value] * 2) for name, value in values.items()}
    batched = torch.vmap(lambda v: adapter.hidden(v, *rows, None))(stacked)

    assert torch.equal(states[rows[1]], expected[rows[1]])
    torch.testing.assert_close(batched[1][rows[1]], expected[rows[1]])


@pytest.mark.parametrize("method", PROMPTS)
@pytest.mark.parametrize("backbone", BACKBONES)
def test_virtual_tokens_have_no_identity(backbone: str, method: str, rows: Rows) -> None:
    """Zeros take attention, too."""
    adapter = installed(backbone, method)
    zeros = {name: torch.zeros_like(value) for name, value in drawn(adapter).items()}

    states = adapter.hidden(zeros, *rows, None)

    expected = frozen_states(backbone, rows, torch.float64)
    assert (states - expected)[rows[1]].abs().amax(1).min() > 1e-3


@table
def test_batched_is_what_the_table_says(
    backbone: str, method: str, rows: Rows, generic: Any
) -> None:
    adapter = installed(backbone, method)
    assert adapter.batched is ((backbone, method) not in IN_THE_LOOP)
    if not adapter.batched:
        return
    tasks = [generic(drawn(adapter), seed=seed) for seed in (0, 1)]
    ids, mask = (torch.stack([part[:2], part[2:]]) for part in rows)
    stacked = {name: torch.stack([task[name] for task in tasks]) for name in tasks[0]}

    batched = torch.vmap(lambda v, i, m: adapter.hidden(v, i, m, None))(stacked, ids, mask)

    for task, values in enumerate(tasks):
        alone = adapter.hidden(values, ids[task], mask[task], None)
        real = mask[task]
        torch.testing.assert_close(batched[task][real], alone[real], rtol=1e-10, atol=1e-10)


@table
def test_every_value_matters_and_none_is_in_the_model(
    backbone: str, method: str, rows: Rows, generic: Any
) -> None:
    adapter = installed(backbone, method)
    before = {name: value.clone() for name, value in adapter.model.state_dict().items()}
    values = {n: v.requires_grad_() for n, v in generic(drawn(adapter)).items()}

    states = adapter.hidden(values, *rows, None)
    slopes = gradients((states * torch.randn_like(states)).sum(), values)

    if method == "bias":  # a bias of all keys moves all scores of a query alike
        slopes = {n: s for n, s in slopes.items() if ".key." not in n}
    assert all(slope.norm() > 0 for slope in slopes.values())
    after = adapter.model.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert not any(p.requires_grad for p in adapter.model.parameters())


@table
def test_what_is_exported_is_an_ordinary_peft_adapter(
    backbone: str, method: str, rows: Rows, tmp_path: Path, generic: Any
) -> None:
    adapter = installed(backbone, method, torch.float32)
    values = generic(drawn(adapter))
    ids, mask = rows
    before = {name: value.clone() for name, value in adapter.model.state_dict().items()}

    adapter.export(values, tmp_path)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT's own, about transformers and Conv1D
        theirs = peft.PeftModel.from_pretrained(load_backbone(backbone).model, str(tmp_path))
    with torch.no_grad():
        states = theirs.eval()(input_ids=ids, attention_mask=mask.long()).last_hidden_state
    expected = adapter.hidden(values, ids, mask, None)[mask]
    if method == "dora":  # the norm by another formula
        torch.testing.assert_close(states[mask], expected, rtol=1e-5, atol=1e-5)
    else:
        assert torch.equal(states[:, -7:][mask], expected)
    after = adapter.model.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())


@table
@both_precisions
def test_what_is_exported_is_read_bit_for_bit(
    backbone: str, method: str, dtype: torch.dtype, tmp_path: Path, rows: Rows, generic: Any
) -> None:
    adapter, other = installed(backbone, method, dtype), installed(backbone, method, dtype)
    values = generic(drawn(adapter))
    adapter.export(values, tmp_path)

    read = other.read(tmp_path)

    assert read.keys() == values.keys()
    assert all(torch.equal(read[name], values[name]) for name in values)
    states = (a.hidden(v, *rows, None) for a, v in ((adapter, values), (other, read)))
    assert torch.equal(*states)
    fresh = drawn(installed(backbone, method, dtype))
    assert all(torch.equal(value, fresh[name]) for name, value in drawn(other).items())


@pytest.mark.parametrize(("backbone", "method"), [pair for pair in TABLE if pair[1] not in PROMPTS])
@pytest.mark.parametrize("layer", [0, 1])
def test_layers_restrict_it(backbone: str, method: str, layer: int) -> None:
    whole = drawn(installed(backbone, method))
    some = drawn(installed(backbone, method, layers=(layer,)))

    assert 0 < len(some) < len(whole)
    assert set(some) == {name for name in whole if f".{layer}." in name}


@table
def test_an_unknown_option_is_named_in_one_line(backbone: str, method: str) -> None:
    with pytest.raises(ModelError, match=rf"'{method}'.*'rang'.*see \w+Config") as caught:
        installed(backbone, method, options={"rang": 3})

    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("method", "more", "message"),
    [
        ("lora", {"options": {"use_dora": True}}, "use_dora makes it the method 'dora'"),
        ("lora", {"options": {"use_rslora": True}}, "use_rslora makes it the method 'rslora'"),
        ("lora", {"options": {"bias": "all"}}, "bias makes it the method 'bias'"),
        ("lora", {"options": {"bias": "lora_only"}}, "learns no biases; the method 'bias' does"),
        ("dora", {"options": {"bias": "all"}}, "learns no biases; the method 'bias' does"),
        ("dora", {"options": {"use_dora": False}}, "use_dora is what makes it 'dora'"),
        ("bias", {"options": {"target_modules": ["quary"]}}, "quary match nothing in tiny-bert"),
        ("ln_tuning", {"layers": (2,)}, r"layers 0 to 1, not \[2\]"),
    ],
)
def test_one_name_a_method(method: str, more: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        installed("tiny-bert", method, **more)

    assert "\n" not in str(caught.value)


def test_a_model_without_biases_is_refused() -> None:
    with pytest.raises(ModelError, match="'bias': llama has no such parameters; choose another"):
        installed("tiny-llama", "bias")


# --- what is particular to a method -------------------------------------------------------------


def test_options_lie_over_the_defaults() -> None:
    assert resolve("lora", {"r": 4}) == ("lora", {"r": 4, "lora_alpha": 16})
    assert resolve("dora", {"use_rslora": True})[1]["use_rslora"] is True  # both at once
    assert resolve("randlora", {"r": 4}) == ("randlora", {"r": 4})  # any other PEFT type


def test_rank_stabilization_scales_by_the_root_of_the_rank(rows: Rows, generic: Any) -> None:
    """alpha / sqrt(r) is what LoRA has at sqrt(r) times its alpha."""
    stable = installed("tiny-bert", "rslora", options={"r": 4, "lora_alpha": 3})
    plain = installed("tiny-bert", "lora", options={"r": 4, "lora_alpha": 6})
    values = generic(drawn(stable))

    torch.testing.assert_close(
        stable.hidden(values, *rows, None), plain.hidden(values, *rows, None)
    )


@pytest.mark.parametrize("backbone", ["tiny-bert", "tiny-gpt2"])
def test_dora_differentiates_its_norm(backbone: str, rows: Rows, generic: Any) -> None:
    """PEFT's own layer takes the norm as a constant, so it misses a part of the slope in B."""
    adapter = installed(backbone, "dora")
    values = generic(drawn(adapter))
    weight = torch.randn_like(frozen_states(backbone, rows, torch.float64))

    def loss(values: Params) -> Tensor:
        return (adapter.hidden(values, *rows, None) * weight)[rows[1]].sum()

    leaves = {name: value.requires_grad_() for name, value in values.items()}
    slopes = gradients(loss(leaves), leaves)

    for name, value in values.items():
        line = torch.randn_like(value)
        ahead, behind = (
            loss(values | {name: value + sign * 1e-5 * line}).item() for sign in (1, -1)
        )
        expected = (slopes[name] * line).sum().item()
        assert (ahead - behind) / 2e-5 == pytest.approx(expected, rel=1e-6, abs=1e-8), name


def test_magnitudes_start_as_the_norms_of_the_weights() -> None:
    adapter = installed("tiny-bert", "dora")
    weights = dict(load_backbone("tiny-bert", dtype=torch.float64).model.named_parameters())

    for name, value in drawn(adapter).items():
        if "magnitude" in name:
            module = name.removeprefix("base_model.model.").partition(".lora_")[0]
            assert torch.equal(value, weights[f"{module}.weight"].norm(dim=1))


def test_projections_of_vera_are_those_of_their_key(rows: Rows, tmp_path: Path) -> None:
    first, same = (installed("tiny-bert", "vera") for _ in range(2))
    other = installed("tiny-bert", "vera", options={"r": 4, "projection_prng_key": 1})
    values = {name: value + 0.1 for name, value in drawn(first).items()}
    states = first.hidden(values, *rows, None)

    assert torch.equal(same.hidden(values, *rows, None), states)
    assert not torch.allclose(other.hidden(values, *rows, None), states)
    first.export(values, tmp_path)
    with pytest.raises(ModelError, match="not the vera adapter that tiny-bert carries"):
        other.read(tmp_path)
    assert torch.equal(same.hidden(same.read(tmp_path), *rows, None), states)


@pytest.mark.parametrize(
    ("backbone", "norms"),
    [
        (
            "tiny-bert",
            ["encoder.layer.0.attention.output.LayerNorm", "encoder.layer.0.output.LayerNorm"],
        ),
        ("tiny-gpt2", ["h.0.ln_1", "h.0.ln_2", "ln_f"]),
        (
            "tiny-llama",
            ["layers.0.input_layernorm", "layers.0.post_attention_layernorm", "norm"],
        ),
    ],
)
def test_normalizations_of_a_backbone(backbone: str, norms: list[str]) -> None:
    modules = {
        name.removeprefix("base_model.model.").partition(".ln_tuning_layers")[0]
        for name in drawn(installed(backbone, "ln_tuning"))
    }

    assert modules == {*norms, *(name.replace(".0.", ".1.") for name in norms)}


@pytest.mark.parametrize("family", ["Roberta", "Qwen2", "Qwen3", "ModernBert"])
def test_normalizations_and_biases_of_other_families(family: str, rows: Rows) -> None:
    import transformers

    config = getattr(transformers, f"{family}Config")(
        **{"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2},
        **{"intermediate_size": 32, "vocab_size": 512, "max_position_embeddings": 128},
        **{"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3},
        **({"num_key_value_heads": 2, "head_dim": 8} if "Qwen" in family else {}),
    )
    model = transformers.AutoModel.from_config(config, attn_implementation="eager").eval()
    backbone = load_backbone("tiny-bert")
    causal = "Qwen" in family
    backbone = type(backbone)(family, model, backbone.tokenizer, 16, 2, causal)
    adapter = Adapter(backbone, "ln_tuning")

    names = drawn(adapter).keys()

    assert adapter.batched
    assert any(".1." in name for name in names)
    assert not any("embed" in name for name in names)


def test_biases_are_those_of_the_paper() -> None:
    """Section 3: of queries, keys, values, three dense layers and two normalizations a layer."""
    values = drawn(installed("tiny-bert", "bias"))

    assert len(values) == 2 * 8
    assert all(name.endswith(".bias") and ".layer." in name for name in values)
    some = drawn(installed("tiny-bert", "bias", options={"target_modules": ["query"]}))
    assert len(some) == 2 and all(".query." in name for name in some)


def test_an_exported_bias_adapter_has_no_low_rank_part(tmp_path: Path, generic: Any) -> None:
    from safetensors.torch import load_file

    adapter = installed("tiny-bert", "bias")
    adapter.export(generic(drawn(adapter)), tmp_path)

    written = load_file(tmp_path / "adapter_model.safetensors")
    low_rank = [value for name, value in written.items() if "lora_" in name]
    assert len(low_rank) == 2 and not any(value.any() for value in low_rank)
    config = json.loads((tmp_path / "adapter_config.json").read_text(encoding="utf-8"))
    assert (config["peft_type"], config["bias"], config["r"]) == ("LORA", "all", 1)
