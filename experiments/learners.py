"""Learners by their catalog name, from the settings of an experiment.

A new algorithm is one row of LEARNERS.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal

from experiments.errors import UserError
from meta_models.features import FeatureStore
from meta_models.tfidf import TfIdf
from metalearn.algorithms.cavia import cavia
from metalearn.algorithms.evolution import EvolutionStrategies
from metalearn.algorithms.gbml import gbml
from metalearn.algorithms.imaml import IMAML
from metalearn.algorithms.maml import MAML
from metalearn.algorithms.maml_plus_plus import maml_plus_plus
from metalearn.algorithms.meta_curvature import meta_curvature
from metalearn.algorithms.meta_sgd import meta_sgd
from metalearn.algorithms.proto_maml import proto_maml
from metalearn.algorithms.protonet import ProtoNet
from metalearn.algorithms.reptile import Reptile
from metalearn.baselines.classifier import Classifier
from metalearn.baselines.finetune import FineTuning
from metalearn.baselines.label_names import LabelNames
from metalearn.baselines.majority import Majority
from metalearn.baselines.multitask import MultiTask
from metalearn.baselines.nearest_prototype import NearestPrototype
from metalearn.baselines.tfidf_prototypes import TfIdfPrototypes
from metalearn.inner.learn2learn_engine import named_transform
from metalearn.learner import Learner
from tasks.sources.folder import FolderFamily
from tasks.sources.records import RecordFamily

if TYPE_CHECKING:
    from experiments.build import Workshop


ITERATIONS = 200  # enough for L-BFGS on unit-length features; more changes no digit
AT_ONCE = 4
"""Tasks that go through a pass without a graph where the settings say "auto"."""


def _passes(workshop: Workshop) -> int:
    wanted = workshop.experiment.inner.tasks_per_pass
    return AT_ONCE if wanted == "auto" else wanted


def _sklearn(name: str, **options: Any) -> Any:
    """A classifier by its place in scikit-learn, which is slow to import."""
    module, _, kind = name.rpartition(".")
    return getattr(import_module(f"sklearn.{module}"), kind)(**options)


def _logistic(workshop: Workshop) -> Any:
    strength = workshop.experiment.baselines.strength
    return _sklearn("linear_model.LogisticRegression", C=strength, max_iter=ITERATIONS)


def _maml(workshop: Workshop, order: Literal[1, 2], parts: tuple[str, ...] | None = None) -> MAML:
    loop = workshop.loop(parts, order)  # refuses before the model is made
    return MAML(
        workshop.model,
        loop,
        order=order,
        first_order_until=workshop.experiment.inner.first_order_until,
        tasks_per_pass=_passes(workshop),
    )


LEARNERS: dict[str, Callable[[Workshop], Learner]] = {
    "majority": lambda w: Majority(),
    "prototypes": lambda w: NearestPrototype(w.frozen_features),
    "logistic": lambda w: Classifier(w.frozen_features, _logistic(w)),
    "ridge": lambda w: Classifier(w.frozen_features, _sklearn("linear_model.RidgeClassifier")),
    "neighbour": lambda w: Classifier(
        w.frozen_features, _sklearn("neighbors.KNeighborsClassifier", n_neighbors=1)
    ),
    "label-names": lambda w: LabelNames(w.frozen_features),
    "named-prototypes": lambda w: LabelNames(w.frozen_features, weight=1.0),
    "tfidf-prototypes": lambda w: TfIdfPrototypes(TfIdf()),
    "tfidf-logistic": lambda w: Classifier(TfIdf(), _logistic(w)),
    "tfidf-bayes": lambda w: Classifier(TfIdf(), _sklearn("naive_bayes.MultinomialNB")),
    "finetune": lambda w: FineTuning(w.model, w.loop(), tasks_per_pass=_passes(w)),
    "multitask": lambda w: MultiTask(
        w.language_model, w.loop(), classes=_classes(w), tasks_per_pass=_passes(w)
    ),
    "protonet": lambda w: ProtoNet(FeatureStore(w.language_model), tasks_per_pass=_passes(w)),
    "maml": lambda w: _maml(w, w.experiment.inner.order),
    "fomaml": lambda w: _maml(w, 1),
    "anil": lambda w: _maml(w, w.experiment.inner.order, ("head",)),
    "boil": lambda w: _maml(w, w.experiment.inner.order, ("adapter",)),
    "meta-sgd": lambda w: meta_sgd(
        w.model,
        w.loop(order=w.experiment.inner.order),
        per=w.experiment.inner.rates_per,
        order=w.experiment.inner.order,
        tasks_per_pass=_passes(w),
    ),
    "maml++": lambda w: maml_plus_plus(w.model, w.loop(order=2), tasks_per_pass=_passes(w)),
    "meta-curvature": lambda w: meta_curvature(w.model, w.loop(order=2), tasks_per_pass=_passes(w)),
    "gbml": lambda w: gbml(
        w.model,
        w.loop(order=w.experiment.inner.order),
        named_transform(w.experiment.inner.transform),
        order=w.experiment.inner.order,
        tasks_per_pass=_passes(w),
    ),
    "proto-maml": lambda w: proto_maml(
        w.prototype_model,
        w.loop(order=w.experiment.inner.order),
        order=w.experiment.inner.order,
        first_order_until=w.experiment.inner.first_order_until,
        tasks_per_pass=_passes(w),
    ),
    "cavia": lambda w: cavia(
        w.context_model,
        w.loop(("context",), w.experiment.inner.order),
        order=w.experiment.inner.order,
        clamp=w.experiment.inner.clamp,
        tasks_per_pass=_passes(w),
    ),
    "imaml": lambda w: IMAML(
        w.model,
        w.loop(order=2),
        strength=w.experiment.inner.proximal,
        solver_steps=w.experiment.inner.solver_steps,
        tasks_per_pass=_passes(w),
    ),
    "evolution": lambda w: EvolutionStrategies(
        w.model,
        w.loop(),
        pairs=w.experiment.evolution.pairs,
        deviation=w.experiment.evolution.deviation,
        tasks_per_pass=_passes(w),
    ),
    "reptile": lambda w: Reptile(w.model, w.loop(), tasks_per_pass=_passes(w)),
    "reptile-serial": lambda w: Reptile(
        w.model, w.loop(), epsilon=w.experiment.inner.epsilon, tasks_per_pass=_passes(w)
    ),
}


def _classes(workshop: Workshop) -> int:
    family = workshop.family
    if not isinstance(family, RecordFamily | FolderFamily):
        raise UserError("multitask needs a family with classes")
    return len(family.all_classes)
