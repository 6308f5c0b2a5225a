"""PEFT adapters as functional parameters: the only file that talks to PEFT.

An adapter is installed into the frozen backbone once.  Its values then live outside the model, in
`Params`, and enter only through `torch.func.functional_call`, so that many tasks share one copy of
the frozen weights.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from meta_models.backbone import Backbone
from meta_models.dora import Magnitude
from meta_models.errors import ModelError
from meta_models.inputs import model_inputs
from meta_models.layout import Packing
from meta_models.methods import METHODS, resolve
from meta_models.params import Params
from meta_models.store import Keep
from meta_models.targets import biased, first_linear, matching, named, norms
from meta_models.trunk import Trunk, trunk_below

_NAME = "default"  # PEFT's own name for the only adapter of a model
_log = logging.getLogger(__name__)
_say_once = cache(_log.info)


class Adapter:
    """An adapter of one method, installed in a backbone.

    Args:
        backbone: The frozen model; it is changed in place (its target modules are wrapped).
        method: A method of `meta_models.methods` ("lora", "dora", "bias", ...), or any PEFT type by
            its lower-case name; or "none": the frozen backbone alone, without values.
        options: Fields of the PEFT configuration, over the defaults of the method.
        layers: Indices of the layers that carry the adapter; None means all.
        keep: How much `trunk` keeps; None: as much as `Keep` says by itself.

    Attributes:
        config: The PEFT configuration; None for "none".
        batched: Whether several tasks can go through one forward pass.
        gathered: Within, the frozen weights are whole; what divides them among processes sets it.

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
        keep: Keep | None = None,
    ) -> None:
        self.backbone, self.method, self.keep = backbone, method, keep or Keep()
        self.config: Any = None
        self.model: Any = backbone.model
        self.gathered: Callable[[], AbstractContextManager[None]] = nullcontext
        if method == "none":
            self.prompt, self.batched, self._names = False, True, []
            return
        self.config, modules = _peft_config(backbone, method, dict(options or {}), layers)
        self.prompt = bool(self.config.is_prompt_learning)
        try:
            self.model = _installed(backbone.model, self.config)
        except (ValueError, TypeError) as error:
            raise ModelError(f"adapter {method!r}: {str(error).splitlines()[0]}") from error
        self.model.eval().to(backbone.device, backbone.dtype)
        self._names = [n for n, p in self.model.named_parameters() if p.requires_grad]
        if method == "bias":
            self._names = [n for n in self._names if _is_bias_of(n, modules)]
            _silence_lora(self.model)
        elif method == "dora":
            _differentiate_norms(self.model)
        if not self._names:
            raise ModelError(f"adapter {method!r} adds no parameters to {backbone.name}")
        self.model.requires_grad_(False)
        for name in self._names:  # the frozen weights may be of half precision, these never
            parameter = self.model.get_parameter(name)
            parameter.data = parameter.data.to(backbone.kind)
        self.batched = self._can_be_batched()

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the values, which are those of parameters of `model`."""
        return tuple(self._names)

    def init(self, generator: torch.Generator) -> Params:
        """Fresh values, drawn by PEFT's own initialization under a seed from `generator`."""
        if not self._names:
            return {}
        if self.method == "bias":  # they start as they are in the backbone
            return self._installed_values()
        seed = int(torch.randint(2**31, (), generator=generator))
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings(), self.gathered():
            warnings.simplefilter("ignore")  # PEFT warns of a second adapter, which goes at once
            torch.manual_seed(seed)
            self.model.add_adapter("fresh", self.config)
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
        constants: tuple[Tensor, ...] | None = None,
        packing: Packing | None = None,
    ) -> Tensor:
        """Last hidden states of one task under its adapter values.

        Args:
            values: Adapter values without a task axis.
            ids: `[B, L]` token ids.
            mask: `[B, L]` bool, real tokens first.
            segments: `[B, L]` token types, or None.
            context: `[n, D]` offsets from `neutral`, of vectors that come before every text; None:
                no such vectors.
            constants: `[B, L, ...]` what the layers below the first adapter make of the texts, and
                its own frozen modules of that, where it is known; from `trunk`.
            packing: `[B, L]` texts and positions, where a row holds several texts.

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
            inputs |= model_inputs(
                self.backbone.model,
                mask,
                packing,
                causal=self.backbone.causal,
                first_position=self.backbone.first_position,
                dtype=self.backbone.dtype,
            )
        with self.trunk.skipped(constants) if constants and self.trunk else nullcontext():
            # Where the frozen weights are of half precision, so are the products with the values.
            own = {name: value.to(self.backbone.dtype) for name, value in values.items()}
            output = functional_call(self.model, own, (), inputs).last_hidden_state
        return output[:, -length:]  # virtual tokens come in front

    @cached_property
    def trunk(self) -> Trunk | None:
        """The layers below the first adapter; None where there are none."""
        values = {name: self.model.get_parameter(name) for name in self._names}
        return trunk_below(self.backbone, values, partial(self.hidden, {}), self.keep)

    @cached_property
    def neutral(self) -> Tensor:
        """`[D]` the mean input embedding, as long as an embedding is on average."""
        mean = self._embeddings.mean(0)
        return mean * (self._embeddings.norm(dim=-1).mean() / mean.norm())

    @property
    def _embeddings(self) -> Tensor:
        return self.backbone.model.get_input_embeddings().weight.detach()  # pyright: ignore

    @cached_property
    def unpackable(self) -> str:
        """Why texts cannot share a row, as a phrase; empty if they can.

        Found out by trying: two texts in one row must have the states that each has alone.
        """
        if self.prompt:
            return f"{self.method} puts virtual tokens before each text"
        values = self._installed_values()
        ids = torch.tensor([[5, 6, 7, 5, 9]], device=self.backbone.device)
        text = torch.tensor([[0, 0, 0, 1, 1]], device=ids.device)
        packing = Packing(text, torch.tensor([[0, 1, 2, 0, 1]], device=ids.device))
        real = torch.ones_like(ids, dtype=torch.bool)
        try:
            with torch.no_grad():
                together = self.hidden(values, ids, real, None, packing=packing)
                alone = [self.hidden(values, i, i > 0, None) for i in ids.split([3, 2], dim=1)]
        except (RuntimeError, TypeError, ValueError) as error:
            return f"{self.backbone.name} takes no such rows: {str(error).splitlines()[0]}"
        apart = (together - torch.cat(alone, dim=1)).abs().max() / together.abs().max()
        # Wrong positions or texts that see each other move states by tenths.
        if not apart.is_meta and apart > 100 * torch.finfo(self.backbone.dtype).eps:
            return f"{self.backbone.name} gives a text other states beside another"
        return ""

    def _can_be_batched(self) -> bool:
        """Try two tasks of unequal length under vmap, with the gradient that training takes."""
        values = {name: value.detach() for name, value in self.model.named_parameters()}
        stacked = {name: torch.stack([values[name]] * 2).requires_grad_() for name in self._names}
        ids = torch.full((2, 2, 4), 5, device=self.backbone.device)
        mask = torch.tensor([[True] * 4, [True, True, True, False]], device=ids.device)
        mask = mask.expand(2, 2, 4)
        try:
            out = torch.vmap(lambda v, i, m: self.hidden(v, i, m, None))(stacked, ids, mask)
            torch.autograd.grad(out.sum(), list(stacked.values()), allow_unused=True)
        except (RuntimeError, NotImplementedError, ValueError) as error:
            why = str(error).splitlines()[0]
            _say_once(f"adapter {self.method} runs one task at a time: {why}")
            return False
        return True

    def export(self, values: Mapping[str, Tensor], folder: Path) -> None:
        """Write `values` as an ordinary PEFT adapter folder."""
        own = self._installed_values()
        self._install(values)
        # Embeddings are frozen; to find out whether to save them PEFT would ask the hub.
        self.model.save_pretrained(str(folder), save_embedding_layers=False)
        self._install(own)

    def _installed_values(self) -> Params:
        """Copies of what lies in the model itself: the frozen biases, where biases are tuned."""
        mine = dict(self.model.named_parameters())
        return {name: mine[name].detach().clone() for name in self._names}

    def _install(self, values: Mapping[str, Tensor]) -> None:
        mine = dict(self.model.named_parameters())
        with torch.no_grad():
            for name in self._names:
                mine[name].copy_(values[name])

    def read(self, folder: Path) -> Params:
        """Values of a PEFT adapter folder that this method wrote.

        Raises:
            ModelError: If the folder holds another adapter than the installed one: other places or
                sizes, or other frozen values (VeRA's projections) beside the learned ones.
        """
        from peft import get_peft_model_state_dict
        from peft.utils import load_peft_weights, set_peft_model_state_dict

        try:
            found = load_peft_weights(str(folder), device="cpu")
        except (OSError, ValueError) as error:
            raise ModelError(f"{folder} holds no PEFT adapter; run metalearn adapt") from error
        mine = get_peft_model_state_dict(self.model, save_embedding_layers=False)
        same = {n: v.shape for n, v in found.items()} == {n: v.shape for n, v in mine.items()}
        if not same or any(not torch.equal(found[n].to(v), v) for n, v in self._frozen(mine)):
            raise ModelError(
                f"{folder}: not the {self.method} adapter that {self.backbone.name} carries; "
                "use the adapter settings it was written with"
            )
        own = self._installed_values()
        set_peft_model_state_dict(self.model, found)
        values = self._installed_values()
        self._install(own)
        self.model.requires_grad_(False)
        return values

    def _frozen(self, written: Mapping[str, Tensor]) -> list[tuple[str, Tensor]]:
        """What PEFT writes beside the learned values, which it shares its memory with."""
        if self.prompt:
            return []
        names = set(self._names)
        learned = {p.data_ptr() for n, p in self.model.named_parameters() if n in names}
        return [(n, value) for n, value in written.items() if value.data_ptr() not in learned]


def _installed(model: Any, config: Any) -> Any:
    import peft

    with warnings.catch_warnings():
        # Nobody can act on these: PEFT asks by a name that transformers is about to drop, sets the
        # orientation of GPT-2's weights by itself, and wonders how wide a normalization is.
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated")
        warnings.filterwarnings("ignore", "fan_in_fan_out is set to False")
        warnings.filterwarnings("ignore", "Unsupported layer type .*[Nn]orm")
        return peft.get_peft_model(model, config, autocast_adapter_dtype=False)


def _differentiate_norms(model: Any) -> None:
    """Replace PEFT's magnitudes of DoRA, which take the norm as a constant."""
    from peft.tuners.lora.dora import DoraLinearLayer

    for module in list(model.modules()):
        if type(module) is nn.ModuleDict and _NAME in module:
            layer: Any = module[_NAME]
            if type(layer) is DoraLinearLayer:
                module[_NAME] = Magnitude(layer.weight, transposed=layer.fan_in_fan_out)


def _silence_lora(model: Any) -> None:
    """Make the low-rank product, which only carries the biases into PEFT's format, zero."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".lora_" in name:
                parameter.zero_()


def _is_bias_of(name: str, modules: list[str]) -> bool:
    """Whether a parameter of the PEFT model is the bias of one of the backbone's modules."""
    module, _, last = name.removeprefix("base_model.model.").rpartition(".")
    return last == "bias" and module.removesuffix(".base_layer") in modules


def _peft_config(
    backbone: Backbone, method: str, options: dict[str, Any], layers: tuple[int, ...] | None
) -> tuple[Any, list[str]]:
    """The PEFT configuration, and the full names of the modules that are adapted."""
    import peft
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    known = {kind.value.lower(): config for kind, config in PEFT_TYPE_TO_CONFIG_MAPPING.items()}
    if method not in known | METHODS:
        names = ", ".join(sorted(known | METHODS))
        raise ModelError(f"no PEFT method {method!r}; known: {names}")
    try:
        kind, options = resolve(method, options)
        options.setdefault("task_type", "FEATURE_EXTRACTION")
        config: Any = known[kind](**options)
    except ValueError as error:
        raise ModelError(f"adapter {method!r}: {error}") from error
    except TypeError as error:
        raise ModelError(f"adapter {method!r}: {error}; see {known[kind].__name__}") from error
    if isinstance(config, peft.PromptLearningConfig):
        if layers is not None:
            raise ModelError(f"adapter {method!r} has no layers to choose; leave layers out")
        return config, []
    if getattr(config, "bias", "none") != "none" and method != "bias":
        raise ModelError(f"adapter {method!r} learns no biases; the method 'bias' does")
    modules: list[str] = []
    if hasattr(config, "target_modules"):
        targets = config.target_modules or _default_targets(backbone, method)
        modules = matching(backbone, method, targets, layers)
        config.target_modules = modules
    if method == "ia3":
        config.feedforward_modules = _feedforward(backbone, config)
    elif method == "bias":
        config.target_modules = [first_linear(backbone)]  # PEFT keeps biases beside LoRA only
    return config, modules


def _feedforward(backbone: Backbone, config: Any) -> list[str]:
    """Full names of the modules whose input, not output, IA3 scales: PEFT wants targets here."""
    from peft.utils.constants import TRANSFORMERS_MODELS_TO_IA3_FEEDFORWARD_MODULES_MAPPING

    family = str(backbone.model.config.model_type)  # pyright: ignore
    wanted = config.feedforward_modules
    if wanted is None:
        wanted = TRANSFORMERS_MODELS_TO_IA3_FEEDFORWARD_MODULES_MAPPING.get(family, [])
    return [name for name in config.target_modules if named(name, wanted)]


def _default_targets(backbone: Backbone, method: str) -> list[str]:
    """PEFT's own choice for this architecture; for LoRA the query and value projections.

    Normalizations and biases are found by what they are.
    """
    from peft.utils import constants

    family = str(backbone.model.config.model_type)  # pyright: ignore
    if method in ("ln_tuning", "bias"):
        if found := (norms if method == "ln_tuning" else biased)(backbone):
            return found
        raise ModelError(f"adapter {method!r}: {family} has no such parameters; choose another")
    for table in (method.upper(), "LORA"):
        found = getattr(constants, f"TRANSFORMERS_MODELS_TO_{table}_TARGET_MODULES_MAPPING", {})
        if family in found:
            return list(found[family])
    raise ModelError(
        f"adapter {method!r} has no default targets for {family}; "
        "name them: --adapter.options '{\"target_modules\": [...]}'"
    )
