"""Wordle: find a word by guesses whose letters are marked."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from os import PathLike
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..datasets import load_prompts
from ..tokenizer import CharacterTokenizer
from ..words import FIVE_LETTERS
from .base import at_least
from .game import ASK, MAX_GUESSES, Game

_MARKS = "GY-"


class Wordle(Game):
    """Find a word; each guess, a word of the same list, is answered by a mark for each letter.

    Shown: "?". Said: a word of the list, letter by letter; letters that continue no word are masked. Replied: for
    each letter G if it is right (green), Y if it belongs elsewhere (yellow), else "-"; each letter of the secret
    accounts for one mark, green ones first, then yellow ones from the left; "?" to what is no word of the list.
    Earns: 1 - (k - 1) / turns for the secret at turn k, else 0. Exact: by dynamic programming over beliefs for
    lists of some hundred words; `reference_return()` has the score of a strong strategy for thousands.

    Args:
        words: None for about 170 common words of this project, the path of a text file with a word a line, or
            the words themselves. They are put in lower case and sorted; words of another length, words that are
            not of letters only, and repetitions are left out.
        length: letters of a word, 2 to 10.
        turns: guesses before the episode ends.

    Raises:
        ValueError: if less than two words remain, or more than 100,000.

    Source: the game of Josh Wardle; as a task for agents, LMRL-Gym, Abdulhai et al. 2023, arXiv:2311.18232.
    """

    def __init__(
        self, *, words: str | PathLike[str] | Iterable[str] | None = None, length: int = 5, turns: int = 6
    ) -> None:
        if at_least(2, length, "length") > 10:
            raise ValueError(f"length is at most 10, got {length}")
        if isinstance(words, str | PathLike) and not Path(words).is_file():
            raise FileNotFoundError(
                f"words={str(words)!r} is no file; pass a text file with a word a line, or the words themselves"
            )
        given = FIVE_LETTERS if words is None else load_prompts(words).texts
        lower = (word.strip().lower() for word in given)
        self.words = sorted({word for word in lower if word.isalpha() and len(word) == length})
        if not 2 <= len(self.words) <= MAX_GUESSES:
            raise ValueError(
                f"{len(self.words):,} of the {len(given):,} words have {length} letters, and Wordle needs 2 to "
                f"{MAX_GUESSES:,}; pass other words or another length"
            )
        self.length = length
        letters = "".join(sorted(set("".join(self.words))))
        tokenizer = CharacterTokenizer(letters + _MARKS + ASK)
        self._letters = np.array([tokenizer.encode(word) for word in self.words])  # (words, length)
        super().__init__(
            tokenizer,
            guesses=self._letters,
            secrets=len(self.words),
            replies=len(letters) + np.array(list(itertools.product(range(3), repeat=length))),
            turns=turns,
        )

    def answer(self, secret: NDArray[np.int64], guess: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the marks as a number of base 3, the first letter's mark first: 0 green, 1 yellow, 2 neither."""
        hidden, said = self._letters[secret], self._letters[guess]
        green = hidden == said
        rest = np.where(green, -1, hidden)  # letters of the secret that no green mark accounts for
        marks = np.where(green, 0, 2)
        for i in range(self.length):
            letter = said[:, i, None]
            taken = ((said[:, :i] == letter) & (marks[:, :i] == 1)).sum(axis=1)
            marks[:, i] -= (marks[:, i] == 2) & ((rest == letter).sum(axis=1) > taken)
        return marks @ 3 ** np.arange(self.length)[::-1]
