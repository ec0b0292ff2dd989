"""Transformer agents for token environments, in the shape of Stable-Baselines3."""

from .dqn import DQN
from .grpo import GRPO
from .kl import KLCoefficient, ReferencePolicy
from .policies import TransformerPolicy, TransformerQPolicy
from .ppo import PPO
from .vec_env import VectorEnvAdapter

__all__ = [
    "DQN",
    "GRPO",
    "PPO",
    "KLCoefficient",
    "ReferencePolicy",
    "TransformerPolicy",
    "TransformerQPolicy",
    "VectorEnvAdapter",
]
