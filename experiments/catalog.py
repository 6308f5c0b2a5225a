"""The catalog: every family, backbone, learner and experiment that has a name.

Like `experiments.config`, this module must not import torch.
"""

from __future__ import annotations

from typing import Any

from experiments.config import (
    AdapterSettings,
    BackboneSettings,
    EpisodeSettings,
    EvaluationSettings,
    Experiment,
    FamilySettings,
)
from experiments.learning import EvolutionSettings, InnerSettings, OuterSettings
from meta_models.methods import METHODS

LEARNERS = {
    "majority": "class frequencies of the support set",
    "prototypes": "nearest class mean of frozen features",
    "logistic": "logistic regression on frozen features",
    "ridge": "ridge regression of the classes on frozen features",
    "neighbour": "the class of the nearest support example, on frozen features",
    "label-names": "nearest label name by frozen features; reads no support text",
    "named-prototypes": "nearest class mean of frozen features, its name as one more example",
    "tfidf-prototypes": "nearest class mean of TF-IDF features",
    "tfidf-logistic": "logistic regression on TF-IDF features",
    "tfidf-bayes": "multinomial naive Bayes on TF-IDF features",
    "finetune": "gradient descent from a fresh adapter, nothing meta-learned",
    "multitask": "adapter trained as one classifier over all training classes, then fine-tuned",
    "protonet": "prototypical network: the adapter learns the metric",
    "maml": "MAML: the adapter learns a start from which gradient descent generalizes",
    "fomaml": "first-order MAML",
    "anil": "MAML in which only the head adapts",
    "boil": "MAML in which everything but the head adapts",
    "meta-sgd": "MAML with a learned rate for each element or tensor",
    "maml++": "MAML with a multi-step loss, learned rates a tensor and step, and annealed order",
    "meta-curvature": "MAML with a learned Kronecker-factored preconditioner",
    "gbml": "MAML with a learnable transform of the gradients, run by learn2learn (GBML)",
    "proto-maml": "MAML whose head starts from the prototypes of the task",
    "cavia": "MAML in which only a context adapts: inputs of an mlp, or a soft prompt",
    "imaml": "implicit MAML: the meta-gradient from the optimum of a proximal inner problem",
    "evolution": "evolution strategies on the meta-parameters, the zero-order reference",
    "reptile": "Reptile: the adapter moves towards what each task adapts to",
    "reptile-serial": "Reptile from task to task, each from where the one before has left it",
}

FAMILIES = {
    "builtin": "72 generated intents in 12 domains, embedded (--family.source builtin)",
    "sinusoid": "sinusoid regression of Finn et al. 2017 (--family.source sinusoid)",
    "file": "your jsonl, csv or parquet (--family.source file --family.path FILE)",
    "folder": "a file a task (--family.source folder --family.path FOLDER; see metalearn tasks)",
    "hub": "a Hugging Face data set by hub name or folder (--family.source hub --family.path NAME)",
}

BACKBONES = {
    "minilm": "all-MiniLM-L6-v2, packaged weights: 6 layers of 384",
    "NAME or PATH": "any Hugging Face encoder or decoder",
    "NAME@2": "any of these, cut after its second layer",
    "tiny-bert": "random encoder of 2 layers, for tests",
    "tiny-gpt2": "random decoder of 2 layers, for tests",
    "tiny-llama": "random decoder of 2 layers, for tests",
    "mlp": "1-40-40-1 perceptron for regression",
}

ADAPTERS = {name: method.changes for name, method in METHODS.items()}

BANKING77 = FamilySettings(
    source="file",
    name="banking77",
    path="protaugment_banking77/data.jsonl.gz",
    folds="protaugment_banking77/folds.json",
    fold="01",
)
FOLDS = ("01", "02", "03", "04", "05")
CLINC150 = BANKING77.model_copy(
    update={
        "name": "clinc150",
        "path": "protaugment_oos/data.jsonl.gz",
        "folds": "protaugment_oos/folds.json",
    }
)


def _whole(name: str, folder: str) -> FamilySettings:
    """A data set of the data folder, all of whose classes are test classes."""
    return FamilySettings(source="file", name=name, path=f"{folder}/data.jsonl.gz", test_only=True)


