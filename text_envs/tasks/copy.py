"""Copy: say what you were shown."""

from __future__ import annotations

from ..streams import RowRandom
from ..tokenizer import CharacterTokenizer
from .base import Samples, Score, Task, Utterances, at_least, count


class Copy(Task):
    """Repeat a random string.

    Shown: `length` symbols, uniform and independent. Said: exactly `length` symbols; there is no end action.
    Earns: the fraction of the `length` positions that are right; a partial copy's missing positions are
    wrong. Closed forms: a uniformly random copy earns 1 / vocab_size, a perfect one 1.

    Args:
        vocab_size: V, number of symbols, 2 to 4096.
        length: symbols shown and symbols said.

    Source: the copy task of Graves, Wayne & Danihelka 2014, "Neural Turing Machines", arXiv:1410.5401.
    """

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
        return Score(count(copied == shown) / self.length)

    def optimal_return(self) -> float:
        """Return 1."""
        return 1.0

    def random_return(self) -> float:
        """Return 1 / V, the chance of each position to be right."""
        return 1.0 / self.vocab_size
