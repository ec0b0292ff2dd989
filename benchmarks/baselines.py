"""The agents that suites name: uniform random, stock Stable-Baselines3 given a fair chance, and ours."""

from __future__ import annotations

from typing import Any

import numpy as np
import stable_baselines3
import torch
from gymnasium import spaces
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor

import agents


class RandomAgent:
    """Uniform over the legal actions; it learns nothing."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng

    def predict(
        self, observation: NDArray[np.int64], action_masks: NDArray[np.bool_], deterministic: bool = False
    ) -> tuple[NDArray[np.int64], None]:
        """Return actions (B,) for observations (B, L) and masks (B, V)."""
        draws = self._rng.random(action_masks.shape)
        return np.where(action_masks, draws, -1.0).argmax(axis=1), None


class OneHotExtractor(BaseFeaturesExtractor):
    """Token ids (B, L) as one-hot vectors (B, L * (V + 1)), the padding too: a fair input for an MLP."""

    def __init__(self, observation_space: spaces.Box) -> None:
        self._symbols = int(observation_space.high.max()) + 1
        super().__init__(observation_space, int(np.prod(observation_space.shape)) * self._symbols)

    def forward(self, observations: Tensor) -> Tensor:
        """Return the flattened one-hot vectors."""
        one_hot = torch.nn.functional.one_hot(observations.long(), self._symbols)
        return one_hot.flatten(start_dim=1).float()


def random_agent(env: VectorEnv, seed: int) -> RandomAgent:
    """Return the uniform random agent."""
    return RandomAgent(np.random.default_rng(seed))


def stock_ppo(env: VectorEnv, seed: int, one_hot: bool, **options: Any) -> stable_baselines3.PPO:
    """Return Stable-Baselines3's PPO with its MlpPolicy, at gamma = 1.

    Its other defaults stay, with `n_steps` divided by the number of rows, so that an update still sees SB3's
    2,048 transitions.
    """
    policy_kwargs = {"features_extractor_class": OneHotExtractor} if one_hot else {}
    return stable_baselines3.PPO(
        "MlpPolicy",
        agents.VectorEnvAdapter(env),
        **{"gamma": 1.0, "n_steps": max(2, 2048 // env.num_envs), **options},
        policy_kwargs=policy_kwargs,
        seed=seed,
        device="cpu",
    )


def our_ppo(env: VectorEnv, seed: int, **options: Any) -> agents.PPO:
    """Return our PPO."""
    return agents.PPO("TransformerPolicy", env, seed=seed, **options)


def our_dqn(env: VectorEnv, seed: int, **options: Any) -> agents.DQN:
    """Return our DQN."""
    return agents.DQN("TransformerQPolicy", env, seed=seed, **options)
