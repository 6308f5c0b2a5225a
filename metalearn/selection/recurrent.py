"""A recurrent policy that learns to learn: its memory is the learning, gradients only train it.

Duan et al. 2016, "RL^2: Fast Reinforcement Learning via Slow Reinforcement Learning", section 2;
Wang et al. 2016, "Learning to Reinforcement Learn", section 2.

    h_t = GRU([x_t, onehot(a_{t-1}), u_{t-1}], h_{t-1})     x_t: features, a: choice, u: its outcome
    pi_t = softmax(W h_t),    v_t = w . h_t                 who is not able has probability zero

The memory h goes on through a whole stream and starts at zero in each.  Over many streams the
weights follow the gradient of the expected sum of outcomes, from the outcomes of its own choices
alone, with generalized advantages (Schulman et al. 2016) over the rounds that are left:

    delta_t = u_t + v_{t+1} - v_t,    A_t = delta_t + l A_{t+1},    R_t = A_t + v_t, held fixed
    gradient = mean [A_t / sd(A) d log pi_t(a_t) - 1/2 d (v_t - R_t)^2 + beta d H(pi_t)]

Deviations from the paper: (1) plain policy gradient by Adam in place of trust regions, since new
streams cost next to nothing here; (2) no discount, since a stream ends.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from metalearn.selection.control import Watch
from metalearn.selection.policy import Policy
from metalearn.selection.problem import Problem
from metalearn.selection.scale import Scale, Unit
from metalearn.selection.streams import Rounds, Stream


@dataclass(frozen=True)
class Settings:
    """How a recurrent policy is trained.

    Attributes:
        width: Numbers in the memory.
        updates: Gradient steps.
        streams: Streams B an update.
        rate: Of Adam, falling to zero in a line.
        trace: l, which trades the variance of advantages against their bias.
        entropy: beta, falling to zero in a line.
        clip: Largest norm of a gradient.
    """

    width: int = 64
    updates: int = 3000
    streams: int = 250
    rate: float = 5e-3
    trace: float = 0.9
    entropy: float = 0.05
    clip: float = 0.5


class Network(nn.Module):
    """The memory, the probabilities and the value.

    Args:
        choices: A.
        features: F.
        width: Numbers in the memory D.
    """

    def __init__(self, choices: int, features: int, width: int) -> None:
        super().__init__()
        self.choices = choices
        self.memory = nn.GRUCell(features + choices + 1, width)
        self.policy = nn.Linear(width, choices)
        self.value = nn.Linear(width, 1)
        with torch.no_grad():  # all choices are nearly alike at first
            self.policy.weight.mul_(0.1)
            self.policy.bias.zero_()

    def start(self, count: int) -> tuple[Tensor, Tensor]:
        """Memory `[B, D]` and last choice and outcome `[B, A + 1]` before the first round."""
        return torch.zeros(count, self.memory.hidden_size), torch.zeros(count, self.choices + 1)

    def forward(
        self, features: Tensor, able: Tensor, last: Tensor, memory: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Log-probabilities `[B, A]`, values `[B]` and the memory after this round `[B, D]`."""
        memory = self.memory(torch.cat([features, last], 1), memory)
        logits = self.policy(memory).masked_fill(~able, -torch.inf)
        return torch.log_softmax(logits, 1), self.value(memory)[:, 0], memory

    def told(self, choice: Tensor, outcome: Tensor) -> Tensor:
        """What the next round knows of this one: `[B, A + 1]`."""
        chosen = nn.functional.one_hot(choice, self.choices).to(outcome.dtype)
        return torch.cat([chosen, outcome[:, None]], 1)


@dataclass(frozen=True)
class Played:
    """What was met in B streams `[n, B]`; of choices their log-probabilities."""

    log_chance: Tensor
    value: Tensor
    outcome: Tensor
    entropy: Tensor


def play(
    network: Network, stream: Stream, count: int, random: np.random.Generator, *, greedy: bool
) -> Played:
    """Go through B new streams, with choices drawn from the policy or, if greedy, its largest."""
    stream.begin(count, random)
    memory, last = network.start(count)
    rounds = []
    for _ in range(stream.rounds):
        features, able = (torch.from_numpy(shown) for shown in stream.observe())
        log_chance, value, memory = network(features, able, last, memory)
        if greedy:
            choice = log_chance.argmax(1)
        else:
            # The largest of log-probabilities with Gumbel noise is a draw from them.
            drawn = torch.from_numpy(random.gumbel(size=log_chance.shape).astype(np.float32))
            choice = (log_chance.detach() + drawn).argmax(1)
        outcome = torch.from_numpy(stream.outcome(choice.numpy()))
        last = network.told(choice, outcome)
        # An impossible choice adds nothing to the entropy: 0 log 0 = 0.
        entropy = -(log_chance.exp() * log_chance.clamp(min=-1e9)).sum(1)
        rounds.append((log_chance.gather(1, choice[:, None])[:, 0], value, outcome, entropy))
    return Played(*(torch.stack(parts) for parts in zip(*rounds, strict=True)))


