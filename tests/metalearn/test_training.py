"""The meta-training loop on a learner whose gradients are written down."""

from __future__ import annotations

import json
import math
from collections.abc import Callable

import pytest
import torch

from meta_models.params import Params
from metalearn.learner import Learner, Metrics
from metalearn.training import MetaTraining, NonFiniteLoss, OuterLoop
from tasks.curriculum import Curriculum, Difficulty, Progress
from tasks.episode import Batch, Episode, EpisodeShape, TaskStream


class Scripted(Learner):
    """Its state is (a, b); step k asks for the gradient of a script, whatever the state."""

    def __init__(self, script: Callable[[int], tuple[Params, float]]) -> None:
        self.script = script
        self.steps: list[int] = []

    def init(self, generator: torch.Generator) -> Params:
        return {"a": torch.randn(3, generator=generator), "b": torch.randn((), generator=generator)}

    def adapt(self, state: Params, support: Batch, start: Params | None = None) -> list[Params]:
        raise NotImplementedError

    def predict(self, adapted: Params, query: Batch) -> torch.Tensor:
        raise NotImplementedError

    def meta_gradient(
        self, state: Params, episode: Episode, progress: float = 1.0
    ) -> tuple[Params, Metrics]:
        step = episode.index[0]
        self.steps.append(step)
        gradient, loss = self.script(step)
        return gradient, {"loss": loss}


def random_gradient(step: int) -> tuple[Params, float]:
    generator = torch.Generator().manual_seed(step)
    size = 0.1 if step % 2 else 10.0  # both sides of the clip
    a, b = torch.randn(3, generator=generator), torch.randn((), generator=generator)
    return {"a": size * a, "b": size * b}, 1.0


def episode_of(step: int) -> Episode:
    """An episode that only says which step it is for."""
    nothing = torch.zeros(1, 0)
    empty = Batch(("none",), "value", *([nothing] * 4), label_names=((),))
    return Episode((step,), empty, empty)


def training(
    loop: OuterLoop,
    script: Callable[[int], tuple[Params, float]] = random_gradient,
    validate: Callable[[Params], float] | None = None,
) -> MetaTraining:
    return MetaTraining(
        Scripted(script), episode_of, validate, loop, torch.Generator().manual_seed(0)
    )


def test_the_rate_warms_up_and_falls() -> None:
    loop = OuterLoop(steps=30, warmup=10, rate=2.0)

    assert [loop.rate_at(step) for step in range(10)] == pytest.approx(
        [0.2 * (step + 1) for step in range(10)]
    )
    assert loop.rate_at(10) == pytest.approx(2.0)
    assert loop.rate_at(20) == pytest.approx(1.0)
    assert loop.rate_at(15) == pytest.approx(1 + math.cos(math.pi / 4))
    falling = [loop.rate_at(step) for step in range(10, 31)]
    assert falling == sorted(falling, reverse=True)
    assert falling[-1] == pytest.approx(0.0)


def test_a_constant_rate_stays() -> None:
    loop = OuterLoop(steps=30, warmup=0, rate=0.5, schedule="constant")

    assert {loop.rate_at(step) for step in range(40)} == {0.5}


@pytest.mark.parametrize(("clip", "decay"), [(0.0, 0.0), (1.0, 0.0), (1.0, 0.3)])
def test_the_outer_optimizer_is_that_of_torch(clip: float, decay: float) -> None:
    loop = OuterLoop(steps=8, warmup=3, rate=0.1, clip=clip, weight_decay=decay)
    ours = training(loop)
    theirs = {n: torch.nn.Parameter(v.clone()) for n, v in ours.state.items()}
    optimizer = torch.optim.AdamW(theirs.values(), lr=1.0, weight_decay=decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, loop.rate_at)

    for step in range(loop.steps):
        figures = ours.take_step()
        gradient, _ = random_gradient(step)
        for name, value in theirs.items():
            value.grad = gradient[name]
        length = torch.nn.utils.clip_grad_norm_(theirs.values(), clip or math.inf)
        optimizer.step()
        schedule.step()
        assert figures["gradient_norm"] == pytest.approx(float(length), rel=1e-6)
        assert figures["rate"] == loop.rate_at(step)

    for name, value in theirs.items():
        torch.testing.assert_close(ours.state[name], value.detach())
    assert ours.done


