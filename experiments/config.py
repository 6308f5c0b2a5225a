"""The settings of an experiment: frozen, typed, written to JSON and read back unchanged.

No module imported here may import torch: `metalearn --help` answers from these models alone.
Every field is a command-line option (`--inner.rate 0.1`) and its description is the help text.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from meta_models.methods import METHODS


class Settings(BaseModel):
    """Base of all settings: immutable, and an unknown field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class FamilySettings(Settings):
    """Where tasks come from."""

    source: Literal["builtin", "sinusoid", "file", "folder", "hub"] = "builtin"
    """builtin: generated intents; sinusoid: regression; file: jsonl, csv, parquet; folder: of such
    files, each a task with classes of its own; hub: datasets of Hugging Face."""
    name: str = "builtin"
    """Name in tables and caches."""
    path: str = ""
    """File or folder (sources "file" and "folder"; relative paths are also looked up under
    METALEARN_DATA), or hub name or local folder of a Hugging Face data set (source "hub")."""
    subset: str = ""
    """Configuration of a Hugging Face data set."""
    text: str = "text"
    """Column of the text."""
    text_b: str = ""
    """Column of the second text of a pair."""
    label: str = "label"
    """Column of the label, the tags or the target."""
    kind: Literal["class", "token", "sequence", "value"] = "class"
    """What a label is."""
    folds: str = ""
    """JSON file {fold: {train, valid, test: [classes]}}, of a folder: [tasks]; empty: split by
    `split_seed`."""
    fold: str = ""
    """Which fold of the file; an experiment over several folds sets it."""
    split_seed: int = 0
    """Seed of the class split where no folds file is given."""
    test_only: bool = False
    """Every class is a test class: a family to be judged on, never trained on."""
    phase: tuple[float, float] = (0.0, math.pi)
    """Range of b in the sinusoids y = A sin(w x - b), in radians."""
    frequency: tuple[float, float] = (1.0, 1.0)
    """Range of w in the sinusoids."""


class EpisodeSettings(Settings):
    """Shape of the tasks."""

    ways: int = Field(default=5, ge=0)
    """N, classes a task; 0: every class of the split."""
    shots: tuple[int, ...] = (1,)
    """K, support examples a class; several values are evaluated one after the other."""
    queries: int = Field(default=5, ge=1)
    """Q, query examples a class."""
    train_ways: int | tuple[int, int] | None = None
    """N in meta-training if it differs (0: all training classes); two numbers are a range that
    every task draws its N from."""
    train_shots: tuple[int, int] | None = None
    """Range of K in meta-training; none: each of `shots` is trained for on its own."""
    train_queries: int | None = None
    """Q in meta-training if it differs."""

    @field_validator("train_ways", "train_shots")
    @classmethod
    def _sizes(cls, value: Any, info: ValidationInfo) -> Any:
        # Alone, 0 ways mean all classes; in a range they would mean nothing.
        least = 1 if info.field_name == "train_ways" else 0
        if isinstance(value, tuple) and not least <= value[0] <= value[1]:
            raise ValueError(
                f"{value[0]} to {value[1]} is no range; give {least} or more, the lower first"
            )
        if isinstance(value, int) and value < 0:
            raise ValueError(f"{value} is no number of classes; give 0 for all training classes")
        return value


