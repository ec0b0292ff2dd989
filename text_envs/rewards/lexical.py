"""Rewards that count words and letters; nothing beyond Python is needed."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Literal

from .base import Reward


class Length(Reward):
    """The length of the completion, or how well it keeps to limits.

    Without limits it is the length itself. With limits it is 1 from `minimum` to `maximum`, length / minimum
    below and maximum / length above. An empty completion has length 0.

    Args:
        minimum: the least length that earns 1.
        maximum: the greatest length that earns 1.
        target: the only length that earns 1; instead of both limits.
        unit: what is counted: "words" (what white space separates), "characters", or "tokens", those of
            `completion_ids`, an end token included.

    Raises:
        ValueError: if the limits are negative, crossed or stand beside a target, or the unit is unknown.
    """

    def __init__(
        self,
        *,
        minimum: int | None = None,
        maximum: int | None = None,
        target: int | None = None,
        unit: Literal["words", "characters", "tokens"] = "words",
    ) -> None:
        if unit not in ("words", "characters", "tokens"):
            raise ValueError(f'unit is "words", "characters" or "tokens", got {unit!r}')
        if target is not None:
            if minimum is not None or maximum is not None:
                raise ValueError(f"a target={target} is both limits; leave minimum and maximum out")
            minimum = maximum = target
        if (minimum or 0) < 0 or (maximum is not None and maximum < (minimum or 0)):
            raise ValueError(f"the limits are 0 <= minimum <= maximum, got {minimum} and {maximum}")
        self.minimum, self.maximum, self.unit = minimum, maximum, unit

    def __call__(self, prompts: list[str], completions: list[str], **columns: Any) -> list[float]:
        """Return the length of each completion, or how well it keeps to the limits.

        Raises:
            ValueError: if tokens are to be counted and there is no column `completion_ids`.
        """
        if self.unit == "words":
            return [self._value(len(completion.split())) for completion in completions]
        if self.unit == "characters":
            return [self._value(len(completion)) for completion in completions]
        if "completion_ids" not in columns:
            raise ValueError('Length(unit="tokens") needs the column completion_ids; hand it over, or count words')
        return [self._value(len(ids)) for ids in columns["completion_ids"]]

    def _value(self, length: int) -> float:
        if self.minimum is None and self.maximum is None:
            return float(length)
        if self.minimum is not None and length < self.minimum:
            return length / self.minimum
        if self.maximum is not None and length > self.maximum:
            return self.maximum / length
        return 1.0


class Keywords(Reward):
    """The fraction of some keywords that the completion uses, whatever their case and punctuation.

    A keyword of several words, such as "New York", is used where they follow each other. An empty completion
    earns 0.

    Args:
        words: the keywords, at least one.

    Raises:
        TypeError: if they are one text, or one of them is no text.
        ValueError: if there is none, or one has no word in it.
    """

    def __init__(self, words: Iterable[str]) -> None:
        if isinstance(words, str):
            raise TypeError(f"Keywords takes a list of texts, got the text {words!r}; pass [{words!r}]")
        self.words = frozenset(map(_keyword, words))
        if not self.words:
            raise ValueError('Keywords needs at least one word, such as Keywords(["river"])')
        self._sizes = sorted({len(word.split(" ")) for word in self.words})

    def __call__(self, prompts: list[str], completions: list[str], **columns: Any) -> list[float]:
        """Return the fraction of the keywords found in each completion."""
        return [len(self.words & self._phrases(completion)) / len(self.words) for completion in completions]

    def _phrases(self, completion: str) -> set[str]:
        """Return what is said in as many words as one of the keywords has."""
        said = list(map(_bare, completion.split()))
        return {" ".join(said[i : i + size]) for size in self._sizes for i in range(len(said) - size + 1)}


class Regex(Reward):
    """1 if the completion has a format, else 0.

    Args:
        pattern: a regular expression of Python; flags go inside, as in "(?is)<b>.*</b>".
        whole: the whole completion has the format, not just a part of it.

    Raises:
        ValueError: if the pattern is not a regular expression.
    """

    def __init__(self, pattern: str, *, whole: bool = True) -> None:
        try:
            compiled = re.compile(pattern)
        except re.error as error:
            raise ValueError(f"{pattern!r} is not a regular expression: {error}") from error
        self.pattern, self.whole = pattern, whole
        self._finds = compiled.fullmatch if whole else compiled.search

    def __call__(self, prompts: list[str], completions: list[str], **columns: Any) -> list[float]:
        """Return 1 for each completion that has the format, else 0."""
        return [float(self._finds(completion) is not None) for completion in completions]


class Repetition(Reward):
    """The fraction of the completion's n-grams of words that occurred before in it, 0 to 1.

    It is 1 - distinct-n (Li et al. 2016, arXiv:1510.03055) of the completion; give it a negative weight. A
    completion shorter than n words earns 0.

    Args:
        n: words of an n-gram.
    """

    def __init__(self, n: int = 2) -> None:
        if n < 1:
            raise ValueError(f"an n-gram has at least 1 word, got n={n}")
        self.n = n

    def __call__(self, prompts: list[str], completions: list[str], **columns: Any) -> list[float]:
        """Return the repeated fraction of each completion, 0 for those shorter than n words."""
        return [self._repeated(completion.split()) for completion in completions]

    def _repeated(self, words: list[str]) -> float:
        grams = [tuple(words[i : i + self.n]) for i in range(len(words) - self.n + 1)]
        return 1.0 - len(set(grams)) / len(grams) if grams else 0.0


class Lipogram(Reward):
    """The fraction of the completion that does without some letters, whatever their case, 0 to 1.

    A completion with nothing to count earns 0: silence is no lipogram.

    Args:
        forbidden: the letters, at least one.
        unit: what is counted: "words" without a forbidden letter, or "letters" that are not forbidden.
    """

    def __init__(self, forbidden: str = "e", *, unit: Literal["words", "letters"] = "words") -> None:
        if not forbidden or not forbidden.isalpha():
            raise ValueError(f'forbidden holds letters only and at least one, such as "e", got {forbidden!r}')
        if unit not in ("words", "letters"):
            raise ValueError(f'unit is "words" or "letters", got {unit!r}')
        self.forbidden, self.unit = frozenset(forbidden.casefold()), unit

    def __call__(self, prompts: list[str], completions: list[str], **columns: Any) -> list[float]:
        """Return the fraction of each completion without the letters."""
        return [self._share(completion.casefold()) for completion in completions]

    def _share(self, text: str) -> float:
        parts = text.split() if self.unit == "words" else [letter for letter in text if letter.isalpha()]
        return sum(self.forbidden.isdisjoint(part) for part in parts) / len(parts) if parts else 0.0


def _keyword(text: str) -> str:
    """Return a keyword as completions are searched for it: bare words, one space between them."""
    if not isinstance(text, str):
        raise TypeError(f"a keyword is a text, got {text!r} ({type(text).__name__})")
    words = list(map(_bare, text.split()))
    if not any(words):
        raise ValueError(f"the keyword {text!r} has no word in it, and would match none; leave it out")
    return " ".join(words)


def _bare(word: str) -> str:
    return word.strip(".,;:!?\"'()[]").casefold()
