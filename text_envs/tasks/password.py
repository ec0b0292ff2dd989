"""Password: find the one string that pays."""

from __future__ import annotations

import numpy as np

from ..streams import RowRandom, Stream, seed_to_word
from ..tokenizer import CharacterTokenizer
from .base import Samples, Score, Task, Utterances, at_least, count


class Password(Task):
    """Say a fixed secret: deep exploration, one string in V**length pays.

    Shown: the alphabet's first symbol, always. Said: exactly `length` symbols; there is no end action.
    Earns: 1 if the whole utterance is the secret, else 0. The score of a partial utterance is the fraction of
    the secret said so far if all of it is right, else 0: so `dense=True` pays 1 / length for each right symbol
    and takes everything back at the first wrong one, and the return is the same. The secret belongs to
    the environment, not to the episode: `secret_seed` draws it, `reset(seed=...)` does not. Closed forms:
    V**-length for random symbols, 1 at best.

    Args:
        vocab_size: V, number of symbols, 2 to 4096.
        length: symbols of the secret.
        secret_seed: draws the secret, uniform over all strings.

    Source: the combination lock and Deep Sea, Osband et al. 2020, "Behaviour suite for reinforcement
    learning", arXiv:1908.03568.
    """

    def __init__(self, *, vocab_size: int = 4, length: int = 6, secret_seed: int = 0) -> None:
        at_least(2, vocab_size, "vocab_size")
        self.length = at_least(1, length, "length")
        super().__init__(CharacterTokenizer.of_size(vocab_size), max_prompt_tokens=1, max_new_tokens=length)
        random = RowRandom(seed_to_word(secret_seed), 0, Stream.SECRET)
        self.secret = random.integers(vocab_size, length)[0]  # (length,)

    def sample(self, random: RowRandom) -> Samples:
        """Return the same prompt for every row."""
        return Samples(np.zeros((len(random), 1), np.int64))

    def score(self, said: Utterances) -> Score:
        """Return the fraction of the secret said if it is a prefix of the secret, else 0."""
        right = count(said.tokens[:, 1:] == self.secret)
        return Score(np.where(right == said.length - said.start, right / self.length, 0.0))

    def optimal_return(self) -> float:
        """Return 1."""
        return 1.0

    def random_return(self) -> float:
        """Return V**-length, the chance to say the secret."""
        return float(self.vocab_size) ** -self.length