@pytest.mark.parametrize(
    ("gradient", "loss"), [(0.1, math.nan), (0.1, math.inf), (math.nan, 1.0), (math.inf, 1.0)]
)
def test_a_loss_that_is_not_finite_stops_before_the_state_changes(
    gradient: float, loss: float
) -> None:
    def script(step: int) -> tuple[Params, float]:
        if step < 2:
            return random_gradient(step)
        return {"a": torch.tensor([0.1, gradient, 0.1]), "b": torch.tensor(0.1)}, loss

    run = training(OuterLoop(steps=9), script)
    run.take_step()
    run.take_step()
    before = {n: v.clone() for n, v in run.snapshot()[0].items()}

    with pytest.raises(NonFiniteLoss, match="meta-step 3") as caught:
        run.take_step()

    assert "\n" not in str(caught.value)
    after = run.snapshot()[0]
    assert run.step == 2
    assert after.keys() == before.keys()
    assert all(torch.equal(after[n], before[n]) for n in before)


def test_step_zero_and_the_last_step_are_validated() -> None:
    seen: list[Params] = []

    def validate(state: Params) -> float:
        seen.append({n: v.clone() for n, v in state.items()})
        return 0.5

    run = training(OuterLoop(steps=7, validate_every=3), validate=validate)
    initial = {n: v.clone() for n, v in run.state.items()}
    figures = [run.take_step() for _ in range(7)]

    assert len(seen) == 4  # of the start, and after steps 3, 6 and 7
    assert all(torch.equal(seen[0][n], initial[n]) for n in initial)
    assert ["validation" in f for f in figures] == [False, True, True, False, False, True, True]


def test_no_step_tells_of_two_validations() -> None:
    scores = iter([0.1, 0.2, 0.3])
    run = training(OuterLoop(steps=4, validate_every=2), validate=lambda state: next(scores))
    figures = [run.take_step() for _ in range(4)]
    assert [f.get("validation") for f in figures] == [0.1, 0.2, None, 0.3]


def test_training_stops_when_patience_runs_out_and_keeps_the_best() -> None:
    scores = iter([0.5, 0.6, 0.9, 0.7, 0.9, 0.8])  # an equal score is no better one
    run = training(
        OuterLoop(steps=100, validate_every=2, patience=3), validate=lambda state: next(scores)
    )
    states = {0: {n: v.clone() for n, v in run.state.items()}}
    while not run.done:
        run.take_step()
        states[run.step] = {n: v.clone() for n, v in run.state.items()}

    assert run.step == 10
    assert (run.best_step, run.best_score) == (4, 0.9)
    assert all(torch.equal(run.best[n], states[4][n]) for n in run.best)
    assert not torch.equal(run.best["a"], run.state["a"])


def test_a_training_that_only_gets_worse_keeps_its_start() -> None:
    scores = iter([0.9, 0.1, 0.1])
    run = training(
        OuterLoop(steps=100, validate_every=1, patience=2), validate=lambda state: next(scores)
    )
    start = run.state["a"].clone()
    while not run.done:
        run.take_step()

    assert run.best_step == 0
    assert torch.equal(run.best["a"], start)


def test_without_validation_the_last_state_is_the_best() -> None:
    run = training(OuterLoop(steps=5, validate_every=2))
    while not run.done:
        run.take_step()

    assert run.best_step == 5
    assert all(torch.equal(run.best[n], run.state[n]) for n in run.state)


def test_each_step_sees_its_own_tasks_also_after_restoring() -> None:
    run = training(OuterLoop(steps=6), validate=lambda state: 0.0)
    run.take_step()
    run.take_step()
    tensors, numbers = run.snapshot()

    again = training(OuterLoop(steps=6), validate=lambda state: 0.0)
    again.restore(tensors, numbers)
    while not again.done:
        again.take_step()

    assert isinstance(again.learner, Scripted)
    assert again.learner.steps == [2, 3, 4, 5]


class Judging(Scripted):
    """Its losses of single tasks depend on its state."""

    def meta_gradient(
        self, state: Params, episode: Episode, progress: float = 1.0
    ) -> tuple[Params, Metrics]:
        gradient, _ = super().meta_gradient(state, episode)
        losses = [1.0 + float(state["b"].sin()) * (i % 7) / 10 for i in episode.index]
        return gradient, {"loss": sum(losses) / len(losses), "losses": losses}


