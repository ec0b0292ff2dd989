"""Readability: go on at the reading level that was asked for."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import Any

from ..embedded import LEVELED, OPENINGS
from ..rewards.base import Reward, RewardFunction, WeightedSum, load_reward
from ..rewards.lexical import Repetition
from .text import LongPrompts, PromptSource, Split, TextTask, words_of

_SENTENCE_END = re.compile(r"[.!?\u2026\u3002]+")
_VOWELS = re.compile(r"[aeiouy]+")
_SILENT = re.compile(r"(?<=[^aeiouy])(?:e|es|ed)$")  # stone, stones, stayed; put back below where it is heard
_HEARD = re.compile(r"(?:[^aeiouyl]les?|[td]ed|[cgsxz]es|[cs]hes)$")  # table, wanted, pages, wishes


class Readability(TextTask):
    """Continue a text at a shown reading level, a school grade.

    Shown: a grade and the beginning of a text, each pair equally likely. Said: up to `max_new_tokens` tokens,
    the end token included. Earns: 1 where the Flesch-Kincaid grade of the completion alone is the shown one,
    falling linearly to 0 at `tolerance` grades off; times the fraction of `min_words` words that were said,
    because a grade of a few words means little; less a quarter of the fraction of repeated pairs of words:
    -0.25 to 1. A completion that the tokenizer cannot say (utterance level only) earns -1. Reference score:
    `text_envs.tasks.text.best_of`.

    Args:
        grades: the grades that are asked for; more, and further apart, are harder.
        tolerance: grades off at which nothing is earned; smaller is harder.
        min_words: words of a completion that may earn everything.
        max_new_tokens: T.
        prompts: None for the small set of this project; else see `TextTask`, as for all other arguments.
        instruction: what is shown, with {grade} and {text}.
        reward: a callable or "module:name", which gets the column `grade`; None: as above, each part in
            `info["reward_terms"]`.

    Source: controlled readability by reinforcement learning, Ribeiro, Bansal & Dreyer 2023, "Generating
    summaries with controllable readability levels", arXiv:2310.10623.
    """

    def __init__(
        self,
        *,
        grades: Sequence[float] = (2, 6, 10),
        tolerance: float = 4.0,
        min_words: int = 8,
        tokenizer: Any = None,
        prompts: PromptSource = None,
        column: str = "text",
        lazy: bool = False,
        split: Split = None,
        prompt_words: int | None = None,
        instruction: str = "grade {grade} : {text}",
        max_new_tokens: int = 24,
        max_prompt_tokens: int | None = None,
        long_prompts: LongPrompts = "refuse",
        chat_template: bool = False,
        reward: RewardFunction | str | None = None,
    ) -> None:
        if not grades:
            raise ValueError("grades names at least one grade to write for, such as (2, 6, 10), got none")
        level = ReadingLevel(tolerance=tolerance, min_words=min_words)
        default = WeightedSum({"level": (level, 1.0), "repeated": (Repetition(2), -0.25)})
        super().__init__(
            OPENINGS if prompts is None else prompts,
            tokenizer,
            default if reward is None else load_reward(reward),
            words=LEVELED,
            column=column,
            lazy=lazy,
            split=split,
            prompt_words=prompt_words,
            conditions=[{"grade": grade} for grade in grades],
            instruction=instruction,
            max_new_tokens=max_new_tokens,
            max_prompt_tokens=max_prompt_tokens,
            long_prompts=long_prompts,
            chat_template=chat_template,
        )


class ReadingLevel(Reward):
    """How near the completion's grade is to the column `grade`, 0 to 1; 0 for a completion without words.

    Args:
        tolerance: grades off at which the value is 0.
        min_words: below them the value is their fraction of itself.

    Raises:
        ValueError: if `tolerance` is not positive, or `min_words` less than 1.
    """

    def __init__(self, *, tolerance: float = 4.0, min_words: int = 8) -> None:
        if not tolerance > 0:
            raise ValueError(f"tolerance is a positive number of grades, got {tolerance}")
        if min_words < 1:
            raise ValueError(f"min_words is at least 1, got {min_words}")
        self.tolerance, self.min_words = tolerance, min_words

    def __call__(self, prompts: list[str], completions: list[str], **columns: Any) -> list[float]:
        """Return the value of each completion."""
        return [self._value(text, grade) for text, grade in zip(completions, columns["grade"], strict=True)]

    def _value(self, text: str, wanted: float) -> float:
        words = len(words_of(text))
        if not words:
            return 0.0
        near = max(0.0, 1.0 - abs(flesch_kincaid_grade(text) - wanted) / self.tolerance)
        return near * min(1.0, words / self.min_words)


def flesch_kincaid_grade(text: str) -> float:
    """Return the school grade that can read a text: 0.39 words / sentences + 11.8 syllables / words - 15.59.

    A sentence ends with a full stop, an exclamation or question mark, or the text.

    Raises:
        ValueError: if the text has no word.

    Source: Kincaid, Fishburne, Rogers & Chissom 1975, "Derivation of new readability formulas for Navy
    enlisted personnel", Research Branch Report 8-75.
    """
    words = words_of(text)
    if not words:
        raise ValueError(f"a text without words has no reading level, got {text!r:.80}")
    sentences = sum(1 for part in _SENTENCE_END.split(text) if words_of(part))
    return 0.39 * len(words) / max(1, sentences) + 11.8 * sum(map(syllables, words)) / len(words) - 15.59


def syllables(word: str) -> int:
    """Return the syllables of an English word, at least 1, by its spelling.

    They are its groups of vowels, without a final e, es or ed that is not heard. About nine words in ten come
    out right; those with two vowels that are spoken apart ("idea") do not.
    """
    letters = unicodedata.normalize("NFD", word.casefold())  # accents fall off their vowels
    groups = len(_VOWELS.findall(letters))
    if _SILENT.search(letters) and not _HEARD.search(letters):
        groups -= 1
    return max(1, groups)
