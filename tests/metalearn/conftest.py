"""What the tests of learners share: the mean query loss, and central finite differences."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from meta_models.params import Params, part
from metalearn.learner import Learner
from tasks.collate import Collator
from tasks.episode import IGNORE, Batch, Episode, EpisodeShape, TaskStream
from tasks.sources.sinusoid import Sinusoid

STEP = 1e-5  # central differences err by STEP^2 times a third derivative, and by rounding / STEP


def mean_loss(outputs: Tensor, batch: Batch) -> Tensor:
    """Mean over tasks of the mean over the task's examples: each task counts the same."""
    losses = []
    for task in range(batch.tasks):
        real = batch.example_mask[task]
        if batch.kind == "value":
            assert batch.values is not None
            error = outputs[task][real] - batch.values[task][real]
            losses.append(error.square().mean())
        else:
            assert batch.labels is not None
            losses.append(cross_entropy(outputs[task][real], batch.labels[task][real]))
            assert (batch.labels[task][~real] == IGNORE).all()
    return torch.stack(losses).mean()


@pytest.fixture(scope="session")
def query_loss() -> Callable[[Learner, Params, Episode], float]:
    """What a learner promises to differentiate, in its own words: adapt, predict, judge."""

    def loss(learner: Learner, state: Params, episode: Episode) -> float:
        adapted = learner.adapt(state, episode.support)[-1]
        return mean_loss(learner.predict(adapted, episode.query), episode.query).item()

    return loss


def directions(
    state: Params, per_tensor: int, coordinates: int, joint: int
) -> Iterator[tuple[str, Params]]:
    """Directions in each tensor by itself, random and single coordinates, and in all together.

    They have length one; in learned rates, which are small, the length of the rates.
    """
    generator = torch.Generator().manual_seed(0)
    for _ in range(joint):
        lines = {}
        for name, value in state.items():
            size = value.norm() if part(name) == "rate" else 1.0
            line = torch.randn(value.shape, generator=generator, dtype=value.dtype)
            lines[name] = size * line / line.norm()
        yield "all together", lines
    for name, value in state.items():
        size = value.norm() if part(name) == "rate" else 1.0
        for _ in range(per_tensor):
            line = torch.randn(value.shape, generator=generator, dtype=value.dtype)
            yield name, {name: size * line / line.norm()}
        for _ in range(coordinates):
            line = torch.zeros_like(value)
            line.view(-1)[int(torch.randint(value.numel(), (), generator=generator))] = size
            yield name, {name: line}


@pytest.fixture(scope="session")
def check_gradient() -> Callable[..., None]:
    """Compares a meta-gradient with central differences of a loss, tensor by tensor."""

    def check(
        loss: Callable[[Params], float],
        state: Params,
        gradient: Params,
        *,
        per_tensor: int = 1,
        coordinates: int = 1,
        joint: int = 0,
    ) -> None:
        assert gradient.keys() == state.keys()
        assert all(value.dtype == torch.float64 for value in state.values())
        for name, line in directions(state, per_tensor, coordinates, joint):
            ahead, behind = (
                loss({n: v + sign * STEP * line[n] if n in line else v for n, v in state.items()})
                for sign in (1, -1)
            )
            found = sum((gradient[n] * d).sum().item() for n, d in line.items())
            expected = (ahead - behind) / (2 * STEP)
            assert found == pytest.approx(expected, rel=1e-6, abs=1e-8), name

    return check


@pytest.fixture
def llama_in_double(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lifts the fp32 casts in Llama's norms and softmax, whose rounding hides a gradient.

    With them central differences are good to three digits, without them to nine.
    """
    from transformers.models.llama.modeling_llama import LlamaRMSNorm

    def norm(self: Any, states: Tensor) -> Tensor:
        mean = states.square().mean(-1, keepdim=True)
        return self.weight * states * torch.rsqrt(mean + self.variance_epsilon)

    softmax = torch.nn.functional.softmax
    monkeypatch.setattr(LlamaRMSNorm, "forward", norm)
    monkeypatch.setattr(
        torch.nn.functional, "softmax", lambda x, dim=None, dtype=None: softmax(x, dim)
    )


@pytest.fixture(scope="session")
def sinusoids() -> Episode:
    """Three regression tasks, K varying."""
    stream = TaskStream(Sinusoid(), "train", EpisodeShape(shots=(3, 8), queries=5), seed=0)
    episode = Collator(None).collate(stream.tasks(range(3)), range(3))
    return episode.map(lambda x: x.double() if x.is_floating_point() else x)
