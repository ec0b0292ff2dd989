"""Bandit: one word for each situation, and some words pay more."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..exact import CLOSED, Automaton
from ..streams import RowRandom, Stream, seed_to_word
from ..tokenizer import CharacterTokenizer
from .base import Samples, Score, Task, Utterances, at_least


class Bandit(Task):
    """Pull an arm: a contextual bandit whose arms are the symbols.

    Shown: one of `contexts` contexts, uniform: a symbol, or the fewest symbols that tell them apart, as a
    number is written. Said: exactly one symbol; there is no end action. Earns: the arm's payoff in this
    context. The payoffs, uniform on [0, 1], belong to the environment, not to the episode: `table_seed` draws
    them, `reset(seed=...)` does not. With `reward_noise` they are the means of noisy rewards. A random arm
    earns the mean payoff, about 1 / 2, and the best is the mean over contexts of the largest one.

    Args:
        vocab_size: V, number of arms, 2 to 4096.
        contexts: number of contexts.
        table_seed: draws the payoffs.

    Source: the bandit of Osband et al. 2020, "Behaviour suite for reinforcement learning", arXiv:1908.03568,
    with contexts.
    """

    family = "diagnostic"
    one_machine = True

    def __init__(self, *, vocab_size: int = 8, contexts: int = 4, table_seed: int = 0) -> None:
        at_least(2, vocab_size, "vocab_size")
        self.contexts = at_least(1, contexts, "contexts")
        width = 1
        while vocab_size**width < contexts:
            width += 1
        super().__init__(CharacterTokenizer.of_size(vocab_size), max_prompt_tokens=width, max_new_tokens=1)
        random = RowRandom(seed_to_word(table_seed), 0, Stream.SECRET)
        self.payoffs = random.random(contexts * vocab_size).reshape(contexts, vocab_size)
        self._earned = np.pad(self.payoffs, ((0, 0), (0, 1)))  # nothing before an arm is pulled
        self._prompts = np.arange(contexts)[:, None] // vocab_size ** np.arange(width)[::-1] % vocab_size

    def sample(self, random: RowRandom) -> Samples:
        """Return uniform contexts."""
        return self._shown(random.integers(self.contexts, 1)[:, 0])

    def score(self, said: Utterances) -> Score:
        """Return the payoff of the arm, 0 before one is pulled."""
        return Score(self._earned[said.columns["context"], said.tokens[:, -1]])

    def cases(self) -> tuple[Samples, Literal["enumerated"], None]:
        """Return every context once."""
        return self._shown(np.arange(self.contexts)), "enumerated", None

    def automaton(self, samples: Samples) -> Automaton:
        """Return the machine whose states are the contexts; each symbol closes."""
        return Automaton(np.full(self.payoffs.shape, CLOSED), self.payoffs, samples.columns["context"], 1)

    def _shown(self, context: NDArray[np.int64]) -> Samples:
        return Samples(self._prompts[context], columns={"context": context})
