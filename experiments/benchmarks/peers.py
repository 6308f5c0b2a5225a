"""The same meta-step in four other libraries, as their users write it.

    phi_0 = theta,    phi_{s+1} = phi_s - alpha grad L_support(phi_s)
    d/d theta  1/T sum_t L_query(phi_S)

Each works on the same PEFT model with a linear head, at its best settings: frozen weights take no
gradient, tasks go one after the other, each with one backward through its own graph, attention is
eager and nothing drops out.  In first order, what a library offers for it is used.  Where only the
head adapts, the features are computed once a task and the library adapts the head alone, as
learn2learn's own example of ANIL does; without a gradient where there is no adapter.  With a
bfloat16 backbone the weights are stored in it, the adapter stays float32 and the encoder runs under
autocast.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import grad
from torch.func import functional_call
from torch.nn.functional import cross_entropy, normalize

from experiments.benchmarks.data import initial, synthetic
from experiments.benchmarks.plan import Case, Work
from experiments.benchmarks.step import Step
from meta_models.adapters import Adapter
from meta_models.backbone import Backbone, load_backbone, random_backbone
from meta_models.heads import SLOTS

Inputs = tuple[Tensor, ...]


class Classifier(nn.Module):
    """A PEFT encoder, the mean of its states scaled to unit length, and a linear head.

    Args:
        backbone: The frozen model.
        work: Which layers carry LoRA, and how many classes there are.
    """

    def __init__(self, backbone: Backbone, work: Work) -> None:
        super().__init__()
        if work.frozen:
            self.encoder = Adapter(backbone, "none").model
        else:
            self.encoder = Adapter(backbone, "lora", {"r": work.rank}, work.layers).model
        self.head = nn.Linear(backbone.width, work.ways)
        self.autocast = work.dtype == "bfloat16"
        for name, parameter in self.encoder.named_parameters():
            if ".lora_" in name:
                parameter.data = parameter.data.float()
                parameter.requires_grad_()

    def features(self, ids: Tensor, mask: Tensor) -> Tensor:
        """`[B, D]` of token ids and mask `[B, L]`."""
        with torch.autocast(ids.device.type, torch.bfloat16, enabled=self.autocast):
            states = self.encoder(input_ids=ids, attention_mask=mask).last_hidden_state.float()
        weight = mask.unsqueeze(-1).float()
        return normalize((states * weight).sum(1) / weight.sum(1), dim=-1)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        return self.head(self.features(ids, mask))


@dataclass(frozen=True)
class Task:
    """One task: the inputs of the module that adapts, and labels `[B]`."""

    support: Inputs
    query: Inputs
    support_labels: Tensor
    query_labels: Tensor


Method = Callable[[nn.Module, Tensor, Task, Work], tuple[Tensor, Sequence[Tensor]]]
"""`method(module, scale, task, work)`: the query loss after the steps, and the tensors at which its
gradient is the meta-gradient in the module's trained parameters."""


def prepare(case: Case) -> Step:
    """The step of a case, ready to run."""
    work, method = case.work, METHODS[case.method]
    dtype = getattr(torch, work.dtype)
    if work.sizes:
        backbone = random_backbone(work.sizes, dtype=dtype)
    else:
        backbone = load_backbone(work.backbone, dtype=dtype)
    config: Any = backbone.model.config
    model = Classifier(backbone, work).to(work.device)
    scale = torch.zeros((), device=work.device, requires_grad=True)
    names = _start(model, scale)
    episode = synthetic(work, config.vocab_size)
    module = model.head if work.head_only else model
    others = [p for p in model.encoder.parameters() if p.requires_grad] if work.head_only else []

    def one(number: int) -> tuple[float, Sequence[Tensor]]:
        # A function of its own: when it returns, nothing holds the graph of this task any more.
        loss, wanted = method(module, scale, _task(model, episode, number, work), work)
        return loss.item(), grad(loss, [*others, *wanted, scale])

    def step(_: int) -> tuple[float, dict[str, Tensor]]:
        loss, total = one(0)
        for number in range(1, work.tasks):
            more, found = one(number)
            loss += more
            total = [a + b for a, b in zip(total, found, strict=True)]
        mean = [value / work.tasks for value in total]
        return loss / work.tasks, _as_ours(dict(zip(names, mean, strict=True)))

    return step


def _start(model: Classifier, scale: Tensor) -> list[str]:
    """Put the common start into the model; returns the names of what is trained, in order."""
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    shapes = {_ours(n): tuple(p.shape) for n, p in trained.items() if n.startswith("encoder.")}
    values = initial(shapes | {"slots": (SLOTS, model.head.in_features), "scale": ()})
    with torch.no_grad():
        for name, parameter in trained.items():
            if name.startswith("encoder."):
                parameter.copy_(values[_ours(name)])
        model.head.weight.copy_(values["slots"][: model.head.out_features])
        model.head.bias.zero_()
        scale.copy_(values["scale"])
    return [*trained, "scale"]


def _ours(name: str) -> str:
    return name.replace("encoder.", "adapter.", 1)


