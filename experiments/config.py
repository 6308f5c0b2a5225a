"""The settings of an experiment: frozen, typed, written to JSON and read back unchanged.

No module imported here may import torch: `metalearn --help` answers from these models alone.
Every field is a command-line option (`--inner.rate 0.1`) and its description is the help text.
"""

from __future__ import annotations

import math
from typing import Any, Literal, Self

from pydantic import Field, ValidationInfo, field_validator

from experiments.learning import (
    BaselineSettings,
    EvolutionSettings,
    InnerSettings,
    OuterSettings,
    SamplingSettings,
)
from experiments.schema import Settings
from meta_models.methods import METHODS


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
    options: dict[str, Any] = Field(default={})
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
    grids: dict[str, dict[str, tuple[Any, ...]]] = Field(default={})
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