@pytest.mark.parametrize("rule", [Difficulty(), Progress()], ids=["difficulty", "progress"])
def test_a_training_with_a_curriculum_is_restored_bit_for_bit(text_family, rule) -> None:
    def fresh() -> tuple[MetaTraining, list[tuple[int, ...]]]:
        seen: list[tuple[int, ...]] = []
        stream = TaskStream(text_family, "train", EpisodeShape(2, 1, 1), seed=0)
        curriculum = Curriculum(stream, rule, tasks=2, pool=3, steps=8)

        def episode(step: int) -> Episode:
            seen.append(tuple(curriculum.indices(step)))
            return Episode(seen[-1], *[episode_of(step).support] * 2)

        learner, start = Judging(random_gradient), torch.Generator().manual_seed(0)
        return MetaTraining(learner, episode, None, OuterLoop(steps=8), start, curriculum), seen

    whole, chosen = fresh()
    for _ in range(4):
        whole.take_step()
    tensors, numbers = whole.snapshot()
    numbers = json.loads(json.dumps(numbers))
    rest = [whole.take_step() for _ in range(4)]

    again, others = fresh()
    again.restore(tensors, numbers)
    same = [again.take_step() for _ in range(4)]

    assert others == chosen[4:]
    for figures, expected in zip(same, rest, strict=True):
        assert "losses" not in figures
        assert figures["task_score"] == expected["task_score"]
        assert figures["loss"] == expected["loss"]
    assert again.snapshot()[1] == whole.snapshot()[1]
    assert all(torch.equal(again.state[n], whole.state[n]) for n in whole.state)
    assert numbers["curriculum"]


def test_a_curriculum_needs_the_losses_of_single_tasks(text_family) -> None:
    stream = TaskStream(text_family, "train", EpisodeShape(2, 1, 1), seed=0)
    curriculum = Curriculum(stream, Difficulty(), tasks=1, pool=2, steps=5)
    learner, start = Scripted(random_gradient), torch.Generator().manual_seed(0)
    run = MetaTraining(learner, episode_of, None, OuterLoop(steps=5), start, curriculum)
    before = {n: v.clone() for n, v in run.state.items()}

    with pytest.raises(TypeError, match="Scripted gives no losses of single tasks"):
        run.take_step()

    assert all(torch.equal(run.state[n], before[n]) for n in before)
    assert "curriculum" not in training(OuterLoop()).snapshot()[1]


def test_a_snapshot_does_not_change_with_the_training() -> None:
    run = training(OuterLoop(steps=6))
    run.take_step()
    tensors, numbers = run.snapshot()
    before = {n: v.clone() for n, v in tensors.items()}

    run.take_step()

    assert numbers["step"] == 1
    assert all(torch.equal(tensors[n], before[n]) for n in before)


def test_the_generator_decides_the_start_and_the_learner_keeps_its_own() -> None:
    run, same = training(OuterLoop()), training(OuterLoop())
    fresh = run.learner.init(torch.Generator().manual_seed(0))

    assert all(torch.equal(run.state[n], fresh[n]) for n in fresh)
    assert all(torch.equal(run.state[n], same.state[n]) for n in fresh)


def test_the_outer_step_does_not_depend_on_strides() -> None:
    """The fused optimizer looks at memory alone."""

    class Turned(Scripted):
        def init(self, generator: torch.Generator) -> Params:
            return {"a": torch.randn(2, 3, generator=generator).mT}

    slope = torch.tensor([[1.0, -1.0], [1.0, 1.0], [-1.0, -1.0]])
    for gradient in (slope, slope.mT.contiguous().mT):
        learner = Turned(lambda step, g=gradient: ({"a": g}, 1.0))
        generator = torch.Generator().manual_seed(0)
        loop = OuterLoop(steps=1, warmup=0, rate=0.1, schedule="constant", clip=0.0)
        trained = MetaTraining(learner, episode_of, None, loop, generator)
        before = trained.state["a"].clone()
        trained.take_step()
        # The first step of Adam is as long as its rate, against the sign of the gradient.
        torch.testing.assert_close(trained.state["a"], before - 0.1 * slope)
