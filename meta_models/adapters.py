"""PEFT adapters as functional parameters: the only file that talks to PEFT.

An adapter is installed into the frozen backbone once.  Its values then live outside the model, in
`Params`, and enter only through `torch.func.functional_call`, so that many tasks share one copy of
the frozen weights.
"""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from meta_models.backbone import Backbone
from meta_models.errors import ModelError
from meta_models.params import Params

_NAME = "default"  # PEFT's own name for the only adapter of a model
_LAYER = re.compile(r"\.(?:layers?|h|blocks?|block)\.(\d+)\.")
_log = logging.getLogger(__name__)


class Adapter:
    """An adapter of one method, installed in a backbone.

    Args:
        backbone: The frozen model; it is changed in place (its target modules are wrapped).
        method: PEFT type by its lower-case name: "lora", "ia3", "prefix_tuning", ...; or "none":
            the frozen backbone alone, without values.
        options: Fields of the PEFT configuration of that method.
        layers: Indices of the layers that carry the adapter; None means all.

    Raises:
        ModelError: If PEFT has no such method or option, or no module matches.

    Example:
        >>> from meta_models.backbone import load_backbone
        >>> adapter = Adapter(load_backbone("tiny-bert"), "lora", {"r": 2})
        >>> sum(value.numel() for value in adapter.init(torch.Generator()).values())
        256
    """

    def __init__(
        self,
        backbone: Backbone,
        method: str = "lora",
        options: Mapping[str, Any] | None = None,
        layers: tuple[int, ...] | None = None,
    ) -> None:
        self.backbone = backbone
        self.method = method
        if method == "none":
            self.model: Any = backbone.model
            self.prompt, self.batched, self._names = False, True, []
            return
        self._config = _peft_config(backbone, method, dict(options or {}), layers)
        self.prompt = bool(self._config.is_prompt_learning)
        kind = next(backbone.model.parameters()).dtype
        try:
            self.model = _installed(backbone.model, self._config)
        except (ValueError, TypeError) as error:
            raise ModelError(f"adapter {method!r}: {str(error).splitlines()[0]}") from error
        self.model.eval().to(kind)
        self._names = [n for n, p in self.model.named_parameters() if p.requires_grad]
        if not self._names:
            raise ModelError(f"adapter {method!r} adds no parameters to {backbone.name}")
        self.model.requires_grad_(False)
        self.batched = self._can_be_batched()

    def init(self, generator: torch.Generator) -> Params:
        """Fresh values, drawn by PEFT's own initialization under a seed from `generator`."""
        if not self._names:
            return {}
        seed = int(torch.randint(2**31, (), generator=generator))
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PEFT warns of a second adapter, which goes at once
            torch.manual_seed(seed)
            self.model.add_adapter("fresh", self._config)
            mine = dict(self.model.named_parameters())
            like = mine[self._names[0]]
            values = {
                name: mine[name.replace(f".{_NAME}", ".fresh")].detach().to(like).clone()
                for name in self._names
            }
            self.model.delete_adapter("fresh")
            self.model.set_adapter(_NAME)
        self.model.requires_grad_(False)
        return values

    def hidden(
        self,
        values: Mapping[str, Tensor],
        ids: Tensor,
        mask: Tensor,
        segments: Tensor | None,
        context: Tensor | None = None,
    ) -> Tensor:
        """Last hidden states of one task under its adapter values.

        Args:
            values: Adapter values without a task axis.
            ids: `[B, L]` token ids.
            mask: `[B, L]` bool, real tokens first.
            segments: `[B, L]` token types, or None.
            context: `[n, D]` offsets from `neutral`, of vectors that come before every text; None:
                no such vectors.

        Returns:
            `[B, L, D]`, of the tokens alone.
        """
        length = ids.shape[-1]
        inputs: dict[str, Any] = {"input_ids": ids}
        if context is not None:
            vectors = (self.neutral + context).expand(len(ids), -1, -1)
            tokens = torch.nn.functional.embedding(ids, self._embeddings)
            inputs = {"inputs_embeds": torch.cat([vectors, tokens], dim=1)}
            mask = torch.cat([mask.new_ones(vectors.shape[:2]), mask], dim=1)
            if segments is not None:
                segments = torch.cat([segments.new_zeros(vectors.shape[:2]), segments], dim=1)
        if segments is not None:
            inputs["token_type_ids"] = segments
        if self.prompt:
            # PEFT lengthens a 2-D mask by its virtual tokens.
            inputs["attention_mask"] = mask.long()
        else:
            inputs["attention_mask"] = self._additive_mask(mask)
            if self.backbone.causal:
                inputs["position_ids"] = torch.arange(mask.shape[-1], device=ids.device)[None]
        if self.backbone.causal and not self.prompt:
            inputs["use_cache"] = False
        states = functional_call(self.model, dict(values), (), inputs).last_hidden_state
        return states[:, -length:]  # virtual tokens come in front

    @cached_property
    def neutral(self) -> Tensor:
        """`[D]` the mean input embedding, as long as an embedding is on average."""
        mean = self._embeddings.mean(0)
        return mean * (self._embeddings.norm(dim=-1).mean() / mean.norm())

    @property
    def _embeddings(self) -> Tensor:
        return self.backbone.model.get_input_embeddings().weight.detach()  # pyright: ignore

    def _additive_mask(self, mask: Tensor) -> Tensor:
        """`[B, 1, L, L]` zero where a token may look, the least finite number elsewhere."""
        length = mask.shape[-1]
        seen = mask[:, None, None, :].expand(-1, 1, length, -1)
        if self.backbone.causal:
            seen = seen & torch.ones(length, length, dtype=torch.bool, device=mask.device).tril()
        kind = next(self.backbone.model.parameters()).dtype
        hidden = torch.full((), torch.finfo(kind).min, dtype=kind, device=mask.device)
        return torch.where(seen, torch.zeros_like(hidden), hidden)

    def _can_be_batched(self) -> bool:
        """Try two tasks of unequal length under vmap, with the gradient that training takes."""
        values = {name: value.detach() for name, value in self.model.named_parameters()}
        stacked = {name: torch.stack([values[name]] * 2).requires_grad_() for name in self._names}
        ids = torch.full((2, 2, 4), 5)
        mask = torch.tensor([[True] * 4, [True, True, True, False]]).expand(2, 2, 4)
        try:
            out = torch.vmap(lambda v, i, m: self.hidden(v, i, m, None))(stacked, ids, mask)
            torch.autograd.grad(out.sum(), list(stacked.values()), allow_unused=True)
        except (RuntimeError, NotImplementedError, ValueError) as error:
            _log.info(
                "adapter %s runs one task at a time: %s", self.method, str(error).splitlines()[0]
            )
            return False
        return True

    def export(self, values: Mapping[str, Tensor], folder: Path) -> None:
        """Write `values` as an ordinary PEFT adapter folder."""
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                if name in values:
                    parameter.copy_(values[name])
        # Embeddings are frozen; to find out whether to save them PEFT would ask the hub.
        self.model.save_pretrained(str(folder), save_embedding_layers=False)

    def read(self, folder: Path) -> Params:
        """Values of a PEFT adapter folder that this method wrote.

        Raises:
            ModelError: If the folder holds another adapter than the installed one.
        """
        from peft import get_peft_model_state_dict
        from peft.utils import load_peft_weights, set_peft_model_state_dict

        try:
            found = load_peft_weights(str(folder), device="cpu")
        except (OSError, ValueError) as error:
            raise ModelError(f"{folder} holds no PEFT adapter; run metalearn adapt") from error
        mine = get_peft_model_state_dict(self.model, save_embedding_layers=False)
        if {n: v.shape for n, v in found.items()} != {n: v.shape for n, v in mine.items()}:
            raise ModelError(
                f"{folder}: not the {self.method} adapter that {self.backbone.name} carries; "
                "use the adapter settings it was written with"
            )
        set_peft_model_state_dict(self.model, found)
        self.model.requires_grad_(False)
        mine = dict(self.model.named_parameters())
        return {name: mine[name].detach().clone() for name in self._names}


