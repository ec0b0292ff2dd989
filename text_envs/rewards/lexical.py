"""Rewards that count words; nothing beyond Python is needed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .base import Reward


class Length(Reward):
    """The number of words of the completion."""

    def __call__(self, prompts: list[str], completions: list[str], **columns: list[Any]) -> list[float]:
        """Return the number of words of each completion."""
        return [float(len(completion.split())) for completion in completions]


class Keywords(Reward):
    """The fraction of some keywords that the completion uses, whatever their case and punctuation.

    Args:
        words: the keywords, at least one.
    """

    def __init__(self, words: Iterable[str]) -> None:
        self.words = frozenset(map(_bare, words))
        if not self.words:
            raise ValueError('Keywords needs at least one word, such as Keywords(["river"])')

    def __call__(self, prompts: list[str], completions: list[str], **columns: list[Any]) -> list[float]:
        """Return the fraction of the keywords found in each completion."""
        said = ({_bare(word) for word in completion.split()} for completion in completions)
        return [len(self.words & words) / len(self.words) for words in said]


class Repetition(Reward):
    """The fraction of the completion's n-grams of words that occurred before in it, 0 to 1.

    It is 1 - distinct-n (Li et al. 2016, arXiv:1510.03055) of the completion; give it a negative weight.

    Args:
        n: words of an n-gram.
    """

    def __init__(self, n: int = 2) -> None:
        if n < 1:
            raise ValueError(f"an n-gram has at least 1 word, got n={n}")
        self.n = n

    def __call__(self, prompts: list[str], completions: list[str], **columns: list[Any]) -> list[float]:
        """Return the repeated fraction of each completion, 0 for those shorter than n words."""
        return [self._repeated(completion.split()) for completion in completions]

    def _repeated(self, words: list[str]) -> float:
        grams = [tuple(words[i : i + self.n]) for i in range(len(words) - self.n + 1)]
        return 1.0 - len(set(grams)) / len(grams) if grams else 0.0


def _bare(word: str) -> str:
    return word.strip(".,;:!?\"'()[]").casefold()
