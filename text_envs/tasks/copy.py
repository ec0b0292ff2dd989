"""Copy: say what you were shown."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..exact import Automaton, spelling
from ..streams import RowRandom
from ..tokenizer import CharacterTokenizer
from .base import Samples, Score, Task, Utterances, at_least, count


class Copy(Task):
    """Repeat a random string.

    Shown: `length` symbols, uniform and independent. Said: exactly `length` symbols; there is no end action.
    Earns: the fraction of the `length` positions that are right; a partial copy's missing positions are
    wrong. A uniformly random copy earns 1 / vocab_size, a perfect one 1.

    Args:
        vocab_size: V, number of symbols, 2 to 4096.
        length: symbols shown and symbols said.

    Source: the copy task of Graves, Wayne & Danihelka 2014, "Neural Turing Machines", arXiv:1410.5401.
    """

    family = "diagnostic"

    def __init__(self, *, vocab_size: int = 16, length: int = 8) -> None:
        at_least(2, vocab_size, "vocab_size")
        self.length = at_least(1, length, "length")
        super().__init__(CharacterTokenizer.of_size(vocab_size), max_prompt_tokens=length, max_new_tokens=length)

    def sample(self, random: RowRandom) -> Samples:
        """Return strings of `length` uniform symbols."""
        return Samples(random.integers(self.vocab_size, self.length))

    def score(self, said: Utterances) -> Score:
        """Return the fraction of positions where the copy is right."""
        shown, copied = said.tokens[:, : self.length], said.tokens[:, self.length :]
        return Score(count(copied == self.wanted(shown)) / self.length)

    def wanted(self, shown: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return (n, length) what to say after (n, length) symbols."""
        return shown

    def cases(self) -> tuple[Samples, Literal["symmetry"], None]:
        """Return one prompt: renaming the symbols turns any prompt's machine into any other's."""
        return Samples(np.zeros((1, self.length), np.int64)), "symmetry", None

    def automaton(self, samples: Samples) -> Automaton:
        """Return the machine that counts positions: a right symbol adds 1 / length."""
        return spelling(self.wanted(samples.tokens), self.vocab_size)
