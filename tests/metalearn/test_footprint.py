"""Memory and operations that are predicted from shapes are those of the computation itself."""

import pytest
import torch

from meta_models.adapters import Adapter
from meta_models.backbone import load_backbone
from meta_models.heads import Head
from meta_models.model import AdaptedModel
from metalearn.algorithms.maml import MAML
from metalearn.allocators import FRAGMENTED, JOINED, Blocks, Heap, of_this_process
from metalearn.footprint import Footprint
from metalearn.inner.loop import InnerLoop

ROWS, WIDE, OUT = 7, 5, 3


def empty(*shape: int, grad: bool = False) -> torch.Tensor:
    return torch.empty(*shape, device="meta", requires_grad=grad)


def test_operations_of_a_linear_layer_by_hand() -> None:
    x, w = empty(ROWS, WIDE), empty(WIDE, OUT, grad=True)
    with Footprint() as found:
        loss = (x @ w).square().sum()
    assert found.flops == 2 * ROWS * WIDE * OUT
    with Footprint() as found:
        (slope,) = torch.autograd.grad(loss, w, create_graph=True)
    assert found.flops == 2 * ROWS * WIDE * OUT  # x^T g alone: nothing below asks for a gradient
    with Footprint() as found:
        torch.autograd.grad(slope.sum(), w)
    # Back through x^T g to g = 2 x w (one product), and through that to w (another).
    assert found.flops == 2 * 2 * ROWS * WIDE * OUT


def test_operations_of_a_perceptron_by_hand() -> None:
    x, first, second = empty(ROWS, WIDE), empty(WIDE, WIDE, grad=True), empty(WIDE, OUT, grad=True)
    with Footprint() as found:
        loss = ((x @ first).relu() @ second).sum()
        torch.autograd.grad(loss, (first, second))
    layers = 2 * ROWS * WIDE * WIDE, 2 * ROWS * WIDE * OUT
    # forward of both; slopes of both weights; slope of the hidden layer
    assert found.flops == sum(layers) + sum(layers) + layers[1]


def test_memory_is_what_is_alive() -> None:
    x = empty(100)
    with Footprint() as found:
        y = x + 1
        z = y.view(10, 10)  # no memory of its own
        del y
        assert found.live == 400
        del z
        assert found.live == 0
        w = (x * 2).exp()  # both for a moment
    assert (found.peak, found.live) == (800, 400)
    del w


def test_a_graph_lives_as_long_as_autograd_keeps_it() -> None:
    x = empty(100, grad=True)
    with Footprint() as found:
        loss = x.exp().sum()  # keeps its result
        assert found.live == 400 + 4
        del loss
        assert found.live == 0


@pytest.mark.parametrize("op", [torch.add, torch.mul, torch.true_divide])
@pytest.mark.parametrize("other", [1, 1.0, True])
def test_remembered_shapes_are_those_of_torch(op, other) -> None:
    x = torch.arange(6).view(2, 3).t()
    with Footprint():
        for _ in range(2):  # the second time from memory
            for number in (2, 2.0, other):
                made = op(x.to("meta"), number)
                real = op(x, number)
                assert (made.dtype, made.shape, made.stride()) == (
                    real.dtype,
                    real.shape,
                    real.stride(),
                )


def test_blocks_and_holes() -> None:
    x = empty(100)
    with Footprint(Blocks(512)) as found:
        y = x + 1
    assert found.peak == 512
    with Footprint(Heap()) as found:
        y = x + 1
    assert found.peak == round(FRAGMENTED * 400)
    assert isinstance(of_this_process({"MALLOC_TOP_PAD_": "0"}), Blocks)
    assert isinstance(of_this_process({"GLIBC_TUNABLES": f"glibc.malloc.check=0:{JOINED}"}), Blocks)
    # The cache of the thread alone leaves holes still.
    half = {"GLIBC_TUNABLES": JOINED.split(":")[0]}
    assert type(of_this_process(half)) is type(of_this_process({}))
    del y


@pytest.mark.parametrize("name", ["tiny-bert", "tiny-gpt2", "tiny-llama"])
@pytest.mark.parametrize(
    ("gradient", "order", "tasks", "checkpoint"),
    [
        ("unrolled", 2, 1, False),
        ("unrolled", 2, 2, False),
        ("adjoint", 2, 2, False),
        ("unrolled", 1, 1, False),
        ("unrolled", 2, 1, True),
    ],
)
def test_a_meta_step_without_numbers_is_the_real_one(
    name, gradient, order, tasks, checkpoint, make_episode
) -> None:
    """The same operations, and the same bytes at the peak but for the kept rows of the texts."""
    episode = make_episode(tasks=2, ways=3, shots=2)
    loop = InnerLoop(2, {"adapter": 0.1, "head": 0.1}, gradient=gradient, adjoint="reverse")
    found = {}
    for device in ("cpu", "meta"):
        backbone = load_backbone(name, device=device)
        adapter = Adapter(backbone, "lora", {"r": 2})
        model = AdaptedModel(adapter, Head("slots", backbone.width), checkpoint=checkpoint)
        learner = MAML(model, loop, order=order, tasks_per_pass=tasks)
        state = learner.init(torch.Generator().manual_seed(0))
        with Footprint() as found[device]:
            learner.meta_gradient(state, episode)
    assert found["meta"].flops == found["cpu"].flops > 0
    assert found["meta"].peak == pytest.approx(found["cpu"].peak, rel=0.02)