TEST_FAMILIES = {
    "banking77": _whole("banking77", "protaugment_banking77"),
    **{name: _whole(name, name) for name in ("huffpost", "trec", "agnews", "sst2", "subj")},
    **{name: _whole(name, name) for name in ("mr", "cr")},
    "clinc150": CLINC150,
}
"""Families by name for `evaluation.families`."""
FAMILIES |= {
    name: f"to judge on (--evaluation.families): {family.path}"
    for name, family in TEST_FAMILIES.items()
}

ROWS = {"head.kind": ("slots",), "inner.rate": (0.1, 0.3), "inner.steps": (1, 3)}
"""A grid for learners that learn the rows of their head."""
PROTOTYPES = {"head.kind": ("prototype",), "inner.rate": (0.03, 0.1), "inner.steps": (1, 3)}
"""A grid for learners whose head starts from the task, near its optimum already."""


def _adaptation(name: str, description: str, **settings: Any) -> Experiment:
    """Learned adaptation on BANKING77."""
    shared: dict[str, Any] = {
        "learners": ("prototypes", "finetune", "anil", "maml"),
        "family": BANKING77,
        "adapter": AdapterSettings(layers=(3, 4, 5)),
        "inner": InnerSettings(steps=3),
        "outer": OuterSettings(
            steps=40, tasks=4, validate_every=20, validation_tasks=40, patience=0
        ),
        "grids": {
            # Fresh rows start at chance, so fine-tuning may also choose prototypes.
            "finetune": {"head.kind": ("prototype", "slots"), "inner.rate": (0.1,)},
            "anil": {"head.kind": ("slots",), "inner.rate": (0.1, 0.3)},
            "maml": {"head.kind": ("slots",), "inner.rate": (0.1, 0.3)},
        },
    }
    return Experiment(name=name, description=description, **(shared | settings))


def _all_learners(family: FamilySettings) -> Experiment:
    """Every learner on the same tasks, with a grid of four and the same small budget."""
    return Experiment(
        name=f"learners-{family.name}",
        description=f"every learner beside the baselines, {family.name} fold 01, 1 and 5 shots",
        learners=(
            *("prototypes", "majority", "logistic", "finetune", "multitask", "protonet"),
            *("anil", "fomaml", "maml", "maml++", "meta-sgd", "meta-curvature", "imaml"),
            *("proto-maml", "boil", "reptile", "reptile-serial", "evolution", "cavia"),
        ),
        family=family,
        # One training for both numbers of shots.
        episodes=EpisodeSettings(shots=(1, 5), train_shots=(1, 5)),
        adapter=AdapterSettings(layers=(5,)),
        inner=InnerSettings(tasks_per_pass=4),
        outer=OuterSettings(
            steps=16, tasks=4, rate=2e-3, warmup=3, validate_every=16, validation_tasks=30
        ),
        evaluation=EvaluationSettings(tasks=100, reference="prototypes"),
        evolution=EvolutionSettings(pairs=2),
        grids={
            "logistic": {"baselines.strength": (1.0, 10.0, 100.0, 1000.0)},
            "protonet": {"head.scale": (3.0, 5.0, 10.0, 20.0)},
            **dict.fromkeys(("anil", "fomaml", "maml", "maml++", "meta-sgd"), ROWS),
            **dict.fromkeys(("meta-curvature", "imaml", "evolution"), ROWS),
            **dict.fromkeys(("finetune", "multitask", "proto-maml", "boil"), PROTOTYPES),
            **dict.fromkeys(("reptile", "reptile-serial"), PROTOTYPES),
            "cavia": PROTOTYPES | {"inner.rate": (0.1, 1.0)},
        },
    )


def _transfer() -> Experiment:
    """Learners trained on one family and judged on others.

    Its learners that are trained for adaptation are the four with the best validation accuracy in
    `learners-clinc150`: meta-sgd 98.0, protonet, proto-maml and boil 97.9 (the next 97.6).
    """
    return _all_learners(CLINC150).model_copy(
        update={
            "name": "clinc150-transfer",
            "description": "meta-trained on CLINC150, judged on six other data sets, 1 and 5 shots",
            "learners": (
                *("prototypes", "majority", "logistic", "finetune", "multitask"),
                *("protonet", "proto-maml", "boil", "meta-sgd"),
            ),
            # In files: all learners share it, and so does a run that goes on.
            "backbone": BackboneSettings(trunk_memory=0.0),
            "outer": OuterSettings(
                steps=24, tasks=4, rate=2e-3, warmup=3, validate_every=12, validation_tasks=40
            ),
            "evaluation": EvaluationSettings(
                tasks=600,
                gradient_tasks=100,
                families=("banking77", "huffpost", "trec", "agnews", "sst2", "subj"),
                reference="prototypes",
            ),
        }
    )


