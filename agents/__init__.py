"""Transformer agents for token environments, in the shape of Stable-Baselines3."""

from importlib.util import find_spec

if _lacking := [name for name in ("torch", "stable_baselines3", "transformers") if find_spec(name) is None]:
    raise ModuleNotFoundError(
        f"the agents need {', '.join(_lacking)}: pip install 'text-envs[agents]'", name=_lacking[0]
    )

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
