"""Delay: the first word decides, and the reward comes long after."""

from __future__ import annotations

from typing import Literal

import numpy as np

from ..exact import CLOSED, Automaton
from ..streams import RowRandom
from ..tokenizer import CharacterTokenizer
from .base import Samples, Score, Task, Utterances, at_least


class Delay(Task):
    """Say the symbol you were shown, then anything, and wait: credit assignment over `delay` tokens.

    Shown: one symbol, uniform. Said: exactly 1 + `delay` symbols; there is no end action. Earns: 1 if the first
    is the one shown, else 0; the others do not matter. An incomplete utterance scores 0, so that even
    `dense=True` pays with the last symbol only. A random symbol earns 1 / vocab_size, and the best is 1.

    Args:
        vocab_size: V, number of symbols, 2 to 4096.
        delay: symbols said between the one that matters and the reward, 0 for none.

    Source: the umbrella problem of Osband et al. 2020, "Behaviour suite for reinforcement learning",
    arXiv:1908.03568.
    """

    family = "diagnostic"

    def __init__(self, *, vocab_size: int = 8, delay: int = 10) -> None:
        at_least(2, vocab_size, "vocab_size")
        self.delay = at_least(0, delay, "delay")
        super().__init__(CharacterTokenizer.of_size(vocab_size), max_prompt_tokens=1, max_new_tokens=1 + delay)

    def sample(self, random: RowRandom) -> Samples:
        """Return one uniform symbol."""
        return Samples(random.integers(self.vocab_size, 1))

    def score(self, said: Utterances) -> Score:
        """Return 1 if the utterance is complete and begins with the symbol shown."""
        complete = said.tokens[:, -1] != self.vocab_size
        return Score((complete & (said.tokens[:, 0] == said.tokens[:, 1])).astype(np.float64))

    def cases(self) -> tuple[Samples, Literal["symmetry"], None]:
        """Return one prompt: renaming the symbols turns any other into it."""
        return Samples(np.zeros((1, 1), np.int64)), "symmetry", None

    def automaton(self, samples: Samples) -> Automaton:
        """Return the machine that waits: states 0 to delay - 1 after the right symbol, the next after another."""
        shown = samples.tokens[:, 0]
        wrong, starts = self.delay, self.delay + 1 + np.arange(len(shown))
        onward = np.append(np.arange(self.delay), CLOSED)  # after the right symbol and each wait
        following = np.full((wrong + 1 + len(shown), self.vocab_size), wrong)
        following[:wrong] = onward[1:, None]
        following[starts, shown] = onward[0]
        return Automaton(following, (following == CLOSED).astype(np.float64), starts, 1 + self.delay)