def _as_ours(gradient: dict[str, Tensor]) -> dict[str, Tensor]:
    """Under the names of MAML's state, in which the bias of the head starts at a fixed zero."""
    weight = gradient["head.weight"]
    slots = torch.cat([weight, weight.new_zeros(SLOTS - len(weight), weight.shape[1])])
    rest = {_ours(n): g for n, g in gradient.items() if not n.startswith("head.")}
    return rest | {"slots": slots}


def _task(model: Classifier, episode: Any, number: int, work: Work) -> Task:
    sides = []
    for batch in (episode.support, episode.query):
        inputs = (batch.tokens.ids[number], batch.tokens.mask[number].long())
        with torch.set_grad_enabled(not work.frozen):
            sides.append((model.features(*inputs),) if work.head_only else inputs)
    support, query = sides
    return Task(support, query, episode.support.labels[number], episode.query.labels[number])


def _trained(module: nn.Module) -> dict[str, Tensor]:
    return {n: p for n, p in module.named_parameters() if p.requires_grad}


def torch_func(
    module: nn.Module, scale: Tensor, task: Task, work: Work
) -> tuple[Tensor, Sequence[Tensor]]:
    """A loop of one's own over `torch.func.functional_call`.

    The gradients are autograd's: nested `torch.func.grad` is slower here and takes twice the
    memory.
    """
    fast = start = _trained(module)
    for _ in range(work.steps):
        logits = scale.exp() * functional_call(module, fast, task.support)
        loss = cross_entropy(logits, task.support_labels)
        slopes = grad(loss, list(fast.values()), create_graph=work.order == 2)
        fast = {n: v - work.rate * g for (n, v), g in zip(fast.items(), slopes, strict=True)}
    logits = scale.exp() * functional_call(module, fast, task.query)
    return cross_entropy(logits, task.query_labels), list(start.values())


class Trained(nn.Module):
    """What is trained in a module, as a module of its own that calls the whole.

    Args:
        module: The whole; its parameters, not copies, are registered here.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.call = partial(functional_call, module)  # not a submodule
        self.names = list(_trained(module))
        for name, parameter in _trained(module).items():
            self.register_parameter(name.replace(".", "/"), parameter)  # pyright: ignore

    def forward(self, *inputs: Tensor) -> Tensor:
        values: Any = dict(zip(self.names, self._parameters.values(), strict=True))
        return self.call(values, inputs)


def by_higher(
    module: nn.Module, scale: Tensor, task: Task, work: Work
) -> tuple[Tensor, Sequence[Tensor]]:
    """higher: `monkeypatch` and its differentiable SGD.

    It cannot patch PEFT's layers ("no consistent method resolution order" for a class with an
    abstract base), so it patches a module of the trained parameters alone, and copies nothing
    frozen.  In first order it tracks nothing, and the gradient is that at the adapted weights.
    """
    import higher

    exact = work.order == 2
    trained = Trained(module)
    optimizer = torch.optim.SGD(trained.parameters(), lr=work.rate)
    fast: Any = higher.monkeypatch(trained, copy_initial_weights=False, track_higher_grads=exact)
    stepper = higher.get_diff_optim(
        optimizer, trained.parameters(), fmodel=fast, track_higher_grads=exact
    )
    for _ in range(work.steps):
        loss = cross_entropy(scale.exp() * fast(*task.support), task.support_labels)
        stepper.step(loss)
    loss = cross_entropy(scale.exp() * fast(*task.query), task.query_labels)
    return loss, list((trained if exact else fast).parameters())


def by_learn2learn(
    module: nn.Module, scale: Tensor, task: Task, work: Work
) -> tuple[Tensor, Sequence[Tensor]]:
    """learn2learn: a clone of `MAML` that adapts."""
    from metalearn.inner.learn2learn_engine import learn2learn

    learner = learn2learn().algorithms.MAML(
        module, lr=work.rate, first_order=work.order == 1, allow_nograd=True
    )
    clone = learner.clone()
    for _ in range(work.steps):
        clone.adapt(cross_entropy(scale.exp() * clone(*task.support), task.support_labels))
    loss = cross_entropy(scale.exp() * clone(*task.query), task.query_labels)
    return loss, list(_trained(module).values())


def by_torchopt(
    module: nn.Module, scale: Tensor, task: Task, work: Work
) -> tuple[Tensor, Sequence[Tensor]]:
    """TorchOpt: its functional SGD.

    `MetaSGD` takes the same steps in the same time, but more memory, knows no first order, and
    must not be shown the frozen modules.
    """
    import torchopt

    optimizer: Any = torchopt.sgd(lr=work.rate)
    fast: Any = _trained(module)
    start, state = fast, optimizer.init(fast)
    for _ in range(work.steps):
        logits = scale.exp() * functional_call(module, fast, task.support)
        loss = cross_entropy(logits, task.support_labels)
        slopes = grad(loss, list(fast.values()), create_graph=work.order == 2)
        found = dict(zip(fast, slopes, strict=True))
        updates, state = optimizer.update(found, state, inplace=False)
        fast = torchopt.apply_updates(fast, updates, inplace=False)
    logits = scale.exp() * functional_call(module, fast, task.query)
    return cross_entropy(logits, task.query_labels), list(start.values())


METHODS: dict[str, Method] = {
    "torch.func": torch_func,
    "higher": by_higher,
    "learn2learn": by_learn2learn,
    "TorchOpt": by_torchopt,
}
"""By the names of `plan.PEERS`."""