def advantages(outcome: Tensor, value: Tensor, trace: float) -> Tensor:
    """Generalized advantages of choices.

    Args:
        outcome: `[n, B]`.
        value: `[n, B]`; after the last round there is nothing.
        trace: l.

    Example:
        >>> outcome, value = torch.tensor([[1.0], [2.0]]), torch.tensor([[0.5], [1.0]])
        >>> advantages(outcome, value, 1.0)[:, 0], advantages(outcome, value, 0.0)[:, 0]
        (tensor([2.5000, 1.0000]), tensor([1.5000, 1.0000]))
    """
    found, following = torch.zeros_like(value), torch.zeros_like(value[0])
    after = torch.zeros_like(value[0])
    for t in reversed(range(len(outcome))):
        # delta_t = u_t + v_{t+1} - v_t,    A_t = delta_t + l A_{t+1}
        following = outcome[t] + after - value[t] + trace * following
        found[t], after = following, value[t]
    return found


def train(stream: Stream, settings: Settings, seed: int, watch: Watch | None = None) -> Network:
    """Train a policy on a stream, from the outcomes of its choices alone.

    Args:
        stream: Where it learns.
        settings: How.
        seed: Of the first weights, of the streams and of the choices.
        watch: Is handed {update, outcome (mean a round), entropy, value_error} of every update.
    """
    random = np.random.default_rng(seed)
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        network = Network(stream.choices, stream.features, settings.width)
    optimizer = torch.optim.Adam(network.parameters(), lr=settings.rate)
    for update in range(settings.updates):
        left = 1 - update / settings.updates
        for group in optimizer.param_groups:
            group["lr"] = settings.rate * left
        played = play(network, stream, settings.streams, random, greedy=False)
        gain = advantages(played.outcome, played.value.detach(), settings.trace)
        target = gain + played.value.detach()
        error = (played.value - target).square().mean()
        # mean [A_t / sd(A) d log pi_t(a_t) - 1/2 d (v_t - R_t)^2 + beta d H(pi_t)]
        aim = (played.log_chance * gain / (gain.std() + 1e-8)).mean() - 0.5 * error
        aim = aim + settings.entropy * left * played.entropy.mean()
        optimizer.zero_grad()
        (-aim).backward()
        nn.utils.clip_grad_norm_(network.parameters(), settings.clip)
        optimizer.step()
        if watch is not None:
            watch(
                {
                    "update": update + 1,
                    "outcome": played.outcome.mean().item(),
                    "entropy": played.entropy.mean().item(),
                    "value_error": error.item(),
                }
            )
    return network


class Recurrent(Policy):
    """Chooses learners with a memory of the tasks before, and goes on learning by it alone.

    Args:
        rounds: Tasks in a training stream n.
        settings: How it is trained; None: in 500 updates of 100 streams.
        watch: See `train`.
    """

    online = True

    def __init__(
        self, rounds: int = 30, settings: Settings | None = None, watch: Watch | None = None
    ) -> None:
        self._rounds, self._watch = rounds, watch
        self._settings = settings or Settings(updates=500, streams=100)

    def trained(self) -> dict[str, np.ndarray]:
        return {name: value.numpy() for name, value in self.network.state_dict().items()}

    def restore(self, problem: Problem, seed: int, trained: dict[str, np.ndarray]) -> None:
        self._scale, self._unit = Scale.of(problem.features), Unit.of(problem)
        sizes = len(problem.learners), len(problem.feature_names), self._settings.width
        self.network = Network(*sizes).requires_grad_(False)
        self.network.load_state_dict({n: torch.from_numpy(v) for n, v in trained.items()})
        self._memory, self._last = self.network.start(1)

    def fit(self, problem: Problem, seed: int) -> None:
        self._scale, self._unit = Scale.of(problem.features), Unit.of(problem)
        scaled = self._unit.problem(problem, self._scale(problem.features))
        stream = Rounds(scaled, self._rounds)
        self.network = train(stream, self._settings, seed, self._watch).requires_grad_(False)
        self._memory, self._last = self.network.start(1)

    def choose(self, features: np.ndarray, able: np.ndarray) -> int:
        log_chance, _ = self._step(features, able)
        return int(log_chance.argmax())

    def learn(self, features: np.ndarray, choice: int, utility: float) -> None:
        able = np.ones(self.network.choices, bool)  # the memory does not depend on it
        _, self._memory = self._step(features, able)
        outcome = torch.tensor([self._unit(utility)], dtype=torch.float32)
        self._last = self.network.told(torch.tensor([choice]), outcome)

    def _step(self, features: np.ndarray, able: np.ndarray) -> tuple[Tensor, Tensor]:
        shown = torch.from_numpy(self._scale(features[None]).astype(np.float32))
        able_A = torch.from_numpy(np.asarray(able, bool)[None])
        log_chance, _, memory = self.network(shown, able_A, self._last, self._memory)
        return log_chance, memory
