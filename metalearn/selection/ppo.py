"""Proximal policy optimization, run by stable-baselines3, with a memory by sb3-contrib.

Schulman et al. 2017, "Proximal Policy Optimization Algorithms", equation 7; the recurrent policy
(an LSTM that starts afresh in each episode) is that of sb3-contrib's RecurrentPPO.

    maximize E min(c_t A_t, clip(c_t, 1 - e, 1 + e) A_t),    c_t = pi(a_t | s_t) / pi_old(a_t | s_t)

These libraries do not know which actions are possible: an environment must bear the others.
Copies of the environment take their steps together, so that the networks see them in one batch.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np

from metalearn.selection.control import Actor, Mask, Trainer, Watch, actions_of


class Trained(Actor):
    """Acts by a trained model of stable-baselines3."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.start()

    def start(self) -> None:
        self._memory, self._first = None, np.ones(1, bool)

    def act(self, observation: Any, mask: Mask) -> int:
        action, self._memory = self.model.predict(
            observation, state=self._memory, episode_start=self._first, deterministic=True
        )
        self._first = np.zeros(1, bool)
        return int(action)

    def values(self) -> dict[str, np.ndarray]:
        state = self.model.policy.state_dict()
        return {name: value.cpu().numpy() for name, value in state.items()}


@dataclass(frozen=True)
class PPO(Trainer):
    """PPO with networks of two hidden layers of 64, or an LSTM before them.

    Attributes:
        steps: Steps in the environment.
        recurrent: Whether there is a memory.
        rate: Of Adam.
        rollout: Steps an update, of all copies together.
        copies: Of the environment.
        batch: Steps a gradient step.
        discount: Of rewards.
        entropy: Weight of the policy's entropy.

    Raises:
        ImportError: If the libraries are not installed.
        ValueError: If the steps of a rollout cannot be shared equally.
    """

    steps: int = 20_000
    recurrent: bool = False
    rate: float = 1e-3
    rollout: int = 256
    copies: int = 8
    batch: int = 64
    discount: float = 1.0
    entropy: float = 0.01

    def train(self, environment: Any, seed: int, watch: Watch | None = None) -> Trained:
        model = self._model(environment, seed)
        from stable_baselines3.common.callbacks import ConvertCallback

        def tell(local: dict[str, Any], _: dict[str, Any]) -> bool:
            for info in local["infos"]:
                if watch is not None and "episode" in info:
                    step = float(model.num_timesteps)
                    watch({"update": step, "outcome": float(info["episode"]["r"])})
            return True

        model.learn(self.steps, callback=ConvertCallback(tell))
        return Trained(model)

    def restore(self, environment: Any, values: dict[str, np.ndarray]) -> Trained:
        import torch

        model = self._model(environment, seed=0)
        model.policy.load_state_dict({name: torch.tensor(v) for name, v in values.items()})
        return Trained(model)

    def _model(self, environment: Any, seed: int) -> Any:
        try:
            from sb3_contrib import RecurrentPPO
            from stable_baselines3 import PPO as Plain
            from stable_baselines3.common.monitor import Monitor
            from stable_baselines3.common.vec_env import DummyVecEnv
        except ImportError as error:
            raise ImportError(
                "PPO needs stable-baselines3 and sb3-contrib: pip install 'metalearn[selection]'"
            ) from error
        actions_of(environment)
        if self.rollout % self.copies:
            raise ValueError(f"rollout {self.rollout} is no multiple of copies {self.copies}")
        made = RecurrentPPO if self.recurrent else Plain
        return made(
            "MlpLstmPolicy" if self.recurrent else "MlpPolicy",
            DummyVecEnv([lambda: Monitor(deepcopy(environment))] * self.copies),
            learning_rate=self.rate,
            n_steps=self.rollout // self.copies,
            batch_size=self.batch,
            gamma=self.discount,
            ent_coef=self.entropy,
            seed=seed,
            device="cpu",
        )
