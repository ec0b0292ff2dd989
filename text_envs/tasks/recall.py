"""Recall: look up what belongs to a key you were shown long ago."""

from __future__ import annotations

from typing import Literal

import numpy as np

from ..exact import Automaton, spelling
from ..streams import RowRandom, Stream
from ..tokenizer import CharacterTokenizer
from .base import Samples, Score, Task, Utterances, at_least, count


class Recall(Task):
    """Say the value of a key: associative recall.

    Shown: `pairs` keys, each with its value; `distance` irrelevant symbols; and one of the keys again. Keys are
    distinct symbols of the alphabet's first half, values and irrelevant symbols are of its second half, all are
    uniform: so the key asked for occurs once before, in front of its value. (The symbols that `distractors` adds
    may be keys.) Said: exactly `value_length` symbols; there is no end action. Earns: the fraction of the value's
    symbols that are right in place; missing ones are wrong. Random symbols earn 1 / vocab_size, and the best is 1.

    Args:
        vocab_size: V, number of symbols, 4 to 4096.
        pairs: keys shown with their values, at most V // 2.
        distance: irrelevant symbols before the question, 0 for none.
        value_length: symbols of a value.

    Raises:
        ValueError: if there are too few symbols for distinct keys.

    Source: the associative recall of Graves, Wayne & Danihelka 2014, "Neural Turing Machines", arXiv:1410.5401,
    with the keys of Ba et al. 2016, "Using fast weights to attend to the recent past", arXiv:1610.06258.
    """

    family = "diagnostic"

    def __init__(self, *, vocab_size: int = 16, pairs: int = 3, distance: int = 4, value_length: int = 1) -> None:
        self.keys = at_least(4, vocab_size, "vocab_size") // 2
        self.pairs = at_least(1, pairs, "pairs")
        self.distance = at_least(0, distance, "distance")
        self.value_length = at_least(1, value_length, "value_length")
        if pairs > self.keys:
            raise ValueError(
                f"pairs is at most {self.keys}, half of the {vocab_size} symbols, got {pairs}; raise vocab_size"
            )
        super().__init__(
            CharacterTokenizer.of_size(vocab_size),
            max_prompt_tokens=pairs * (1 + value_length) + distance + 1,
            max_new_tokens=value_length,
        )

    def sample(self, random: RowRandom) -> Samples:
        """Return keys with their values, irrelevant symbols and a question."""
        rows, told = len(random), self.pairs * self.value_length
        keys = random.words(self.keys).argsort(axis=1)[:, : self.pairs]
        others = random.integers(self.vocab_size - self.keys, told + self.distance)
        others += self.keys
        known = np.concatenate([keys[:, :, None], others[:, :told].reshape(rows, self.pairs, -1)], axis=2)
        asked = known[np.arange(rows), random.integers(self.pairs, 1)[:, 0]]  # (n, 1 + value_length)
        prompt = np.concatenate([known.reshape(rows, -1), others[:, told:], asked[:, :1]], axis=1)
        return Samples(prompt, columns={"value": asked[:, 1:]})

    def score(self, said: Utterances) -> Score:
        """Return the fraction of the value that is right."""
        return Score(count(said.tokens[:, -self.value_length :] == said.columns["value"]) / self.value_length)

    def cases(self) -> tuple[Samples, Literal["symmetry"], None]:
        """Return one prompt: renaming the symbols turns any prompt's machine into any other's."""
        return self.sample(RowRandom(0, 0, Stream.PROMPT)), "symmetry", None

    def automaton(self, samples: Samples) -> Automaton:
        """Return the machine that counts positions: a right symbol adds 1 / value_length."""
        return spelling(samples.columns["value"], self.vocab_size)
