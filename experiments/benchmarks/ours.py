"""Metalearn's own meta-step, reached as any experiment reaches it: from settings."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import TemporaryDirectory
from typing import Any

import torch

from experiments.benchmarks.data import initial, synthetic
from experiments.benchmarks.plan import Case, Work
from experiments.benchmarks.step import Step
from experiments.build import Workshop
from experiments.catalog import BANKING77, CLINC150
from experiments.config import Experiment, FamilySettings
from meta_models.backbone import random_backbone
from meta_models.params import stack
from tasks.episode import Episode

FAMILIES = {"banking77": BANKING77, "clinc150": CLINC150}


def prepare(case: Case) -> Step:
    """The step of a case, ready to run."""
    work = case.work
    with _named(work) as name:
        settings = _settings(work) | {"backbone.name": name} | case.settings
        workshop = Workshop(Experiment().override(settings))
        learner = workshop.learner("anil" if work.head_only else "maml")
    fresh = learner.init(torch.Generator().manual_seed(0))
    start = initial({name: tuple(value.shape) for name, value in fresh.items()})
    state = {name: start[name].to(value) for name, value in fresh.items()}
    episodes = _episodes(workshop, work)

    def meta(number: int) -> tuple[float, dict[str, Any]]:
        gradient, figures = learner.meta_gradient(state, episodes[number % len(episodes)])
        return figures["loss"], gradient

    @torch.no_grad()
    def forward(number: int) -> tuple[float, dict[str, Any]]:
        episode = episodes[number % len(episodes)]
        values = stack(state, episode.tasks)
        features = [
            workshop.model.features(values, batch) for batch in (episode.support, episode.query)
        ]
        return float(features[1].mean()), {"features": torch.cat(features, 1)}

    return meta if work.measure == "meta" else forward


@contextmanager
def _named(work: Work) -> Iterator[str]:
    """A name for the backbone: settings know a random model of any size as a folder only."""
    if not work.sizes:
        yield work.backbone
        return
    with TemporaryDirectory() as folder:
        made: Any = random_backbone(work.sizes, dtype=getattr(torch, work.dtype))
        made.model.save_pretrained(folder)
        made.tokenizer.save_pretrained(folder)
        yield folder


def _settings(work: Work) -> dict[str, Any]:
    """The work as settings of an experiment."""
    return {
        "device": work.device,
        "backbone.dtype": work.dtype,
        "backbone.pooling": "mean",
        "adapter.method": "none" if work.frozen else "lora",
        "adapter.options": {} if work.frozen else {"r": work.rank},
        "adapter.layers": work.layers,
        "head.kind": "slots",
        "inner.steps": work.steps,
        "inner.rate": work.rate,
        "inner.order": work.order,
        "inner.tasks_per_pass": 1,
        "episodes.ways": work.ways,
        "episodes.shots": (work.shots,),
        "episodes.queries": work.queries,
        "outer.tasks": work.tasks,
        "family": FAMILIES.get(work.data, FamilySettings()).model_dump(),
    }


def _episodes(workshop: Workshop, work: Work) -> list[Episode]:
    if work.data == "synthetic":
        model: Any = workshop.language_model.adapter.backbone.model
        return [synthetic(work, model.config.vocab_size)]
    drawn = workshop.training_episodes(work.shots, seed=0)
    return [drawn(number) for number in range(work.episodes)]