class BackboneSettings(Settings):
    """The frozen language model."""

    name: str = "minilm"
    """minilm, a Hugging Face name or a local folder, NAME@2 cut after its second layer; mlp for
    regression; tiny-bert, tiny-gpt2 and tiny-llama are random, for tests."""
    attention: Literal["eager", "sdpa"] = "eager"
    """Attention implementation; second order needs eager."""
    quantize: Literal["none", "8bit", "4bit"] = "none"
    """Keep the weights of linear layers in 8 or 4 bits (needs the extra `quantized`); gradients, of
    either order, are those of the rounded weights."""
    pooling: Literal["mean", "first", "last"] | None = None
    """Which hidden states become a feature; none: mean for encoders, last for decoders."""
    normalize: bool = True
    """Scale features to unit length."""
    max_length: int = Field(default=128, ge=1)
    """Longest sequence, in tokens; longer texts are cut."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Precision that the frozen weights are stored in; what is learned stays in float32."""
    layout: Literal["packed", "grouped", "padded"] = "packed"
    """How texts lie in rows: several a row, so that no padding is computed; one a row, with rows
    of like length together; one a row, all as wide as the longest.  The same to rounding."""
    keep_trunk: bool = True
    """Keep what the layers below the first adapter make of each text; the results are the same to
    rounding."""
    trunk_memory: float = Field(default=2.0, ge=0)
    """GiB of it in memory; 0: all on disk, where later runs find it."""
    trunk_disk: float = Field(default=10.0, ge=0)
    """GiB on disk, of all models together, for what does not fit into memory; 0: none."""
    trunk_folder: str | None = None
    """Where on disk, a local one; none: metalearn/trunk in the user's cache folder."""
    shard: bool = False
    """Divide the frozen layers among the processes of torchrun (FSDP2); first order only, and
    nothing below the first adapter is kept."""
    checkpoint: bool = False
    """Keep no activations but the inputs of layers, and compute the rest again for each gradient,
    of first and of second order: less memory for more time, the same gradients.  It pays with one
    task a pass; where several share one, the whole backbone counts as one layer."""
    weights: Literal["he", "small", "uniform"] = "he"
    """Weights of an mlp before training: normal of variance 2 / inputs; normal of deviation 0.01;
    uniform within 1 / sqrt(inputs), biases too."""


