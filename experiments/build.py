"""From settings to objects: models and learners by name.

Algorithms receive built objects, never settings; only this file, and those beside it for families,
loops, learners and sampling, read one and make the other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch

from experiments.config import (
    AdapterSettings,
    BackboneSettings,
    Experiment,
    HeadSettings,
)
from experiments.errors import UserError, nearest
from experiments.family import build_family
from experiments.learners import LEARNERS
from experiments.loops import build_loop
from experiments.sampling import augmented
from experiments.schema import Settings
from meta_models.adapters import Adapter
from meta_models.backbone import load_backbone
from meta_models.errors import ModelError
from meta_models.features import FeatureStore
from meta_models.heads import Head
from meta_models.mlp import MLP
from meta_models.model import AdaptedModel, Model
from meta_models.params import Params
from meta_models.store import Keep
from metalearn.algorithms.maml import MAML
from metalearn.compiled import Compiler
from metalearn.distributed import ALONE, World
from metalearn.inner.loop import InnerLoop
from metalearn.learner import Learner
from metalearn.training import OuterLoop
from tasks.augment import AugmentedStream
from tasks.collate import Collator
from tasks.curriculum import Curriculum
from tasks.episode import Episode, EpisodeShape, SplitName, TaskFamily, TaskStream

Made = TypeVar("Made")

WORTH_COMPILING = 10_000  # meta-steps: each saves some 2 ms, a compilation costs some 20 s


def build_model(
    backbone: BackboneSettings,
    adapter: AdapterSettings,
    head: HeadSettings,
    context: int = 0,
    device: torch.device | str = "cpu",
) -> AdaptedModel:
    """A language model with its adapter and head, and perhaps a context."""
    if backbone.shard and backbone.quantize != "none":
        raise ModelError("quantized layers cannot be divided; drop backbone.shard or quantize")
    if backbone.shard and backbone.checkpoint:
        raise ModelError("divided layers are not computed again; drop backbone.shard or checkpoint")
    frozen = load_backbone(
        backbone.name,
        attention=backbone.attention,
        dtype=getattr(torch, backbone.dtype),
        device=device,
        quantize=backbone.quantize,
    )
    folder = None if backbone.trunk_folder is None else Path(backbone.trunk_folder)
    bare = torch.device(device).type == "meta"  # its states are none to keep on disk
    keep = Keep(backbone.trunk_memory, 0.0 if bare else backbone.trunk_disk, folder)
    installed = Adapter(frozen, adapter.method, adapter.options, adapter.layers, keep)
    # A finished run is read by one process, which needs all of the layers.
    sharded = backbone.shard and torch.distributed.is_initialized()
    if sharded:
        from meta_models.sharding import shard  # a second of imports that others need not wait for

        shard(installed)
    return AdaptedModel(
        installed,
        Head(head.kind, frozen.width, head.scale),
        pooling=backbone.pooling,
        unit=backbone.normalize,
        context=context,
        keep_trunk=backbone.keep_trunk and not sharded,
        layout=backbone.layout,
        checkpoint=backbone.checkpoint,
    )


class Workshop:
    """The objects of one variant of an experiment; the expensive ones are made on first use.

    Args:
        experiment: The variant's settings, with `family.fold` set.
        kept: Objects made for other variants, shared where their settings agree.
        weights: Whether models have their weights; without, they are on the meta device, from
            configurations alone: sizes can be asked of them, and nothing else.

    Attributes:
        frozen: Whether every choice is made: test tasks are refused before.
        stores: Where frozen learners share features, by backbone; None: each has its own.
    """

    def __init__(
        self, experiment: Experiment, kept: dict[str, Any] | None = None, weights: bool = True
    ) -> None:
        self.experiment = experiment
        self.frozen = False
        self.weights = weights
        self.stores: dict[str, FeatureStore] | None = None
        self._kept = {} if kept is None else kept

    def _share(self, make: Callable[[], Made], *settings: Settings | str) -> Made:
        key = " ".join(s if isinstance(s, str) else s.model_dump_json() for s in settings)
        if key not in self._kept:
            self._kept[key] = make()
        return self._kept[key]

    @property
    def device(self) -> torch.device:
        """Where models and tasks are."""
        return find_device(self.experiment.device)

    @property
    def _place(self) -> torch.device:
        return self.device if self.weights else torch.device("meta")

    def placed(self, state: Params) -> Params:
        """A state, as it was read, on the device."""
        return {name: value.to(self.device) for name, value in state.items()}

    @property
    def family(self) -> TaskFamily:
        """The task family."""
        settings = self.experiment.family
        return self._share(lambda: build_family(settings), "family", settings)

    @property
    def model(self) -> Model:
        """The model with its adapter and head, or the MLP."""
        if self.experiment.backbone.name == "mlp":
            return self._mlp()
        return self._language_model(self.experiment.adapter)

    @property
    def context_model(self) -> Model:
        """The model with a context beside its input."""
        size = self.experiment.inner.context
        if self.experiment.backbone.name == "mlp":
            return self._mlp(size)
        return self._language_model(self.experiment.adapter, context=size)

    @property
    def prototype_model(self) -> AdaptedModel:
        """The model with a head that starts from prototypes."""
        head = self.experiment.head.model_copy(update={"kind": "prototype"})
        return self._language_model(self.experiment.adapter, head)

    @property
    def language_model(self) -> AdaptedModel:
        """The model, where a learner needs features of text."""
        if not isinstance(self.model, AdaptedModel):
            raise UserError("this learner needs text; choose a language model as backbone")
        return self.model

    @property
    def frozen_features(self) -> FeatureStore:
        """Features of the backbone without any adapter, for the frozen baselines.

        In a run each has its own store: features differ in the last bit with the batch that they
        were computed in, and a resumed run has not seen the batches of the learners before.
        """
        store = FeatureStore(self._language_model(AdapterSettings(method="none", options={})))
        key = self.experiment.backbone.model_dump_json()
        return store if self.stores is None else self.stores.setdefault(key, store)

    @property
    def collator(self) -> Collator:
        """Tokenizes with the backbone's tokenizer."""
        length, name = self.experiment.backbone.max_length, self.experiment.backbone.name
        if name == "mlp":
            return self._share(lambda: Collator(None), "collator")
        tokenizer = self.language_model.adapter.backbone.tokenizer
        return self._share(
            lambda: Collator(tokenizer, max_length=length), "collator", name, str(length)
        )

    def _mlp(self, context: int = 0) -> MLP:
        weights = self.experiment.backbone.weights
        return self._share(
            lambda: MLP(context=context, weights=weights, device=self._place),
            *("mlp", str(context), weights, str(self._place)),
        )

    def _language_model(
        self, adapter: AdapterSettings, head: HeadSettings | None = None, context: int = 0
    ) -> AdaptedModel:
        backbone, head = self.experiment.backbone, head or self.experiment.head
        if backbone.name == "mlp":
            raise UserError("the mlp has no text features; choose a language model as backbone")
        return self._share(
            lambda: build_model(backbone, adapter, head, context, self._place),
            *("model", backbone, adapter, head, str(context), str(self._place)),
        )

    def stream(self, split: SplitName, shots: int, seed: int) -> TaskStream:
        """The tasks of a split, as they are judged on.

        Raises:
            RuntimeError: If test tasks are asked for before the choices are frozen.
        """
        if split == "test" and not self.frozen:
            raise RuntimeError("test tasks are read only after every choice is frozen")
        return TaskStream(self.family, split, self.shape(split, shots), seed=seed)

    def shape(self, split: SplitName, shots: int) -> EpisodeShape:
        """The shape of the tasks that are judged on."""
        wanted, ways = self.experiment.episodes, self.experiment.episodes.ways
        if split == "test" and self.experiment.evaluation.families and self.family.kind == "class":
            ways = min(ways, len(self.family.classes("test")))
        return EpisodeShape(ways, shots, wanted.queries)

    def episode(self, stream: TaskStream | AugmentedStream, indices: Sequence[int]) -> Episode:
        """Some tasks of a stream as tensors."""
        drawn = stream.episode(indices) or self.collator.collate(stream.tasks(indices), indices)
        stays = self.device.type == "cpu" or not self.weights
        return drawn if stays else drawn.map(lambda x: x.to(self.device))

    def training_stream(self, shots: int, seed: int) -> TaskStream:
        """The training tasks; `shots` 0: drawn from `episodes.train_shots` for every task."""
        wanted = self.experiment.episodes
        shape = EpisodeShape(
            wanted.ways if wanted.train_ways is None else wanted.train_ways,
            shots or wanted.train_shots or (min(wanted.shots), max(wanted.shots)),
            wanted.train_queries or wanted.queries,
        )
        return TaskStream(self.family, "train", shape, seed=seed)

    def training_episodes(
        self, shots: int, seed: int, curriculum: Curriculum | None = None
    ) -> Callable[[int], Episode]:
        """The T tasks of meta-step k, augmented if the settings say so.

        They have the numbers k T .. (k + 1) T of the training stream, or those of a curriculum.
        """
        stream = self.training_stream(shots, seed)
        tasks = augmented(self.experiment.sampling, stream, self.collator.tokenizer)
        size = self.experiment.outer.tasks

        def episode(step: int) -> Episode:
            first = range(step * size, (step + 1) * size)
            return self.episode(tasks, curriculum.indices(step) if curriculum else first)

        return episode

    def learner(self, name: str) -> Learner:
        """A learner by its catalog name.

        Raises:
            UserError: If there is no such learner.
            ModelError: If it needs a derivative that the attention does not have.
        """
        if name not in LEARNERS:
            raise UserError(f"no learner {name}{nearest(name, LEARNERS) or '; see metalearn list'}")
        learner = LEARNERS[name](self)
        wanted = self.experiment.inner.tasks_per_pass
        if wanted != "auto":
            learner.tasks_per_pass = min(learner.tasks_per_pass, wanted)
        compiles = self._compiles and self.weights
        if isinstance(learner, MAML) and learner.loop.engine is None and compiles:
            learner.compiler = Compiler(f"the meta-gradient of {name}")
        return learner

    @property
    def _compiles(self) -> bool:
        experiment = self.experiment
        # Shapes that vary from step to step would make a graph each.
        fixed = experiment.episodes.train_shots is None
        pays = experiment.outer.steps >= WORTH_COMPILING and fixed
        asked = experiment.compile == "on" or (experiment.compile == "auto" and pays)
        return asked and experiment.backbone.name == "mlp"

    def loop(self, parts: Sequence[str] | None = None, order: int = 1) -> InnerLoop:
        """The inner loop.

        Args:
            parts: "adapter", "head" or "context", or several; None: those of `inner.parts`.
            order: Order of the meta-gradient that will be taken through it.

        Raises:
            ModelError: If the attention has no second derivative and one is needed, or the engine
                cannot run such a loop.
        """
        return build_loop(self.experiment, parts, order)

    def judges(self, world: World) -> World:
        """The processes that share the judging of tasks.

        Where they share the layers, every one judges all: what is kept of earlier tasks, and the
        sizes of passes, would differ between them, and so would their calls for the layers.
        """
        return ALONE if self.experiment.backbone.shard else world

    def outer_loop(self) -> OuterLoop:
        """The outer loop's settings."""
        outer = self.experiment.outer.model_dump(exclude={"validation_tasks", "checkpoint_every"})
        return OuterLoop(**outer)


def find_device(name: str) -> torch.device:
    """The device of a name; "auto" is the accelerator, or the CPU where there is none.

    Raises:
        UserError: If there is no such device.

    Example:
        >>> find_device("cpu")
        device(type='cpu')
    """
    present = torch.accelerator.current_accelerator(check_available=True)
    if name == "auto":
        return present or torch.device("cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"device {name} is none that torch knows; use auto, cpu or cuda") from None
    known = device.type == "cpu" or (present is not None and device.type == present.type)
    if not known or (device.index or 0) >= max(1, torch.accelerator.device_count()):
        raise UserError(f"device {name} is not here; use auto or cpu")
    return device


def batches(workshop: Workshop, stream: TaskStream, tasks: int) -> list[Episode]:
    """The first `tasks` tasks of a stream, some at a time."""
    size = workshop.experiment.evaluation.tasks_per_batch
    return [
        workshop.episode(stream, range(first, min(first + size, tasks)))
        for first in range(0, tasks, size)
    ]


def seeded(seed: int) -> torch.Generator:
    """A generator of its own for every use of a seed."""
    return torch.Generator().manual_seed(seed)
