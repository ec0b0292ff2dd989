"""The tasks of the suite `real`: what the language model is shown, and what it is paid for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from text_envs.datasets import Prompts
from text_envs.rewards import Similarity, WeightedSum
from text_envs.sources import movie_reviews, presidential_paragraphs
from text_envs.tasks.summarize import TooLong
from text_envs.tasks.text import words_of

MAX_NEW_TOKENS = 24  # of every task, so that one rollout of as many steps is one completion a row


@dataclass(frozen=True)
class RealTask:
    """One task of the suite.

    Attributes:
        name: in tables; the rows know it by this.
        env_id: a registered Gymnasium id.
        env_kwargs: its keywords; `prompts` may be the "module:function" that makes them.
        reward: what a figure's axis says.
        earns: what the report says of the reward.
        steps: tokens that PPO generates.
    """

    name: str
    env_id: str
    env_kwargs: Mapping[str, Any]
    reward: str
    earns: str
    steps: int


TASKS = (
    RealTask(
        name="Sentiment, SmolLM2",
        env_id="text_envs/Sentiment-v0",
        env_kwargs={"prompts": "movie_reviews", "prompt_words": 6, "max_new_tokens": MAX_NEW_TOKENS},
        reward="VADER compound",
        earns="Shown: up to six words of a movie review, to be continued. Reward: VADER's compound score of what "
        "follows.",
        steps=46_080,
    ),
    RealTask(
        name="Keywords, SmolLM2",
        env_id="text_envs/Keywords-v0",
        env_kwargs={
            "prompts": "benchmarks.real_tasks:review_keywords",
            "instruction": "Write one short sentence with these words: {text}",
            "chat_template": True,
            "max_new_tokens": MAX_NEW_TOKENS,
        },
        reward="words used, less lists and repetition",
        earns=(
            "Shown: three words of a movie review. Reward: the fraction of them that the sentence uses, less a "
            "quarter each of the fractions of its word pairs that are a list of them or said twice."
        ),
        steps=30_720,
    ),
    RealTask(
        name="Summarize, SmolLM2",
        env_id="text_envs/Summarize-v0",
        env_kwargs={
            "prompts": "benchmarks.real_tasks:short_paragraphs",
            "instruction": "Summarize in one short sentence: {text}",
            "chat_template": True,
            "reward": "benchmarks.real_tasks:close_and_brief",
            "max_new_tokens": MAX_NEW_TOKENS,
        },
        reward="closeness, less length",
        earns=(
            "Shown: a paragraph of 30 to 45 words of a presidential address. Reward: the cosine of the word "
            "embeddings of paragraph and summary, less half the fraction of words beyond twelve."
        ),
        steps=23_040,
    ),
)


def review_keywords() -> Prompts:
    """Return the three longest words of each movie-review sentence that has three of four letters or more."""
    found = []
    for sentence in movie_reviews()[0]:
        words = [word for word in dict.fromkeys(words_of(sentence)) if word.isalpha() and len(word) > 3]
        if len(words) > 2:
            longest = sorted(words, key=len, reverse=True)[:3]
            found.append(" ".join(word for word in words if word in longest))
    return Prompts(tuple(found))


def short_paragraphs() -> Prompts:
    """Return the paragraphs of 30 to 45 words of the presidential addresses; each is its own `reference`."""
    texts = tuple(text for text in presidential_paragraphs()[0] if 30 <= len(text.split()) <= 45)
    return Prompts(texts, {"reference": texts})


def close_and_brief() -> WeightedSum:
    """Return what a summary is paid where nobody has written one to compare it with."""
    return WeightedSum({"close": (Similarity("reference"), 1.0), "too_long": (TooLong(12), -0.5)})
