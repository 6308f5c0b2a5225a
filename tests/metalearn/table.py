"""The common table: every learner, and which properties apply to it.

A new algorithm is one row of TABLE.  The properties are in `test_table_adaptation.py`,
`test_table_gradients.py` and `test_table_training.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import pytest
import torch
from sklearn.linear_model import LogisticRegression as LinearClassifier
from sklearn.linear_model import RidgeClassifier
from sklearn.naive_bayes import MultinomialNB
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor

from meta_models.errors import ModelError
from meta_models.features import FeatureStore
from meta_models.mlp import MLP
from meta_models.model import AdaptedModel, Model
from meta_models.params import Params, norm, part
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
from metalearn.inner.learn2learn_engine import learn2learn, named_transform
from metalearn.inner.loop import InnerLoop
from metalearn.inner.optimizers import Adam, Momentum
from metalearn.inner.rules import LearnedRates
from metalearn.learner import Learner

TASKS = 3
HEADS = ("prototype", "label", "slots")


@dataclass(frozen=True)
class Row:
    """A learner and what is expected of it.

    Attributes:
        make: The learner from a model, its inner loop and the tasks of a pass.
        descends: It adapts by gradient descent on the support loss.
        gradient: "exact": of the query loss; "own": a test of its own checks it; None: no
            meta-gradient.
        numeric: It also learns tasks without text.
        frozen: It has no adapter.
        heads: Heads that it works with.
        context: Size of the context that its model has.
    """

    make: Callable[[Any, InnerLoop, int], Learner]
    descends: bool = True
    gradient: Literal["exact", "own"] | None = None
    numeric: bool = True
    frozen: bool = False
    heads: tuple[str, ...] = HEADS
    context: int = 0


def head_only(loop: InnerLoop) -> InnerLoop:
    return InnerLoop(loop.steps, {"head": loop.rates["head"]})


def body_only(loop: InnerLoop) -> InnerLoop:
    return InnerLoop(loop.steps, {n: rate for n, rate in loop.rates.items() if n != "head"})


def context_only(loop: InnerLoop) -> InnerLoop:
    return replace(loop, rates={"context": loop.rates["head"]})


def adam(loop: InnerLoop) -> InnerLoop:
    """Adam, whose steps are as long as its rates.

    Its first direction, g / (|g| + eps), bends within eps of zero: central differences see the
    slope only where eps is larger than their step.
    """
    rates = {name: rate / 20 for name, rate in loop.rates.items()}
    return replace(loop, rates=rates, optimizer=Adam(epsilon=1e-2))


def momentum(loop: InnerLoop) -> InnerLoop:
    """Momentum, whose later steps are longer than its rates."""
    rates = {name: rate / 4 for name, rate in loop.rates.items()}
    return replace(loop, rates=rates, optimizer=Momentum())


def one_step(loop: InnerLoop) -> InnerLoop:
    return InnerLoop(min(loop.steps, 1), loop.rates)


try:
    learn2learn()
    _missing = ""
except ModelError as error:
    _missing = str(error)
needs_learn2learn = pytest.mark.skipif(bool(_missing), reason=_missing)


def kronecker_factored(model: Model, loop: InnerLoop, tasks: int) -> Learner:
    """learn2learn's GBML, where it is installed, with its one rate.

    The gradient of a factor is a sum of products over an axis, most of which cancel: at a quarter
    of the rate it is good to 1e-5 in fp32.
    """
    if _missing:
        pytest.skip(_missing)
    one_rate = replace(loop, rates=dict.fromkeys(loop.rates, loop.rates["head"] / 4))
    return gbml(model, one_rate, named_transform("kronecker"), tasks_per_pass=tasks)


TABLE = {
    "maml": Row(lambda m, loop, t: MAML(m, loop, tasks_per_pass=t), gradient="exact"),
    "maml-one-step": Row(
        lambda m, loop, t: MAML(m, one_step(loop), tasks_per_pass=t), gradient="exact"
    ),
    "fomaml": Row(lambda m, loop, t: MAML(m, loop, order=1, tasks_per_pass=t), gradient="own"),
    "anil": Row(lambda m, loop, t: MAML(m, head_only(loop), tasks_per_pass=t), gradient="exact"),
    "boil": Row(lambda m, loop, t: MAML(m, body_only(loop), tasks_per_pass=t), gradient="exact"),
    "adjoint": Row(
        lambda m, loop, t: MAML(m, replace(loop, gradient="adjoint"), tasks_per_pass=t),
        gradient="exact",
    ),
    "momentum": Row(lambda m, loop, t: MAML(m, momentum(loop), tasks_per_pass=t), gradient="exact"),
    "adam": Row(lambda m, loop, t: MAML(m, adam(loop), tasks_per_pass=t), gradient="exact"),
    "adam-adjoint": Row(
        lambda m, loop, t: MAML(m, replace(adam(loop), gradient="adjoint"), tasks_per_pass=t),
        gradient="exact",
    ),
    "meta-sgd": Row(lambda m, loop, t: meta_sgd(m, loop, tasks_per_pass=t), gradient="exact"),
    "meta-curvature": Row(
        lambda m, loop, t: meta_curvature(m, loop, full=8, tasks_per_pass=t), gradient="exact"
    ),
    "maml++": Row(lambda m, loop, t: maml_plus_plus(m, loop, tasks_per_pass=t), gradient="exact"),
    "step-rates-adjoint": Row(
        lambda m, loop, t: MAML(
            m,
            replace(loop, learned=LearnedRates("tensor", loop.steps), gradient="adjoint"),
            tasks_per_pass=t,
        ),
        gradient="exact",
    ),
    "gbml": Row(kronecker_factored, gradient="exact"),
    "proto-maml": Row(
        lambda m, loop, t: proto_maml(m, loop, tasks_per_pass=t),
        gradient="exact",
        numeric=False,
        heads=("prototype",),
    ),
    "cavia": Row(
        lambda m, loop, t: cavia(m, context_only(loop), tasks_per_pass=t),
        gradient="exact",
        context=2,
    ),
    "imaml": Row(
        lambda m, loop, t: IMAML(m, loop, solver_steps=2, tasks_per_pass=t), gradient="own"
    ),
    "evolution": Row(
        lambda m, loop, t: EvolutionStrategies(m, loop, pairs=2, tasks_per_pass=t),
        gradient="own",
    ),
    "reptile": Row(lambda m, loop, t: Reptile(m, loop, tasks_per_pass=t), gradient="own"),
    "reptile-serial": Row(
        lambda m, loop, t: Reptile(m, loop, epsilon=0.5, tasks_per_pass=t), gradient="own"
    ),
    "protonet": Row(
        lambda m, _, t: ProtoNet(FeatureStore(m), tasks_per_pass=t),
        descends=False,
        gradient="exact",
        numeric=False,
    ),
    "finetune": Row(lambda m, loop, t: FineTuning(m, loop, tasks_per_pass=t)),
    "multitask": Row(
        lambda m, loop, t: MultiTask(m, loop, classes=6, tasks_per_pass=t),
        gradient="own",
        numeric=False,
    ),
    "prototypes": Row(
        lambda m, *_: NearestPrototype(FeatureStore(m)),
        descends=False,
        numeric=False,
        frozen=True,
    ),
    "logistic": Row(
        lambda m, *_: Classifier(FeatureStore(m), LinearClassifier(C=10.0)),
        descends=False,
        numeric=False,
        frozen=True,
    ),
    "ridge": Row(
        lambda m, *_: Classifier(FeatureStore(m), RidgeClassifier()),
        descends=False,
        numeric=False,
        frozen=True,
    ),
    "neighbour": Row(
        lambda m, *_: Classifier(FeatureStore(m), KNeighborsClassifier(n_neighbors=1)),
        descends=False,
        numeric=False,
        frozen=True,
    ),
    "label-names": Row(
        lambda m, *_: LabelNames(FeatureStore(m)), descends=False, numeric=False, frozen=True
    ),
    "named-prototypes": Row(
        lambda m, *_: LabelNames(FeatureStore(m), weight=1.0),
        descends=False,
        numeric=False,
        frozen=True,
    ),
    "tfidf-prototypes": Row(
        lambda *_: TfIdfPrototypes(TfIdf()),
        descends=False,
        numeric=False,
        frozen=True,
    ),
    "tfidf-logistic": Row(
        lambda *_: Classifier(TfIdf(), LinearClassifier()),
        descends=False,
        numeric=False,
        frozen=True,
    ),
    "tfidf-bayes": Row(
        lambda *_: Classifier(TfIdf(), MultinomialNB()),
        descends=False,
        numeric=False,
        frozen=True,
    ),
    "majority": Row(lambda *_: Majority(), descends=False, numeric=False, frozen=True),
}


def rows(keep: Callable[[Row], object] = lambda row: True) -> Any:
    """Parametrizes a test over the rows of the table to which its property applies."""
    return pytest.mark.parametrize("name", [n for n, row in TABLE.items() if keep(row)])


def rows_and_heads(keep: Callable[[Row], object]) -> Any:
    """Parametrizes a test over such rows, and over the heads that each works with."""
    pairs = [(n, head) for n, row in TABLE.items() if keep(row) for head in row.heads]
    return pytest.mark.parametrize(("name", "head"), pairs)


MODELS = [
    ("tiny-bert", "lora"),
    ("tiny-gpt2", "lora"),
    ("tiny-llama", "lora"),
    ("tiny-bert", "ia3"),
    ("tiny-gpt2", "ia3"),
    ("tiny-bert", "prefix_tuning"),
    ("tiny-gpt2", "prefix_tuning"),
]
models = pytest.mark.parametrize(("backbone", "method"), MODELS)
# Ten times this rate diverges: finite differences of a loss in the thousands are mere rounding.
NUMERIC_RATE = 0.001


def learner(
    name: str,
    language_model: Callable[..., AdaptedModel],
    *,
    steps: int = 2,
    rate: float = 0.05,
    tasks: int = TASKS,
    **model: Any,
) -> Learner:
    """The learner of a row on a tiny language model."""
    row = TABLE[name]
    if row.frozen:
        model["method"] = "none"
    if row.context:
        model["context"] = row.context
    loop = InnerLoop(steps, {"adapter": rate, "head": rate})
    made = row.make(language_model(**model), loop, tasks)
    made.tasks_per_pass = tasks
    return made


def numeric_learner(name: str, tasks: int = TASKS) -> Learner:
    """The learner of a row on a small perceptron."""
    row = TABLE[name]
    loop = InnerLoop(2, {"body": NUMERIC_RATE, "head": NUMERIC_RATE})
    return row.make(MLP((1, 8, 8, 1), context=row.context), loop, tasks)


def initial(learner: Learner, seed: int = 0) -> Params:
    return learner.init(torch.Generator().manual_seed(seed))


def model_of(learner: Learner) -> Model:
    assert isinstance(learner, (MAML, IMAML, EvolutionStrategies, Reptile, FineTuning, MultiTask))
    return learner.model


def model_state(state: Params) -> Params:
    """The meta-parameters that a model knows, without those that only the learner has."""
    return {
        n: value for n, value in state.items() if part(n) not in ("classifier", "rate", "metric")
    }


def assert_same(found: Params, expected: Params, tolerance: float) -> None:
    """Every tensor is near, and none is zero."""
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert norm({name: value}) > 0, name
        assert_near(found[name], value, tolerance, name)


def assert_near(found: Tensor, expected: Tensor, tolerance: float, what: str) -> None:
    """The distance is at most `tolerance` of the length."""
    distance = (found - expected).double().norm()
    assert distance <= tolerance * expected.double().norm() + 1e-12, (what, distance)
