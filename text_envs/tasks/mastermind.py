"""Mastermind: find a row of coloured pegs by guesses that are answered by two counts."""

from __future__ import annotations

import string

import numpy as np
from numpy.typing import NDArray

from ..tokenizer import CharacterTokenizer
from .base import at_least
from .game import ASK, MAX_GUESSES, Game


class Mastermind(Game):
    """Find a row of coloured pegs; each guess is answered by how much of it is right.

    Shown: "?". Said: `pegs` colours, each one of the first `colours` letters. Replied: two digits, the pegs of
    the right colour in the right place (black), then those of a right colour in a wrong place (white), each
    peg of guess and secret counted once; "?" to what is no row. Earns: 1 - (k - 1) / turns for the secret at turn
    k, else 0. Exact: dynamic programming over beliefs; 3 pegs of 4 colours and sizes near it in seconds.

    Args:
        pegs: length of a row, 1 to 9.
        colours: number of colours, 2 to 26; colours ** pegs is at most 100,000.
        turns: guesses before the episode ends.

    Source: Knuth 1976, "The computer as Master Mind", Journal of Recreational Mathematics 9.
    """

    def __init__(self, *, pegs: int = 3, colours: int = 4, turns: int = 6) -> None:
        if at_least(1, pegs, "pegs") > 9:
            raise ValueError(f"pegs is at most 9, a count of one digit, got {pegs}")
        if at_least(2, colours, "colours") > len(string.ascii_lowercase):
            raise ValueError(f"colours is at most 26, one letter each, got {colours}")
        if colours**pegs > MAX_GUESSES:
            raise ValueError(
                f"{colours} colours on {pegs} pegs make {colours**pegs:,} rows, more than {MAX_GUESSES:,}; "
                "lower one of them"
            )
        self.pegs, self.colours = pegs, colours
        rows = np.indices((colours,) * pegs).reshape(pegs, -1).T  # (colours**pegs, pegs), lexicographic
        self._rows = rows
        self._has = (rows[:, :, None] == np.arange(colours)).sum(axis=1)  # (rows, colours) pegs of each colour
        digits = "0123456789"[: pegs + 1]
        tokenizer = CharacterTokenizer(string.ascii_lowercase[:colours] + digits + ASK)
        missing, white = np.divmod(np.arange((pegs + 1) ** 2), pegs + 1)
        super().__init__(
            tokenizer,
            guesses=rows,
            secrets=len(rows),
            replies=colours + np.stack([pegs - missing, white], axis=1),
            turns=turns,
        )

    def answer(self, secret: NDArray[np.int64], guess: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return (pegs - black) * (pegs + 1) + white."""
        black = (self._rows[secret] == self._rows[guess]).sum(axis=1)
        common = np.minimum(self._has[secret], self._has[guess]).sum(axis=1)
        return (self.pegs - black) * (self.pegs + 1) + common - black
