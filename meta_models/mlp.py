"""A multilayer perceptron on numeric inputs: the regression network of Finn et al. (2017, 5.1)."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor
from torch.nn.init import trunc_normal_

from meta_models.errors import ModelError
from meta_models.model import Model
from meta_models.params import Params, pick
from tasks.episode import Batch

Weights = Literal["he", "small", "uniform"]
"""Distribution of a layer's fresh weights W and biases b, by the number n of its inputs:
he: W normal of variance 2/n, b = 0 (He et al. 2015, "Delving Deep into Rectifiers", section 2.2);
small: W normal of deviation 0.01, cut at two deviations, b = 0 (the code of Finn et al. 2017);
uniform: W and b uniform within 1/sqrt(n) of 0 (torch.nn.Linear; the code of Zintgraf et al.)."""


class MLP(Model):
    """f(x) = W_n relu(... relu(W_1 x + b_1) ...) + b_n, its loss the mean squared error.

    With a context phi `[n]`, x is followed by phi; phi is no meta-parameter: it is zero at the
    start of every task (Zintgraf et al. 2019, section 3.2).

    Args:
        sizes: Units of every layer, input and output included.
        context: n, context parameters that tasks adapt; 0: none.
        weights: Distribution of the weights before training.
        device: Where they are put.

    Example:
        >>> sorted(MLP((1, 40, 40, 1)).init(torch.Generator()))[:2]
        ['body.bias0', 'body.bias1']
    """

    batched = True

    def __init__(
        self,
        sizes: tuple[int, ...] = (1, 40, 40, 1),
        *,
        context: int = 0,
        weights: Weights = "he",
        device: torch.device | str = "cpu",
    ) -> None:
        self.encoder = ("body", "context") if context else ("body",)
        self.sizes = (sizes[0] + context, *sizes[1:])
        self.context = context
        self.weights: Weights = weights
        self.device = device

    def init(self, generator: torch.Generator) -> Params:
        values: Params = {}
        last = len(self.sizes) - 2
        for layer, (fan_in, fan_out) in enumerate(
            zip(self.sizes[:-1], self.sizes[1:], strict=True)
        ):
            part = "head" if layer == last else "body"
            weight, bias = _fresh(self.weights, fan_in, fan_out, generator)
            values[f"{part}.weight{layer}"] = weight.to(self.device)
            values[f"{part}.bias{layer}"] = bias.to(self.device)
        return values

    def start(self, meta: Params, support: Batch, features: Tensor | None = None) -> Params:
        start = pick(meta, (*self.encoder, "head"))
        if self.context and "context.vector" not in start:
            like = next(iter(start.values()))
            start["context.vector"] = like.new_zeros(support.tasks, self.context)
        return start

    def features(self, values: Params, batch: Batch) -> Tensor:
        if batch.inputs is None:
            raise ModelError("an MLP needs numeric inputs; these tasks have text")
        hidden = batch.inputs.to(values["body.weight0"].dtype)
        if self.context:
            context = values["context.vector"].unsqueeze(1)
            hidden = torch.cat([hidden, context.expand(-1, hidden.shape[1], -1)], dim=-1)
        for layer in range(len(self.sizes) - 2):
            hidden = torch.relu(_affine(values, "body", layer, hidden))
        return hidden

    def logits(self, values: Params, batch: Batch, features: Tensor | None = None) -> Tensor:
        if features is None:
            features = self.features(values, batch)
        return _affine(values, "head", len(self.sizes) - 2, features)


def _fresh(
    weights: Weights, fan_in: int, fan_out: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Weights and biases of a layer before training."""
    weight, bias = torch.zeros(fan_out, fan_in), torch.zeros(fan_out)
    if weights == "he":
        weight = torch.randn(fan_out, fan_in, generator=generator) * math.sqrt(2 / fan_in)
    elif weights == "small":
        trunc_normal_(weight, std=0.01, a=-0.02, b=0.02, generator=generator)
    else:
        for value in (weight, bias):
            value.uniform_(-1 / math.sqrt(fan_in), 1 / math.sqrt(fan_in), generator=generator)
    return weight, bias


def _affine(values: Params, part: str, layer: int, inputs: Tensor) -> Tensor:
    weight, bias = values[f"{part}.weight{layer}"], values[f"{part}.bias{layer}"]
    return torch.baddbmm(bias.unsqueeze(1), inputs, weight.mT)
