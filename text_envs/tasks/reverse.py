"""Reverse: say backwards what you were shown."""

from __future__ import annotations

from .base import Score, Utterances, count
from .copy import Copy


class Reverse(Copy):
    """Repeat a random string backwards.

    Shown: `length` symbols, uniform and independent. Said: exactly `length` symbols; there is no end action.
    Earns: the fraction of positions that agree with the reversed prompt; missing positions are wrong. Closed
    forms: as Copy, 1 / vocab_size for random symbols and 1 at best.

    Source: the reversal task of Grefenstette et al. 2015, "Learning to transduce with unbounded memory",
    arXiv:1506.02516.
    """

    def score(self, said: Utterances) -> Score:
        """Return the fraction of positions where the reversed string is right."""
        wanted, spoken = said.tokens[:, self.length - 1 :: -1], said.tokens[:, self.length :]
        return Score(count(spoken == wanted) / self.length)
