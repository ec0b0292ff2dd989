"""Rewards: functions of prompts and completions, one short file per family."""

from .adapters import conversational, per_sample
from .base import Reward, WeightedSum, load_reward
from .cache import Cached
from .calling import RewardError, RewardFunction
from .classifier import Classifier
from .fluency import Fluency
from .grammar import GrammarErrors
from .judge import Judge, PairwiseJudge, PositionBias, Preference, comparisons, position_bias
from .lexical import Keywords, Length, Lipogram, Regex, Repetition
from .overlap import BLEU, ROUGE, ChrF
from .sentiment import VaderSentiment
from .similarity import Similarity

__all__ = [
    "BLEU",
    "Cached",
    "ChrF",
    "Classifier",
    "Fluency",
    "GrammarErrors",
    "Judge",
    "Keywords",
    "Length",
    "Lipogram",
    "PairwiseJudge",
    "PositionBias",
    "Preference",
    "ROUGE",
    "Regex",
    "Repetition",
    "Reward",
    "RewardError",
    "RewardFunction",
    "Similarity",
    "VaderSentiment",
    "WeightedSum",
    "comparisons",
    "conversational",
    "load_reward",
    "per_sample",
    "position_bias",
]
