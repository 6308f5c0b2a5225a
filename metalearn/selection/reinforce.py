"""REINFORCE with baseline: follow the gradient of the return by what was tried.

Williams 1992, "Simple Statistical Gradient-following Algorithms for Connectionist Reinforcement
Learning"; Sutton and Barto 2018, "Reinforcement Learning", section 13.4.

    gradient = 1/E sum_e sum_t (G_t - v(s_t)) d log pi(a_t | s_t),      G_t = r_t + g G_{t+1}

v is a second network that is fitted to G by least squares; what it says does not bias the gradient,
and takes out of it what the state explains.  Deviation: no factor g^t, as is customary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from metalearn.selection.control import (
    Actor,
    Mask,
    Trainer,
    Watch,
    actions_of,
    chance,
    mask_of,
    size_of,
    vector_of,
)


@dataclass(frozen=True)
class Episodes:
    """Steps of E episodes, one after the other `[I]`.

    Attributes:
        states: `[I, D]`.
        masks: What was possible `[I, A]`.
        actions: `[I]`.
        returns: G `[I]`.
        count: E.
        outcome: Mean return of an episode.
    """

    states: Tensor
    masks: Tensor
    actions: Tensor
    returns: Tensor
    count: int
    outcome: float


def network(size: int, outputs: int, width: int) -> nn.Module:
    """One hidden layer, or none where its width is 0; outputs are zero at first."""
    last = nn.Linear(width or size, outputs)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(nn.Linear(size, width), nn.Tanh(), last) if width else last


def log_chances(policy: nn.Module, states: Tensor, masks: Tensor) -> Tensor:
    """Log-probabilities of actions `[I, A]`."""
    return torch.log_softmax(policy(states).masked_fill(~masks, -torch.inf), -1)


def aim(policy: nn.Module, value: nn.Module, met: Episodes) -> Tensor:
    """A number whose gradient by the policy is the estimate of that of the return.

    Args:
        policy: States to logits.
        value: States to v; it gets no gradient.
        met: Episodes of this policy.
    """
    chosen = log_chances(policy, met.states, met.masks).gather(1, met.actions[:, None])[:, 0]
    gain = met.returns - value(met.states)[:, 0].detach()
    # 1/E sum_e sum_t (G_t - v(s_t)) d log pi(a_t | s_t)
    return (gain * chosen).sum() / met.count


class Softmax(Actor):
    """Acts by the probabilities of a network: its largest, or a draw.

    Args:
        policy: States to logits.
        vector: Observations to states.
        random: Of the draws; None: the largest.
    """

    def __init__(
        self, policy: nn.Module, vector: Any, random: np.random.Generator | None = None
    ) -> None:
        self.policy, self._vector, self._random = policy, vector, random

    def act(self, observation: Any, mask: Mask) -> int:
        state = torch.from_numpy(self._vector(observation))[None]
        with torch.no_grad():
            logs = log_chances(self.policy, state, torch.from_numpy(mask)[None])[0].numpy()
        # The largest of log-probabilities with Gumbel noise is a draw from them.
        noise = 0.0 if self._random is None else self._random.gumbel(size=logs.shape)
        return int(np.argmax(logs + noise))

    def values(self) -> dict[str, np.ndarray]:
        return {name: value.numpy() for name, value in self.policy.state_dict().items()}


def collect(actor: Softmax, environment: Any, count: int, discount: float) -> Episodes:
    """Go through E new episodes."""
    actions, vector = actions_of(environment), vector_of(environment)
    states, masks, chosen, following, outcome = [], [], [], [], 0.0
    for _ in range(count):
        observation, info = environment.reset()
        rewards: list[float] = []
        ended = False
        while not ended:
            mask = mask_of(info, actions)
            action = actor.act(observation, mask)
            states.append(vector(observation))
            masks.append(mask)
            chosen.append(action)
            observation, reward, terminated, truncated, info = environment.step(action)
            rewards.append(float(reward))
            ended = terminated or truncated
        # G_t = r_t + g G_{t+1}
        tail, later = [], 0.0
        for reward in reversed(rewards):
            later = reward + discount * later
            tail.append(later)
        following += tail[::-1]
        outcome += sum(rewards) / count
    return Episodes(
        torch.from_numpy(np.stack(states)),
        torch.from_numpy(np.stack(masks)),
        torch.tensor(chosen),
        torch.tensor(following),
        count,
        outcome,
    )


@dataclass(frozen=True)
class Reinforce(Trainer):
    """Policy gradient on whole episodes.

    Attributes:
        updates: Gradient steps.
        episodes: E an update.
        rate: Of Adam, for both networks.
        width: Of their hidden layer; 0: they are linear.
        discount: g.
        entropy: Weight of the policy's mean entropy, falling to zero in a line.
    """

    updates: int = 200
    episodes: int = 32
    rate: float = 1e-2
    width: int = 32
    discount: float = 1.0
    entropy: float = 0.01

    def train(self, environment: Any, seed: int, watch: Watch | None = None) -> Softmax:
        vector, size = vector_of(environment), size_of(environment)
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(seed)
            policy = network(size, actions_of(environment), self.width)
            value = network(size, 1, self.width)
        environment.reset(seed=seed)
        actor = Softmax(policy, vector, chance(seed))
        optimizer = torch.optim.Adam([*policy.parameters(), *value.parameters()], lr=self.rate)
        for update in range(self.updates):
            met = collect(actor, environment, self.episodes, self.discount)
            logs = log_chances(policy, met.states, met.masks)
            # An impossible action adds nothing: 0 log 0 = 0.
            entropy = -(logs.exp() * logs.clamp(min=-1e9)).sum(1).mean()
            error = (value(met.states)[:, 0] - met.returns).square().mean()
            weight = self.entropy * (1 - update / self.updates)
            optimizer.zero_grad()
            (error - aim(policy, value, met) - weight * entropy).backward()
            optimizer.step()
            if watch is not None:
                watch(
                    {
                        "update": update + 1,
                        "outcome": met.outcome,
                        "entropy": entropy.item(),
                        "value_error": error.item(),
                    }
                )
        return Softmax(policy.requires_grad_(False), vector)

    def restore(self, environment: Any, values: dict[str, np.ndarray]) -> Softmax:
        policy = network(size_of(environment), actions_of(environment), self.width)
        policy.load_state_dict({name: torch.from_numpy(value) for name, value in values.items()})
        return Softmax(policy.requires_grad_(False), vector_of(environment))