class AdapterSettings(Settings):
    """The PEFT method whose values are learned."""

    method: str = "lora"
    """lora, rslora, dora, ia3, vera, prefix_tuning, prompt_tuning, ln_tuning or bias (see
    docs/adapters.md), or any other PEFT type by its lower-case name; none: no adapter."""
    options: dict[str, Any] = {}
    """Fields of the PEFT configuration that differ from the defaults of the method, as JSON."""
    layers: tuple[int, ...] | None = None
    """Indices of the layers that carry the adapter; none: all."""

    @field_validator("options")
    @classmethod
    def _differing(cls, options: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        """One way to write the same settings, whatever the method was before."""
        method = METHODS.get(info.data.get("method", ""))
        defaults = method.defaults if method else {}
        return {n: v for n, v in options.items() if n not in defaults or defaults[n] != v}


class HeadSettings(Settings):
    """How logits are made from features."""

    kind: Literal["prototype", "label", "slots", "zero"] = "prototype"
    """Initial rows: prototypes of the support, label-name embeddings, learned slots, or zeros."""
    scale: float = 10.0
    """Initial inverse temperature of the logits (learned in the outer loop)."""


class InnerSettings(Settings):
    """The inner loop."""

    steps: int = Field(default=5, ge=0)
    """S, gradient steps on the support set."""
    rate: float = 0.1
    """Inner learning rate of the adapter."""
    head_rate: float | None = None
    """Inner learning rate of the head; none: `rate`."""
    parts: tuple[Literal["adapter", "head"], ...] = Field(default=("adapter", "head"), min_length=1)
    """Parts that adapt, where the learner does not say it; for an mlp, adapter is its body."""
    optimizer: Literal["sgd", "momentum", "adam"] = "sgd"
    """Optimizer of the inner steps, differentiated through."""
    momentum: float = Field(default=0.9, ge=0, lt=1)
    """Decay of the momentum optimizer."""
    rates_per: Literal["tensor", "element"] = "element"
    """What has a learned rate of its own in meta-sgd."""
    order: Literal[1, 2] = 2
    """Order of the meta-gradient."""
    first_order_until: float = Field(default=0.0, ge=0, le=1)
    """Fraction of the meta-training in first order before it is in second; maml++ has its own."""
    exact_steps: int | None = Field(default=None, ge=0)
    """Last steps that a second-order gradient goes through in full, the ones before as in first
    order; none: all."""
    gradient: Literal["unrolled", "adjoint"] = "unrolled"
    """Second order by the graph of all steps, or step by step in constant memory; the same to
    rounding."""
    adjoint: Literal["auto", "reverse", "forward"] = "auto"
    """The adjoint's Hessian-vector products: a backward through the backward, or tangents through
    it; auto: the faster one on the device.  The same to rounding."""
    chunks: int = Field(default=1, ge=1)
    """Parts of support and query set whose gradients are taken one by one and summed: less memory,
    the same to rounding.  A graph of unrolled steps holds all parts of the support."""
    engine: Literal["native", "higher", "learn2learn"] = "native"
    """Who takes the inner steps: metalearn, or one task at a time, and to rounding the same, one of
    two libraries; gbml is always run by learn2learn."""
    transform: Literal["kronecker", "curvature", "linear"] = "kronecker"
    """Learnable transform of the gradients in gbml: two Kronecker factors that are positive
    semi-definite, the factors of Meta-Curvature, or a full matrix for each tensor."""
    proximal: float = Field(default=1.0, gt=0)
    """Weight of the proximal term of imaml."""
    solver_steps: int = Field(default=5, ge=1)
    """Steps of conjugate gradients of imaml."""
    context: int = Field(default=4, ge=1)
    """Context parameters of cavia: inputs of an mlp, soft-prompt vectors of a language model; their
    inner rate is `rate`."""
    clamp: float = Field(default=0.0, ge=0)
    """Largest entry of the meta-gradient of a single task in cavia; 0: no limit."""
    epsilon: float = Field(default=0.1, gt=0, le=1)
    """Fraction of the way that reptile-serial goes after each task."""
    tasks_per_pass: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    """Tasks that go through one batched pass and whose graph is held at once; 1: one at a time;
    auto: as many as keep the device busy and fit half of its memory."""


class OuterSettings(Settings):
    """The outer loop."""

    steps: int = Field(default=100, ge=1)
    """Meta-steps."""
    tasks: int = Field(default=4, ge=1)
    """T, tasks a meta-step."""
    rate: float = 1e-3
    """Peak rate of AdamW."""
    schedule: Literal["constant", "cosine"] = "cosine"
    """Shape of the rate after the warm-up."""
    warmup: int = Field(default=10, ge=0)
    """Meta-steps of linear warm-up."""
    weight_decay: float = 0.0
    """Decoupled weight decay of AdamW, towards zero."""
    clip: float = 1.0
    """Largest norm of the meta-gradient; 0: off."""
    validate_every: int = Field(default=20, ge=1)
    """Meta-steps between validations (step 0 and the last step are always validated)."""
    validation_tasks: int = Field(default=40, ge=1)
    """Tasks of a validation, the same every time."""
    patience: int = Field(default=5, ge=0)
    """Validations without a better score before training stops; 0: never."""
    checkpoint_every: int = Field(default=10, ge=1)
    """Meta-steps between checkpoints."""


class SamplingSettings(Settings):
    """What is done with the tasks of meta-training; validation and test tasks never change."""

    curriculum: Literal["none", "difficulty", "progress"] = "none"
    """Which tasks of a pool are trained on: the first ones; by difficulty, from easy to hard; those
    on which the loss changes.  Each training learns it from its own losses."""
    pool: int = Field(default=4, ge=2)
    """Tasks drawn for each one that a curriculum chooses."""
    quantiles: tuple[float, float] = (0.0, 1.0)
    """Quantile of the difficulty in the pool at the first and at the last meta-step."""
    floor: float = Field(default=0.1, gt=0, le=1)
    """Share of the probability that "progress" spreads over all tasks of the pool."""
    fast: float = Field(default=0.3, gt=0, le=1)
    """Rate of the running mean of the loss of each class."""
    slow: float = Field(default=0.05, gt=0, le=1)
    """Rate of a second, slower mean; their distance is the progress of a class."""
    mix: float = Field(default=0.0, ge=0, le=1)
    """Probability that the classes of a task are made of two of its classes each: an example is a
    pair of texts."""
    delete: float = Field(default=0.0, ge=0, le=1)
    """Probability of each word to be left out."""
    swap: float = Field(default=0.0, ge=0, le=1)
    """Probability of each word to change places with another one."""
    duplicate: float = Field(default=0.0, ge=0, le=1)
    """Probability of each word to be written twice."""
    mask: float = Field(default=0.0, ge=0, le=1)
    """Probability of each word to be replaced by the mask token of the backbone."""
    sets: tuple[Literal["support", "query"], ...] = Field(default=("support",), min_length=1)
    """Sets whose words are edited."""

    @field_validator("quantiles")
    @classmethod
    def _shares(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not all(0 <= quantile <= 1 for quantile in value):
            raise ValueError(f"{value[0]} and {value[1]} must be from 0 to 1")
        return value

    @field_validator("slow")
    @classmethod
    def _slower(cls, value: float, info: ValidationInfo) -> float:
        if value >= info.data.get("fast", math.inf):
            raise ValueError(f"{value} must be smaller than fast")
        return value


class EvaluationSettings(Settings):
    """The judging of learners on unseen classes."""

    tasks: int = Field(default=100, ge=1)
    """Test tasks, the same for every learner."""
    gradient_tasks: int | None = Field(default=None, ge=1)
    """Test tasks of learners that pass through the encoder at every step, the first of them; they
    are compared with others on these; none: all."""
    families: tuple[str, ...] = ()
    """Families whose test classes are judged on, with at most as many ways as they have classes:
    names of `metalearn list`, or JSON files of family settings; empty: the one trained on."""
    seed: int = 1000
    """Seed of the evaluation tasks."""
    tasks_per_batch: int = Field(default=10, ge=1)
    """Tasks evaluated at a time."""
    resamples: int = Field(default=2000, ge=1)
    """Bootstrap resamples of an interval."""
    reference: str = ""
    """Learner that every other one is compared with, paired; empty: the first."""


class BaselineSettings(Settings):
    """Settings that only baselines have."""

    strength: float = 10.0
    """C of logistic regression, the inverse of its regularization."""


class EvolutionSettings(Settings):
    """Evolution strategies."""

    pairs: int = Field(default=8, ge=1)
    """Antithetic pairs a meta-step."""
    deviation: float = Field(default=0.02, gt=0)
    """Standard deviation of the noise on the meta-parameters."""


class TrackingSettings(Settings):
    """Weights & Biases and TensorBoard."""

    mode: Literal["offline", "online", "disabled"] = "offline"
    """offline writes the run below the run folder; `wandb sync` uploads it later."""
    project: str = "metalearn"
    """W&B project."""
    group: str = ""
    """W&B group; empty: the name of the experiment.  A sweep sets its own name."""
    job_type: str = "train"
    """W&B job type; `metalearn sweep` and `metalearn evaluate` set theirs."""
    tensorboard: bool = False
    """Write event files into `tensorboard/` of the run folder (extra `tensorboard`)."""


class Experiment(Settings):
    """Learners x folds x seeds on the same tasks: what one run folder holds."""

    name: str = "experiment"
    """Name in the catalog; the run folder begins with it."""
    description: str = ""
    """One line for `metalearn list`."""
    learners: tuple[str, ...] = ("prototypes", "maml")
    """Learners to train and compare, by catalog name."""
    folds: tuple[str, ...] = ()
    """Folds of the family to go through; empty: the one of `family.fold`."""
    seeds: tuple[int, ...] = (0,)
    """Training seeds; each learner that trains is trained once a seed and fold."""
    grids: dict[str, dict[str, tuple[Any, ...]]] = {}
    """Per learner, settings to choose on validation classes, as JSON:
    {"maml": {"inner.rate": [0.1, 0.3]}}."""
    threads: int = Field(default=0, ge=0)
    """Threads of torch in a process; 0: as many as cores, or its share of them."""
    device: str = "auto"
    """Where models and tasks are: cpu, cuda, cuda:1, mps; auto: the accelerator if there is one."""
    timeout: float = Field(default=600.0, gt=0)
    """Seconds that the processes of torchrun wait for each other before one counts as lost."""
    compile: Literal["auto", "on", "off"] = "auto"
    """Compile the meta-gradients of maml and its kin on an mlp, which takes some 20 seconds and a
    C++ compiler; auto: where the meta-steps are many enough to win them back.  What a language
    model computes depends on the lengths of its texts: it is never compiled."""
    family: FamilySettings = FamilySettings()
    episodes: EpisodeSettings = EpisodeSettings()
    backbone: BackboneSettings = BackboneSettings()
    adapter: AdapterSettings = AdapterSettings()
    head: HeadSettings = HeadSettings()
    inner: InnerSettings = InnerSettings()
    outer: OuterSettings = OuterSettings()
    sampling: SamplingSettings = SamplingSettings()
    baselines: BaselineSettings = BaselineSettings()
    evolution: EvolutionSettings = EvolutionSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    tracking: TrackingSettings = TrackingSettings()

    def override(self, settings: dict[str, Any]) -> Self:
        """A copy with dotted settings replaced, validated like any other.

        Raises:
            KeyError: If a name is not a setting.

        Example:
            >>> Experiment().override({"inner.rate": 0.5}).inner.rate
            0.5
        """
        values = self.model_dump()
        for name, value in settings.items():
            *path, last = name.split(".")
            place = values
            for part in path:
                place = place[part]
            if last not in place:
                raise KeyError(name)
            place[last] = value
        return type(self).model_validate(values)
