"""PEFT adapters: what they compute, where they sit, and their way in and out."""

from __future__ import annotations

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
from meta_models.params import Params

OPTIONS = {
    "lora": {"r": 2, "lora_alpha": 4},
    "ia3": {},
    "vera": {"r": 4},
    "prefix_tuning": {"num_virtual_tokens": 2},
    "prompt_tuning": {"num_virtual_tokens": 2},
}
CASES = [
    (backbone, method)
    for backbone in ("tiny-bert", "tiny-gpt2")
    for method in ("lora", "ia3", "vera", "prefix_tuning")
]
cases = pytest.mark.parametrize(("backbone", "method"), CASES)
identities = pytest.mark.parametrize(
    ("backbone", "method"),
    [case for case in CASES if case[1] != "prefix_tuning"] + [("tiny-llama", "lora")],
)
Rows = tuple[Tensor, Tensor]


def installed(backbone: str, method: str, **more: Any) -> Adapter:
    frozen = load_backbone(backbone, dtype=torch.float64)
    options = more.pop("options", OPTIONS.get(method))
    return Adapter(frozen, method, options, **more)


def drawn(adapter: Adapter, seed: int = 0) -> Params:
    return adapter.init(torch.Generator().manual_seed(seed))


# --- what an adapter computes -------------------------------------------------------------------


