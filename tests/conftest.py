"""Fixtures for all tests: the folder of real data, tiny language models and tiny tasks."""

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
import torch

from meta_models.adapters import Adapter
from meta_models.backbone import load_backbone
from meta_models.heads import Head, HeadKind
from meta_models.model import AdaptedModel
from meta_models.params import Params, part
from tasks.collate import Collator
from tasks.episode import Episode, EpisodeShape, Example, TaskStream
from tasks.sources.files import data_folder
from tasks.sources.records import RecordFamily

OPTIONS = {
    "none": {},
    "lora": {"r": 2, "lora_alpha": 4},
    "ia3": {},
    "vera": {"r": 4},
    "prefix_tuning": {"num_virtual_tokens": 2},
}
CLASSES = ("refund", "cards", "late_post", "hello", "zoo", "unit")


@pytest.fixture(scope="session", autouse=True)
def cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The user's cache folder is no place for what tests keep."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real data; the test skips where it is absent."""
    folder = data_folder()
    if not folder.is_dir():
        pytest.skip(f"no data folder {folder}; set METALEARN_DATA")
    return folder


@pytest.fixture(scope="session")
def language_model() -> Callable[..., AdaptedModel]:
    """Makes a tiny language model of random weights; the same arguments give the same one."""

    @cache
    def make(
        backbone: str = "tiny-bert",
        method: str = "lora",
        head: HeadKind = "prototype",
        dtype: torch.dtype = torch.float64,
        context: int = 0,
    ) -> AdaptedModel:
        frozen = load_backbone(backbone, dtype=dtype)
        adapter = Adapter(frozen, method, OPTIONS[method])
        return AdaptedModel(adapter, Head(head, frozen.width), context=context)

    return make


@pytest.fixture(scope="session")
def text_family() -> RecordFamily:
    """Six classes of ten short texts, of two to six words, all for training."""
    texts = (
        f"{name[:4]} {'abcdefghij'[i]}{name[-2:]}{' so' * (i % 5)}"
        for i in range(10)
        for name in CLASSES
    )
    records = [Example(i, text, label=CLASSES[i % len(CLASSES)]) for i, text in enumerate(texts)]
    return RecordFamily("tiny", "class", records, {"train": CLASSES})


@pytest.fixture(scope="session")
def make_episode(text_family: RecordFamily) -> Callable[..., Episode]:
    """Draws tasks of the text family as an episode; with the defaults N and K vary inside it."""
    collator = Collator(load_backbone("tiny-bert").tokenizer)

    def make(
        tasks: int = 3,
        ways: int | tuple[int, int] = (2, 4),
        shots: int | tuple[int, int] = (1, 3),
        queries: int = 2,
        seed: int = 0,
        first: int = 0,
    ) -> Episode:
        shape = EpisodeShape(ways, shots, queries)
        stream = TaskStream(text_family, "train", shape, seed=seed)
        indices = range(first, first + tasks)
        return collator.collate(stream.tasks(indices), indices)

    return make


@pytest.fixture(scope="session")
def generic() -> Callable[..., Params]:
    """A point near `state` at which no gradient vanishes by construction.

    A fresh adapter is a special point: LoRA's B is zero, and with it the gradient of A.  Learned
    rates move by that part of themselves, preconditioners a little: a step must stay a small one.
    """

    def move(state: Params, deviation: float = 0.2, seed: int = 0) -> Params:
        generator = torch.Generator().manual_seed(seed)
        moved = {}
        for name, value in state.items():
            noise = deviation * torch.randn(value.shape, generator=generator).to(value)
            if part(name) == "rate":
                moved[name] = value * (1 + noise)
            else:
                moved[name] = value + (0.1 * noise if part(name) == "metric" else noise)
        return moved

    return move
