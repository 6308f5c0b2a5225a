"""Checkpointing changes what is kept and nothing else: values, first and second derivatives."""

import pytest
import torch
from transformers.models.llama import modeling_llama as llama

from meta_models.adapters import Adapter
from meta_models.backbone import load_backbone
from meta_models.checkpointing import recomputed
from meta_models.errors import ModelError
from meta_models.heads import Head
from meta_models.model import AdaptedModel
from metalearn.algorithms.maml import MAML
from metalearn.footprint import Footprint
from metalearn.inner.loop import InnerLoop

BACKBONES = ("tiny-bert", "tiny-gpt2", "tiny-llama")


@pytest.fixture(autouse=True)
def _in_float64(monkeypatch) -> None:
    """Llama normalizes and weighs in float32, whatever it is given: here it does not."""

    def norm(self, x):
        return self.weight * x * (x.square().mean(-1, keepdim=True) + self.variance_epsilon).rsqrt()

    def attention(module, query, key, value, mask, scaling, **_):
        key, value = (llama.repeat_kv(x, module.num_key_value_groups) for x in (key, value))
        weights = (query @ key.mT * scaling + mask).softmax(-1)
        return (weights @ value).transpose(1, 2).contiguous(), weights

    monkeypatch.setattr(llama.LlamaRMSNorm, "forward", norm)
    monkeypatch.setattr(llama, "eager_attention_forward", attention)


def model_of(name: str, checkpoint: bool, method: str = "lora", device: str = "cpu", **more):
    frozen = load_backbone(name, dtype=torch.float64, device=device)
    options = {"r": 2} if method in ("lora", "dora") else {}
    adapter = Adapter(frozen, method, options, **more)
    return AdaptedModel(adapter, Head("prototype", frozen.width), checkpoint=checkpoint)


@pytest.mark.parametrize("name", BACKBONES)
@pytest.mark.parametrize("tasks", [1, 2])
@pytest.mark.parametrize(("order", "gradient"), [(1, "unrolled"), (2, "unrolled"), (2, "adjoint")])
def test_meta_gradients_are_the_same(name, tasks, order, gradient, make_episode, generic) -> None:
    episode = make_episode(tasks=2)
    loop = InnerLoop(2, {"adapter": 0.1, "head": 0.1}, gradient=gradient)
    found = []
    for checkpoint in (False, True):
        model = model_of(name, checkpoint)
        learner = MAML(model, loop, order=order, tasks_per_pass=tasks)
        state = generic(learner.init(torch.Generator().manual_seed(0)))
        found.append(learner.meta_gradient(state, episode)[0])
    for key, expected in found[0].items():
        torch.testing.assert_close(found[1][key], expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("method", ["dora", "ia3"])
@pytest.mark.parametrize("layers", [None, (1,)])
def test_other_adapters_and_kept_trunks(method, layers, make_episode, generic) -> None:
    episode = make_episode(tasks=1)
    found = []
    for checkpoint in (False, True):
        model = model_of("tiny-bert", checkpoint, method, layers=layers)
        learner = MAML(model, InnerLoop(1, {"adapter": 0.1, "head": 0.1}), tasks_per_pass=1)
        state = generic(learner.init(torch.Generator().manual_seed(0)))
        found.append(learner.meta_gradient(state, episode)[0])
    for key, expected in found[0].items():
        torch.testing.assert_close(found[1][key], expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("gradient", ["unrolled", "adjoint"])
def test_less_is_kept_at_second_order(gradient, make_episode) -> None:
    episode = make_episode(tasks=1, ways=4, shots=3)
    loop = InnerLoop(3, {"adapter": 0.1, "head": 0.1}, gradient=gradient, adjoint="reverse")
    peaks = []
    for checkpoint in (False, True):
        learner = MAML(model_of("tiny-bert", checkpoint, device="meta"), loop, tasks_per_pass=1)
        state = learner.init(torch.Generator().manual_seed(0))
        with Footprint() as found:
            learner.meta_gradient(state, episode)
        peaks.append(found.peak)
    assert peaks[1] < 0.9 * peaks[0]


def test_nested_arguments_and_unused_ones() -> None:
    x, y, z = (torch.randn(3, dtype=torch.float64, requires_grad=True) for _ in range(3))

    def function(given, scale, unused):
        return {"a": given["x"].sin() * given["y"], "b": (given["y"] ** 3 * scale,)}

    def grads(call):
        out = call(function, {"x": x, "y": y}, 2.0, z)
        first = torch.autograd.grad((out["a"] + out["b"][0]).sum(), (x, y), create_graph=True)
        return *first, *torch.autograd.grad(first[0].sum() * first[1].sum(), (x, y))

    for one, other in zip(
        grads(lambda f, *a: f(*a)), grads(lambda f, *a: recomputed(f, *a)), strict=True
    ):
        torch.testing.assert_close(one, other)


def test_second_derivatives_against_finite_differences() -> None:
    torch.manual_seed(0)
    x, w = (torch.randn(2, 2, dtype=torch.float64, requires_grad=True) for _ in range(2))

    def function(x, w):
        return recomputed(lambda a, b: torch.tanh(a @ b), x, w)

    assert torch.autograd.gradcheck(function, (x, w))
    assert torch.autograd.gradgradcheck(function, (x, w))


def test_layers_with_a_cache_are_refused(make_episode) -> None:
    model = model_of("tiny-gpt2", True, "prefix_tuning")
    learner = MAML(model, InnerLoop(1, {"adapter": 0.1}), tasks_per_pass=1)
    state = learner.init(torch.Generator().manual_seed(0))
    with pytest.raises(ModelError, match=r"backbone\.checkpoint"):
        learner.meta_gradient(state, make_episode(tasks=1))