def _learned_metric(family: FamilySettings, title: str) -> Experiment:
    """ProtoNet on LoRA, its temperature and its step chosen on validation classes."""
    return Experiment(
        name=f"{family.name}-protonet",
        description=f"ProtoNet on LoRA against frozen prototypes, {title}, five folds, 600 tasks",
        learners=("prototypes", "protonet"),
        family=family,
        folds=FOLDS,
        # One-shot tasks over all training classes; no second order, so fused attention will do.
        episodes=EpisodeSettings(shots=(1, 5), train_ways=0, train_shots=(1, 1), train_queries=5),
        backbone=BackboneSettings(attention="sdpa"),
        inner=InnerSettings(tasks_per_pass=4),
        adapter=AdapterSettings(
            options={
                "r": 8,
                "lora_alpha": 16,
                "target_modules": ["query", "key", "value", "dense"],
            }
        ),
        outer=OuterSettings(
            steps=30,
            tasks=1,
            rate=5e-4,
            warmup=5,
            weight_decay=0.01,
            validate_every=15,
            validation_tasks=120,
            patience=0,
        ),
        evaluation=EvaluationSettings(tasks=600, reference="prototypes"),
        grids={"protonet": {"head.scale": (5.0, 10.0)}},
    )


_ENTRIES = (
    Experiment(
        name="quickstart",
        description="MAML beside the baselines on the embedded family, 5-way 1-shot",
        learners=("prototypes", "majority", "logistic", "finetune", "maml"),
        inner=InnerSettings(steps=3, rate=0.05, tasks_per_pass=4),
        outer=OuterSettings(
            steps=24, tasks=4, rate=2e-3, warmup=4, validate_every=12, validation_tasks=16
        ),
        evaluation=EvaluationSettings(tasks=50),
        grids={"maml": {"head.kind": ("slots",)}},
    ),
    Experiment(
        name="banking77-frozen",
        description="frozen prototypes on BANKING77, five folds, 600 tasks, 1 and 5 shots",
        learners=("prototypes", "logistic"),
        family=BANKING77,
        folds=FOLDS,
        episodes=EpisodeSettings(shots=(1, 5)),
        inner=InnerSettings(tasks_per_pass=4),
        evaluation=EvaluationSettings(tasks=600),
        grids={"logistic": {"baselines.strength": (1.0, 10.0, 100.0)}},
    ),
    _learned_metric(BANKING77, "BANKING77"),
    _learned_metric(CLINC150, "CLINC150"),
    _adaptation(
        "banking77-maml",
        "MAML and ANIL against naive fine-tuning, BANKING77 fold 01, 3 seeds",
        seeds=(0, 1, 2),
        inner=InnerSettings(steps=3, tasks_per_pass=4),
        evaluation=EvaluationSettings(tasks=200, reference="finetune"),
    ),
    _adaptation(
        "banking77-maml-folds",
        "banking77-maml on all five folds and 600 tasks, one seed",
        folds=FOLDS,
        evaluation=EvaluationSettings(tasks=600, reference="finetune"),
    ),
    _adaptation(
        "banking77-maml-bf16",
        "fold 01 of banking77-maml-folds on a bfloat16 backbone, without fine-tuning",
        learners=("prototypes", "anil", "maml"),
        folds=FOLDS[:1],
        backbone=BackboneSettings(dtype="bfloat16"),
        evaluation=EvaluationSettings(tasks=600),
    ),
    _all_learners(BANKING77),
    _all_learners(CLINC150),
    _transfer(),
    Experiment(
        name="sinusoid-maml",
        description="MAML on sinusoid regression, 10 shots",
        learners=("finetune", "maml"),
        family=FamilySettings(source="sinusoid", name="sinusoid"),
        episodes=EpisodeSettings(shots=(10,), queries=10),
        backbone=BackboneSettings(name="mlp"),
        inner=InnerSettings(rate=0.001),
        outer=OuterSettings(steps=1000, tasks=25, validate_every=100),
    ),
)

EXPERIMENTS: dict[str, Experiment] = {entry.name: entry for entry in _ENTRIES}
