"""The portfolio: which learners are chosen from, and how they are built from settings.

Cheap to expensive, from class frequencies to adapters that were meta-learned in second order.  All
that adapts an adapter shares one model, whose lower layers are kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from experiments.build import Workshop, seeded
from experiments.catalog import CLINC150
from experiments.config import (
    AdapterSettings,
    BackboneSettings,
    EpisodeSettings,
    EvaluationSettings,
    Experiment,
    TrackingSettings,
)
from experiments.errors import UserError, one_of
from experiments.learning import InnerSettings, OuterSettings
from experiments.outcome import RESULT
from experiments.run import run
from experiments.trained import TrainedRun
from meta_models.backbone import load_backbone
from meta_models.features import FeatureStore
from meta_models.params import Params
from metalearn.learner import Learner
from metalearn.selection.portfolio import Member, Portfolio

TOP = AdapterSettings(layers=(5,))
"""LoRA in the last layer of MiniLM."""
UPPER = AdapterSettings(layers=(3, 4, 5))
"""LoRA in the upper half of MiniLM: what is meta-trained."""

TRAINED = Experiment(
    name="portfolio-trained",
    description="the meta-trained learners of the portfolio, on CLINC150 alone",
    learners=("protonet", "proto-maml", "meta-sgd"),
    # From prototypes Meta-SGD ends where ProtoMAML does; rows that start equal have all to learn.
    # At the rate of the others these rows learn the order of classes: validation falls from step 2.
    grids={"meta-sgd": {"head.kind": ("slots",), "outer.rate": (5e-4,)}},
    family=CLINC150,
    # Tasks of all sizes: what they will be used on is not known.  Validated on tasks of twenty ways
    # and one shot: on those of five, prototypes leave nothing to learn.
    episodes=EpisodeSettings(
        ways=20, shots=(1,), train_ways=(2, 20), train_shots=(1, 5), train_queries=4
    ),
    # What is kept is dropped with each task: there is nothing for a disk to do.
    backbone=BackboneSettings(max_length=64, trunk_memory=1.0, trunk_disk=0.0),
    adapter=UPPER,
    inner=InnerSettings(steps=3, rate=0.1, tasks_per_pass=4),
    outer=OuterSettings(
        steps=48, tasks=4, rate=2e-3, warmup=8, validate_every=16, validation_tasks=60
    ),
    evaluation=EvaluationSettings(tasks=20),
    tracking=TrackingSettings(mode="disabled"),
    threads=1,
)


@dataclass(frozen=True)
class Entry:
    """A member of the portfolio, in settings.

    Attributes:
        algorithm: Learner of the catalog.
        model: Backbone, or what texts are read by in its place.
        adapter: What adapts; None: nothing but a head.
        settings: Dotted settings that differ from those of the trained learners.
        trained: Whether it was meta-trained.
    """

    algorithm: str
    model: str = "minilm"
    adapter: AdapterSettings | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    trained: bool = False

    @property
    def place(self) -> str:
        """Type and place of the adapter."""
        if self.adapter is None:
            return "none"
        layers = self.adapter.layers
        where = "all" if layers is None else ",".join(map(str, layers))
        return f"{self.adapter.method} in {where}"


ADAM = {"inner.optimizer": "adam", "inner.rate": 1e-2, "inner.steps": 10}
ENTRIES: dict[str, Entry] = {
    "majority": Entry("majority", "none"),
    "tfidf-prototypes": Entry("tfidf-prototypes", "tfidf"),
    "tfidf-logistic": Entry("tfidf-logistic", "tfidf"),
    "tfidf-bayes": Entry("tfidf-bayes", "tfidf"),
    "label-names": Entry("label-names"),
    "minilm2-prototypes": Entry("prototypes", "minilm@2"),
    "minilm2-logistic": Entry("logistic", "minilm@2"),
    "minilm2-ridge": Entry("ridge", "minilm@2"),
    "minilm4-prototypes": Entry("prototypes", "minilm@4"),
    "minilm-prototypes": Entry("prototypes"),
    "minilm-named": Entry("named-prototypes"),
    "minilm-logistic": Entry("logistic"),
    "minilm-ridge": Entry("ridge"),
    "minilm-neighbour": Entry("neighbour"),
    "minilm-protonet": Entry("protonet", adapter=UPPER, trained=True),
    "minilm-proto-maml": Entry("proto-maml", adapter=UPPER, trained=True),
    "minilm-meta-sgd": Entry("meta-sgd", adapter=UPPER, trained=True),
    "minilm-lora": Entry("finetune", adapter=TOP, settings={"inner.steps": 5}),
    "minilm-lora-adam": Entry("finetune", adapter=TOP, settings=ADAM),
    "minilm2-lora-adam": Entry("finetune", "minilm@2", AdapterSettings(), ADAM),
}
"""The portfolio by name."""


def train(folder: Path) -> Path:
    """Meta-train what has to be, or go on with it.

    Args:
        folder: The run folder.
    """
    if not (folder / RESULT).exists():
        run(TRAINED, folder, resume=(folder / "config.json").exists())
    return folder


def build(
    names: tuple[str, ...],
    trained: Path,
    kept: dict[str, Any],
    stores: dict[str, FeatureStore] | None = None,
) -> Portfolio:
    """Members of the portfolio by name, built.

    Args:
        names: Which.
        trained: Run folder of the trained ones, read where one is among the names.
        kept: Models that are shared with what else is built.
        stores: Features by backbone that frozen learners share.

    Raises:
        UserError: If there is no such member.
    """
    done = None
    members = []
    for name in names:
        entry = entry_named(name)
        if entry.trained:
            done = done or TrainedRun(trained, kept)
            cell = done.cell(entry.algorithm)
            workshop = done.workshop(cell)
            learner = workshop.learner(entry.algorithm)
            state = done.state(learner, cell)[0]
        else:
            workshop = Workshop(settings(entry), kept)
            workshop.stores = stores
            learner = workshop.learner(entry.algorithm)
            state = learner.init(seeded(0))
        members.append(_member(name, entry, learner, state, workshop))
    return Portfolio(members)


def entry_named(name: str) -> Entry:
    """An entry of the portfolio.

    Raises:
        UserError: If there is no such member.

    Example:
        >>> entry_named("minilm2-ridge").model
        'minilm@2'
    """
    if name not in ENTRIES:
        raise UserError(f"no learner {name} in the portfolio{one_of(name, ENTRIES)}")
    return ENTRIES[name]


def described(name: str) -> dict[str, Any]:
    """All that a member's numbers depend on, besides versions and trained weights, for JSON.

    Raises:
        UserError: If there is no such member.
    """
    entry = entry_named(name)
    return {
        "axes": [entry.model, entry.place, entry.algorithm],
        "trained_on": list(trained_on(entry)),
        "settings": settings(entry).model_dump(mode="json"),
    }


def trained_on(entry: Entry) -> tuple[str, ...]:
    """Sources that an entry was meta-trained on."""
    return (TRAINED.family.name,) if entry.trained else ()


def settings(entry: Entry) -> Experiment:
    """The settings of a member."""
    chosen = dict(entry.settings)
    if entry.adapter is not None:
        chosen["adapter"] = entry.adapter.model_dump()
    if entry.model not in ("none", "tfidf"):
        chosen["backbone.name"] = entry.model
    return TRAINED.override(chosen)


def _member(name: str, entry: Entry, learner: Learner, state: Params, workshop: Workshop) -> Member:
    return Member(
        name,
        entry.model,
        entry.place,
        entry.algorithm,
        learner,
        state,
        _passes(entry, learner, workshop),
        dict(entry.settings),
        trained_on(entry),
    )


def _passes(entry: Entry, learner: Learner, workshop: Workshop) -> float:
    """Passes of texts through the whole backbone, for each text of the support and a query."""
    if entry.model in ("none", "tfidf"):
        return 0.0
    layers, whole = (_depth(name) for name in (entry.model, entry.model.partition("@")[0]))
    own = learner.passes()
    adapts = own > 1 and entry.adapter is not None
    trunk = workshop.language_model.trunk if adapts else None
    below = trunk.below if trunk else 0
    # layers below the adapter once, those with it at every step; and each query once
    return (below + own * (layers - below) + layers) / whole


@cache
def _depth(model: str) -> int:
    return load_backbone(model, device="meta").layers
