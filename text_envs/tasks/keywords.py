"""Keywords: say a sentence that uses the words you were shown."""

from __future__ import annotations

from typing import Any

from ..embedded import KEYWORDS, LINKING
from ..rewards.base import Reward, RewardFunction, WeightedSum, load_reward
from ..rewards.lexical import Repetition
from .text import LongPrompts, PromptSource, Split, TextTask, shown_words, words_of


class Keywords(TextTask):
    """Use a few shown words in a text; a text that only lists them earns less.

    Shown: `prompt_words` words. Said: up to `max_new_tokens` tokens, the end token included. Earns: the
    fraction of the shown words that are said, less a quarter each of the fraction of neighbouring words that
    are both shown words (a list) and of repeated pairs of words: -0.5 to 1. No counting of words tells how
    fluent a text is; with a language model, add one's log-likelihood by `WeightedSum`. A completion that
    the tokenizer cannot say (utterance level only) earns -1. Reference score: `text_envs.tasks.text.best_of`.

    Args:
        prompt_words: shown words of a prompt; None: all of your own prompts, 3 of the 5 of the small set.
        max_new_tokens: T; fewer make it harder.
        prompts: None for the small set of this project; else see `TextTask`, as for all other arguments.
        reward: a callable or "module:name"; None: as above, each part in `info["reward_terms"]`.

    Source: the task of Lin et al. 2020, "CommonGen: a constrained text generation challenge for generative
    commonsense reasoning", arXiv:1911.03705.
    """

    def __init__(
        self,
        *,
        prompt_words: int | None = None,
        tokenizer: Any = None,
        prompts: PromptSource = None,
        column: str = "text",
        lazy: bool = False,
        split: Split = None,
        instruction: str = "{text}",
        max_new_tokens: int = 16,
        max_prompt_tokens: int | None = None,
        long_prompts: LongPrompts = "refuse",
        chat_template: bool = False,
        reward: RewardFunction | str | None = None,
    ) -> None:
        super().__init__(
            KEYWORDS if prompts is None else prompts,
            tokenizer,
            default_reward() if reward is None else load_reward(reward),
            words=LINKING,
            column=column,
            lazy=lazy,
            split=split,
            prompt_words=shown_words(prompts, prompt_words, 3),
            instruction=instruction,
            max_new_tokens=max_new_tokens,
            max_prompt_tokens=max_prompt_tokens,
            long_prompts=long_prompts,
            chat_template=chat_template,
        )


def default_reward() -> WeightedSum:
    """Return what the task pays by default."""
    return WeightedSum({"used": (Used(), 1.0), "listed": (Listed(), -0.25), "repeated": (Repetition(2), -0.25)})


class Used(Reward):
    """The fraction of the prompt's words that the completion uses, 0 to 1; 1 for a prompt without words."""

    def __call__(self, prompts: list[str], completions: list[str], **columns: Any) -> list[float]:
        """Return the fraction for each completion."""
        return [covered(set(words_of(p)), words_of(c)) for p, c in zip(prompts, completions, strict=True)]


class Listed(Reward):
    """The fraction of the completion's neighbouring words that are both the prompt's; 0 below two words."""

    def __call__(self, prompts: list[str], completions: list[str], **columns: Any) -> list[float]:
        """Return the fraction for each completion."""
        values = []
        for prompt, completion in zip(prompts, completions, strict=True):
            wanted = set(words_of(prompt))
            found = [word in wanted for word in words_of(completion)]
            values.append(sum(map(min, found, found[1:])) / max(1, len(found) - 1))
        return values


def covered(wanted: set[str], said: list[str]) -> float:
    """Return the fraction of the wanted words that were said; 1 where none is wanted."""
    return len(wanted.intersection(said)) / len(wanted) if wanted else 1.0
