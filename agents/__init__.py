"""Transformer agents for token environments, in the shape of Stable-Baselines3."""

from .best_of_n import BestOfN
from .callbacks import Checkpoint, StopAtKL, StopAtScore, TextMetrics
from .candidates import CandidatePolicy, CandidateQPolicy
from .cloning import BehaviourCloning
from .dqn import DQN
from .grpo import GRPO
from .kl import KLCoefficient
from .policies import TransformerPolicy, TransformerQPolicy
from .ppo import PPO
from .reference import ReferencePolicy
from .runs import resume
from .samples import SampleTexts
from .vec_env import VectorEnvAdapter

__all__ = [
    "DQN",
    "GRPO",
    "PPO",
    "BehaviourCloning",
    "BestOfN",
    "CandidatePolicy",
    "CandidateQPolicy",
    "Checkpoint",
    "KLCoefficient",
    "ReferencePolicy",
    "SampleTexts",
    "StopAtKL",
    "StopAtScore",
    "TextMetrics",
    "TransformerPolicy",
    "TransformerQPolicy",
    "VectorEnvAdapter",
    "resume",
]