@identities
def test_a_fresh_adapter_changes_nothing(
    backbone: str, method: str, rows: Rows, frozen, plain
) -> None:
    """So the mask of ours gives what transformers makes of a plain 2-D one, too."""
    adapter = installed(backbone, method)
    ids, mask = rows

    states = adapter.hidden(drawn(adapter), ids, mask, None)

    expected = plain(frozen(backbone), ids, mask)
    torch.testing.assert_close(states[mask], expected[mask], rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("backbone", ["tiny-bert", "tiny-gpt2", "tiny-llama"])
def test_no_adapter_is_the_backbone(backbone: str, rows: Rows, frozen, plain) -> None:
    adapter = installed(backbone, "none")
    ids, mask = rows

    assert drawn(adapter) == {}
    torch.testing.assert_close(
        adapter.hidden({}, ids, mask, None)[mask],
        plain(frozen(backbone), ids, mask)[mask],
        rtol=1e-6,
        atol=1e-8,
    )


def test_segments_reach_the_model(rows: Rows, frozen, plain) -> None:
    adapter = installed("tiny-bert", "lora")
    ids, mask = rows
    segments = torch.ones_like(ids).cumsum(1).gt(2).long()

    states = adapter.hidden(drawn(adapter), ids, mask, segments)

    expected = plain(frozen("tiny-bert"), ids, mask, token_type_ids=segments)
    torch.testing.assert_close(states[mask], expected[mask])
    assert not torch.allclose(states, adapter.hidden(drawn(adapter), ids, mask, None))


@pytest.mark.parametrize("method", ["prefix_tuning", "prompt_tuning"])
@pytest.mark.parametrize("backbone", ["tiny-bert", "tiny-gpt2"])
def test_virtual_tokens_change_the_output_but_not_its_length(
    backbone: str, method: str, rows: Rows, frozen, plain
) -> None:
    adapter = installed(backbone, method)
    ids, mask = rows

    states = adapter.hidden(drawn(adapter), ids, mask, None)

    expected = plain(frozen(backbone), ids, mask)
    assert states.shape == expected.shape
    assert (states - expected)[mask].abs().amax(1).min() > 1e-3


@cases
def test_padding_changes_nothing(backbone: str, method: str, rows: Rows, generic) -> None:
    adapter = installed(backbone, method)
    values = generic(drawn(adapter))
    ids, mask = rows

    together = adapter.hidden(values, ids, mask, None)

    for row, n in enumerate(mask.sum(1).tolist()):
        alone = adapter.hidden(values, ids[row : row + 1, :n], mask[row : row + 1, :n], None)
        torch.testing.assert_close(together[row, :n], alone[0], rtol=1e-9, atol=1e-10)


@cases
def test_every_value_matters(backbone: str, method: str, rows: Rows, generic) -> None:
    adapter = installed(backbone, method)
    values = {n: v.requires_grad_() for n, v in generic(drawn(adapter)).items()}

    states = adapter.hidden(values, *rows, None)
    slopes = torch.autograd.grad((states * torch.randn_like(states)).sum(), list(values.values()))

    assert all(slope.norm() > 0 for slope in slopes)


@cases
def test_values_enter_as_arguments_only(backbone: str, method: str, rows: Rows, generic) -> None:
    """The model's own parameters neither change nor collect a gradient."""
    adapter = installed(backbone, method)
    values = {n: v.requires_grad_() for n, v in generic(drawn(adapter)).items()}
    before = {n: p.clone() for n, p in adapter.model.named_parameters()}

    adapter.hidden(values, *rows, None).square().sum().backward()
    drawn(adapter, seed=5)

    after = dict(adapter.model.named_parameters())
    assert after.keys() == before.keys()
    assert all(torch.equal(after[n], before[n]) for n in before)
    assert not any(p.requires_grad or p.grad is not None for p in after.values())
    assert all(value.grad is not None for value in values.values())


# --- fresh values -------------------------------------------------------------------------------


@cases
def test_fresh_values_are_decided_by_the_generator(backbone: str, method: str) -> None:
    adapter, twin = installed(backbone, method), installed(backbone, method)
    random_before = torch.random.get_rng_state()
    first, same, other = drawn(adapter), drawn(twin), drawn(adapter, seed=1)

    assert first.keys() == same.keys() == other.keys()
    assert all(torch.equal(first[n], same[n]) for n in first)
    assert {v.dtype for v in first.values()} == {torch.float64}
    assert torch.equal(torch.random.get_rng_state(), random_before)
    if method in ("lora", "prefix_tuning"):
        assert any(not torch.equal(first[n], other[n]) for n in first)


def test_two_draws_of_one_generator_differ() -> None:
    adapter, generator = installed("tiny-bert", "lora"), torch.Generator().manual_seed(0)
    first, second = adapter.init(generator), adapter.init(generator)

    assert any(not torch.equal(first[n], second[n]) for n in first)


def test_fresh_lora_values_follow_the_law_of_peft() -> None:
    """A is uniform with bound 1 / sqrt(fan in) (Kaiming with a = sqrt 5), B is zero."""
    adapter = installed("tiny-bert", "lora", options={"r": 8})
    values = drawn(adapter)
    a = torch.cat([v.flatten() for n, v in values.items() if "lora_A" in n])

    assert len(a) == 4 * 8 * 16
    assert all((v == 0).all() for n, v in values.items() if "lora_B" in n)
    assert a.abs().max() <= 0.25
    assert a.std().item() == pytest.approx(0.25 / 3**0.5, rel=0.1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = peft.LoraConfig(r=8, target_modules=["query", "value"])
        fresh = dict(
            peft.get_peft_model(load_backbone("tiny-bert").model, config).named_parameters()
        )
    theirs = torch.cat([fresh[n].detach().flatten() for n in values if "lora_A" in n])
    assert theirs.std().item() == pytest.approx(a.std().item(), rel=0.1)


# --- where it sits ------------------------------------------------------------------------------


@pytest.mark.parametrize("backbone", ["tiny-bert", "tiny-gpt2", "tiny-llama"])
@pytest.mark.parametrize("layer", [0, 1])
def test_layers_that_are_not_named_carry_nothing(backbone: str, layer: int) -> None:
    whole = drawn(installed(backbone, "lora"))
    some = drawn(installed(backbone, "lora", layers=(layer,)))

    assert 0 < len(some) < len(whole)
    assert set(some) == {n for n in whole if f".{layer}." in n}


def test_the_frozen_layers_below_stay_as_they_were(rows: Rows, frozen, plain, generic) -> None:
    adapter = installed("tiny-bert", "lora", layers=(1,))
    values = generic(drawn(adapter))
    states = {}
    layer = adapter.backbone.model.encoder.layer[0]  # pyright: ignore
    handle = layer.register_forward_hook(lambda *call: states.update(first=call[-1]))
    last = adapter.hidden(values, *rows, None)
    handle.remove()
    first = states["first"][0] if isinstance(states["first"], tuple) else states["first"]

    ids, mask = rows
    with torch.no_grad():
        expected = frozen("tiny-bert")(
            input_ids=ids, attention_mask=mask.long(), output_hidden_states=True
        ).hidden_states
    torch.testing.assert_close(first[mask], expected[1][mask])
    assert not torch.allclose(last[mask], expected[2][mask])


def test_targets_are_a_pattern_or_endings() -> None:
    endings = drawn(installed("tiny-bert", "lora", options={"r": 2, "target_modules": ["query"]}))
    pattern = {"r": 2, "target_modules": r"encoder\.layer\.1\..*\.(query|key)"}
    matched = drawn(installed("tiny-bert", "lora", options=pattern))
    linear = drawn(installed("tiny-bert", "lora", options={"r": 2, "target_modules": "all-linear"}))

    assert len(endings) == 2 * 2 and all(".query." in n for n in endings)
    assert len(matched) == 2 * 2 and all(".layer.1." in n for n in matched)
    assert len(linear) == 2 * (2 * 6 + 1)  # two layers of six, and BERT's pooler


# --- refusals -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "more", "message"),
    [
        ("loar", {"options": {}}, "no PEFT method 'loar'; known: .*lora"),
        ("lora", {"options": {"rank": 4}}, "'lora'.*'rank'.*see LoraConfig"),
        (
            "lora",
            {"options": {"target_modules": ["q_projection", "v_projection"]}},
            "target modules q_projection, v_projection match nothing in tiny-bert",
        ),
        ("lora", {"options": {"target_modules": "nothing.*"}}, "nothing.* match nothing"),
        ("lora", {"layers": (1, 2)}, r"layers 0 to 1, not \[2\]"),
        ("prefix_tuning", {"layers": (1,)}, "has no layers to choose"),
    ],
)
def test_a_mistake_is_named_in_one_line(method: str, more: dict, message: str) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        installed("tiny-bert", method, **more)

    assert "\n" not in str(caught.value)


# --- in and out ---------------------------------------------------------------------------------


@cases
def test_a_written_adapter_is_an_ordinary_one(
    backbone: str, method: str, rows: Rows, tmp_path: Path, frozen, plain, generic
) -> None:
    adapter = installed(backbone, method)
    values = generic(drawn(adapter))
    ids, mask = rows

    adapter.export(values, tmp_path)

    theirs = read_by_peft(frozen(backbone), tmp_path)
    states = plain(theirs, ids, mask)[:, -ids.shape[1] :]
    expected = adapter.hidden(values, ids, mask, None)
    # PEFT reads virtual tokens as fp32.
    torch.testing.assert_close(states[mask], expected[mask], rtol=1e-5, atol=1e-6)


def read_by_peft(base: Any, folder: Path) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT's own, about transformers and Conv1D
        return peft.PeftModel.from_pretrained(
            base, str(folder), autocast_adapter_dtype=False
        ).eval()


@cases
def test_what_was_written_is_read_again(
    backbone: str, method: str, tmp_path: Path, generic
) -> None:
    adapter = installed(backbone, method)
    values = generic(drawn(adapter))
    adapter.export(values, tmp_path)

    other = installed(backbone, method)
    read = other.read(tmp_path)

    assert read.keys() == values.keys()
    assert all(torch.equal(read[n], values[n]) for n in values)
    assert not any(p.requires_grad for p in other.model.parameters())


@pytest.mark.parametrize(
    ("method", "more"),
    [
        ("lora", {"options": {"r": 2, "target_modules": ["key"]}}),  # elsewhere
        ("lora", {"layers": (1,)}),  # in fewer places
        ("lora", {"options": {"r": 4}}),  # of another size
        ("ia3", {}),
        ("prefix_tuning", {}),
    ],
)
def test_a_folder_of_another_adapter_is_refused(method: str, more: dict, tmp_path: Path) -> None:
    written = installed("tiny-bert", method, **more)
    written.export(drawn(written), tmp_path)

    with pytest.raises(ModelError, match="not the lora adapter that tiny-bert carries"):
        installed("tiny-bert", "lora").read(tmp_path)


@pytest.mark.parametrize("folder", ["missing", "."])
def test_a_folder_without_an_adapter_is_refused(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)

    with pytest.raises(ModelError, match="holds no PEFT adapter"):
        installed("tiny-bert", "lora").read(tmp_path / folder)


@pytest.mark.parametrize(
    ("backbone", "method", "batched"),
    [
        ("tiny-bert", "lora", True),
        ("tiny-gpt2", "lora", True),
        ("tiny-llama", "lora", True),
        ("tiny-bert", "ia3", True),
        ("tiny-bert", "vera", True),
        ("tiny-bert", "loha", False),  # its autograd function has no vmap
    ],
)
def test_whether_tasks_can_share_a_pass_is_found_out(
    backbone: str, method: str, batched: bool
) -> None:
    options = OPTIONS.get(method, {"r": 2, "target_modules": ["query"]})

    assert installed(backbone, method, options=options).batched is batched