def _installed(model: Any, config: Any) -> Any:
    import peft

    with warnings.catch_warnings():
        # Nobody can act on these: PEFT asks by a name that transformers is about to drop, and sets
        # the orientation of GPT-2's weights by itself.
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated")
        warnings.filterwarnings("ignore", "fan_in_fan_out is set to False")
        return peft.get_peft_model(model, config, autocast_adapter_dtype=False)


def _peft_config(
    backbone: Backbone, method: str, options: dict[str, Any], layers: tuple[int, ...] | None
) -> Any:
    import peft
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    known = {kind.value.lower(): config for kind, config in PEFT_TYPE_TO_CONFIG_MAPPING.items()}
    if method not in known:
        raise ModelError(f"no PEFT method {method!r}; known: {', '.join(sorted(known))}")
    options.setdefault("task_type", "FEATURE_EXTRACTION")
    try:
        config: Any = known[method](**options)
    except TypeError as error:
        raise ModelError(f"adapter {method!r}: {error}; see {known[method].__name__}") from error
    if isinstance(config, peft.PromptLearningConfig):
        if layers is not None:
            raise ModelError(f"adapter {method!r} has no layers to choose; leave layers out")
        return config
    if hasattr(config, "target_modules"):
        targets = config.target_modules or _default_targets(backbone, method)
        config.target_modules = _matching(backbone, method, targets, layers)
    if method == "ia3":
        config.feedforward_modules = _feedforward(backbone, config)
    return config


