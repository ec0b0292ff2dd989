"""Rewards: functions of prompts and completions, one short file per family."""

from .base import (
    Reward,
    RewardError,
    RewardFunction,
    WeightedSum,
    conversational,
    load_reward,
    per_sample,
)
from .lexical import Keywords, Length, Repetition
from .sentiment import VaderSentiment

__all__ = [
    "Keywords",
    "Length",
    "Repetition",
    "Reward",
    "RewardError",
    "RewardFunction",
    "VaderSentiment",
    "WeightedSum",
    "conversational",
    "load_reward",
    "per_sample",
]
