"""NGram: a language model small enough for the exact frontier between reward and distance from it."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..exact import evaluate
from ..streams import RowRandom, Stream, seed_to_word
from ..tokenizer import CharacterTokenizer
from .base import Samples, at_least
from .machine import MachineTask

MAX_ENTRIES = 10_000_000  # of a table; 80 MB each


class NGram(MachineTask):
    """Go on with a text so that it earns much, and see how far that leads from a language model.

    Shown: `order` - 1 symbols, uniform and independent. Said: exactly `length` symbols; there is no end action.
    Earns: the mean over the `length` positions of a reward in 0..1 that each symbol earns in the context of
    the `order` - 1 symbols before it; missing positions earn 0. The rewards are uniform and independent,
    so uniform symbols earn about 1/2. They belong to the environment, not to the episode, and so does
    `reference`: both are drawn by `table_seed`.

    What tuning a language model trades off is known exactly here. `automaton` has a state for each context, and
    `exact.frontier(task.automaton(task.cases()[0]), task.reference, betas)` gives the largest reward at each
    KL divergence from the reference.

    Args:
        vocab_size: V, number of symbols, 2 to 4096.
        order: n of the n-gram; rewards and probabilities depend on the n - 1 symbols before.
        length: symbols said.
        smoothing: share of the uniform distribution in the reference, above 0 and at most 1.
        table_seed: draws the rewards and the reference.

    Attributes:
        reference: (S, V) probabilities of the language model, S = V**(order - 1) contexts in the order of the
            machine's states. Each row is uniform on the simplex, then smoothed: every symbol can follow.

    Raises:
        ValueError: if a number is out of range, or the tables are too large.

    Source: interpolation smoothing, Jelinek & Mercer 1980, "Interpolated estimation of Markov source parameters
    from sparse data"; reward against KL, Gao, Schulman & Hilton 2022, "Scaling laws for reward model
    overoptimization", arXiv:2210.10760.
    """

    family = "diagnostic"

    def __init__(
        self,
        *,
        vocab_size: int = 8,
        order: int = 3,
        length: int = 8,
        smoothing: float = 0.1,
        table_seed: int = 0,
    ) -> None:
        at_least(2, vocab_size, "vocab_size")
        at_least(2, order, "order")
        at_least(1, length, "length")
        if not 0 < smoothing <= 1:
            raise ValueError(f"smoothing is a share above 0 and at most 1, got {smoothing}")
        contexts = vocab_size ** (order - 1)
        if contexts * vocab_size > MAX_ENTRIES:
            raise ValueError(
                f"{contexts:,} contexts x {vocab_size} symbols are more than {MAX_ENTRIES:,} entries; "
                "lower order or vocab_size"
            )
        random = RowRandom(seed_to_word(table_seed), 0, Stream.SECRET)
        rewards = random.random(contexts * vocab_size).reshape(contexts, vocab_size)
        weights = -np.log1p(-random.random(rewards.size).reshape(rewards.shape))  # exponential: shares are uniform
        shares = weights / weights.sum(axis=1, keepdims=True)
        self.reference = smoothing / vocab_size + (1 - smoothing) * shares
        super().__init__(
            CharacterTokenizer.of_size(vocab_size),
            following=np.arange(rewards.size).reshape(rewards.shape) % contexts,  # context s, then a: s V + a
            points=rewards,
            out_of=length,
            max_prompt_tokens=order - 1,
            max_new_tokens=length,
        )

    def sample(self, random: RowRandom) -> Samples:
        """Return uniform contexts."""
        return self._shown(random.integers(self.vocab_size, self.max_prompt_tokens))

    def cases(self) -> tuple[Samples, Literal["enumerated"], None]:
        """Return every context, in the order of the states."""
        contexts = np.indices((self.vocab_size,) * self.max_prompt_tokens)
        return self._shown(contexts.reshape(self.max_prompt_tokens, -1).T), "enumerated", None

    def reference_return(self) -> float:
        """Return the expected clean return of the language model, over prompts."""
        return float(evaluate(self.automaton(self.cases()[0]), self.reference).mean())

    def _shown(self, tokens: NDArray[np.int64]) -> Samples:
        places = self.vocab_size ** np.arange(self.max_prompt_tokens)[::-1]
        return Samples(tokens, columns={"state": tokens @ places})