def _feedforward(backbone: Backbone, config: Any) -> list[str]:
    """Full names of the modules whose input, not output, IA3 scales: PEFT wants targets here."""
    from peft.utils.constants import TRANSFORMERS_MODELS_TO_IA3_FEEDFORWARD_MODULES_MAPPING

    family = str(backbone.model.config.model_type)  # pyright: ignore
    wanted = config.feedforward_modules
    if wanted is None:
        wanted = TRANSFORMERS_MODELS_TO_IA3_FEEDFORWARD_MODULES_MAPPING.get(family, [])
    return [name for name in config.target_modules if _named(name, wanted)]


def _default_targets(backbone: Backbone, method: str) -> list[str]:
    """PEFT's own choice for this architecture; for LoRA the query and value projections."""
    from peft.utils import constants

    family = str(backbone.model.config.model_type)  # pyright: ignore
    for table in (method.upper(), "LORA"):
        found = getattr(constants, f"TRANSFORMERS_MODELS_TO_{table}_TARGET_MODULES_MAPPING", {})
        if family in found:
            return list(found[family])
    raise ModelError(
        f"adapter {method!r} has no default targets for {family}; "
        "name them: --adapter.options '{\"target_modules\": [...]}'"
    )


def _matching(
    backbone: Backbone, method: str, targets: Any, layers: tuple[int, ...] | None
) -> list[str]:
    """Full names of the modules that `targets` (a pattern or endings) and `layers` name."""
    modules = [name for name, _ in backbone.model.named_modules()]
    if targets == "all-linear":
        named = [n for n, m in backbone.model.named_modules() if isinstance(m, nn.Linear)]
    else:
        named = [name for name in modules if _named(name, targets)]
    if layers is not None:
        wrong = [layer for layer in layers if not 0 <= layer < backbone.layers]
        if wrong:
            raise ModelError(f"{backbone.name} has layers 0 to {backbone.layers - 1}, not {wrong}")
        named = [
            name
            for name in named
            if (found := _LAYER.search(f".{name}.")) and int(found[1]) in layers
        ]
    if not named:
        shown = targets if isinstance(targets, str) else ", ".join(sorted(targets))
        raise ModelError(
            f"adapter {method!r}: target modules {shown} match nothing in {backbone.name}; "
            "name modules of this model: --adapter.options '{\"target_modules\": [...]}'"
        )
    return named


def _named(name: str, targets: Any) -> bool:
    """Whether a pattern, or one of several endings, names a module."""
    if isinstance(targets, str):
        return bool(re.fullmatch(targets, name))
    return any(name == target or name.endswith(f".{target}") for target in targets)
