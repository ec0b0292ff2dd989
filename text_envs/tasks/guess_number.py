"""GuessNumber: find a number by guesses that are answered "lower" or "higher"."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..tokenizer import CharacterTokenizer
from .base import at_least
from .game import ASK, MAX_GUESSES, Game

_ANSWERS = "=<>"


class GuessNumber(Game):
    """Find a number; each guess is answered by whether the number is lower or higher.

    Shown: "?". Said: a number below `numbers` in digits, leading zeros included. Replied: "<" if the secret is
    lower than the guess, ">" if it is higher, "=" if it is the guess; "?" to what is no such number. Earns:
    1 - (k - 1) / turns for the secret at turn k, else 0. Exact: the optimum is that of binary search.

    Args:
        numbers: how many there are, 2 to 100,000, up to about 4,000 of them solved exactly; the secret is
            one of 0..numbers - 1.
        turns: guesses before the episode ends.

    Source: the bisection game; as an agent's task, "Guess the number" of TextArena, Guertler et al. 2025,
    arXiv:2504.11442.
    """

    def __init__(self, *, numbers: int = 10, turns: int = 4) -> None:
        if at_least(2, numbers, "numbers") > MAX_GUESSES:
            raise ValueError(f"numbers is at most {MAX_GUESSES:,}, got {numbers:,}")
        self.numbers = numbers
        digits = "0123456789"[:numbers]
        tokenizer = CharacterTokenizer(digits + _ANSWERS + ASK)
        width = len(str(numbers - 1))
        super().__init__(
            tokenizer,
            guesses=np.arange(numbers)[:, None] // 10 ** np.arange(width)[::-1] % 10,
            secrets=numbers,
            replies=[tokenizer.encode(answer) for answer in _ANSWERS],
            turns=turns,
        )

    def answer(self, secret: NDArray[np.int64], guess: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return 0 where the guess is right, 1 where the secret is lower, 2 where it is higher."""
        return np.where(secret == guess, 0, np.where(secret < guess, 1, 2))
