"""Password: find the one string that pays."""

from __future__ import annotations

from typing import Literal

import numpy as np

from ..exact import CLOSED, Automaton
from ..streams import RowRandom, Stream, seed_to_word
from ..tokenizer import CharacterTokenizer
from .base import Samples, Score, Task, Utterances, at_least, count


class Password(Task):
    """Say a fixed secret: deep exploration, one string in V**length pays.

    Shown: the alphabet's first symbol, always. Said: exactly `length` symbols; there is no end action.
    Earns: 1 if the whole utterance is the secret, else 0. The score of an utterance that goes on is the fraction
    of the secret said so far if all of it is right, else 0: so `dense=True` pays 1 / length for each right symbol
    and takes everything back at the first wrong one, and the return is the same. The secret belongs to
    the environment, not to the episode: `secret_seed` draws it, `reset(seed=...)` does not. Random symbols
    earn V**-length, and the best is 1.

    Args:
        vocab_size: V, number of symbols, 2 to 4096.
        length: symbols of the secret.
        secret_seed: draws the secret, uniform over all strings.

    Source: the combination lock and Deep Sea, Osband et al. 2020, "Behaviour suite for reinforcement
    learning", arXiv:1908.03568.
    """

    family = "diagnostic"
    one_machine = True

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
        """Return the fraction of the secret said, 0 where something is wrong or no more is said."""
        right = count(said.tokens[:, 1:] == self.secret)
        may_be_right = (right == said.length - said.start) & (~np.asarray(said.closed) | (right == self.length))
        return Score(np.where(may_be_right, right / self.length, 0.0))

    def cases(self) -> tuple[Samples, Literal["enumerated"], None]:
        """Return the one prompt."""
        return Samples(np.zeros((1, 1), np.int64)), "enumerated", None

    def automaton(self, samples: Samples) -> Automaton:
        """Return the machine whose state is the right symbols so far; its last state is a wrong one's."""
        wrong = self.length
        right_so_far = np.arange(wrong + 1)[:, None]
        following = np.full((wrong + 1, self.vocab_size), wrong)
        gain = np.repeat(-right_so_far / self.length, self.vocab_size, axis=1)
        said = np.arange(wrong), self.secret
        following[said] = [*range(1, wrong), CLOSED]
        gain[said] = 1 / self.length
        gain[wrong] = 0.0
        return Automaton(following, gain, np.zeros(len(samples.tokens), np.int64), self.length)
