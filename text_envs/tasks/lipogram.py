"""Lipogram: write words that do without a letter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..exact import CLOSED
from ..streams import RowRandom
from ..tokenizer import CharacterTokenizer
from .base import Samples, at_least
from .machine import MachineTask

WORDS = (
    "a am an as at be by do go he i if in is it me my no of on or so to up us we air all and any arm ask bad bag "
    "bed big bird blue boat book box boy bring burn but call can cat city cold come cup cut day dog dry earth "
    "easy eat egg eye fall far farm fast fire fish fly fox full girl glad gold good green hand hard hat help hill "
    "home hot house hunt ink joy jump just keep king know lamp land late leg let light lion long look lost love "
    "man map milk moon much music name new night north now oak old open out park pay pen plant plum queen quick "
    "quiet rain red river road room run sad salt sea ship shy sing sky sleep snow song star stone sun tall tea "
    "ten time tree try turn two under very wall warm water wild wind wood work young zoo"
).split()


class Lipogram(MachineTask):
    """Write words that all avoid one letter.

    Shown: the forbidden letter, uniform over `letters`. Said: words with one space between them, at most `length`
    tokens; the end action closes the utterance. Earns: the share of the budget that is right, which is each letter
    with which the text goes on to be words of the list that do without the forbidden letter, and each space after
    such a word. Any other token is a mistake: neither it nor what follows counts, up to and with the next space.
    Words may be said again, and the last need not be finished, so the best is 1; random tokens earn about 0.08
    with the defaults.

    Args:
        words: the list.
        letters: those that may be forbidden.
        length: the budget.

    Raises:
        ValueError: if there is no letter, one occurs twice, or one leaves no word.

    Source: constrained writing as a test of language models, Roush et al. 2022, "Most language models can be poets
    too: an AI writing assistant and constrained text generation studio", arXiv:2306.15926.
    """

    family = "diagnostic"

    def __init__(self, *, words: Sequence[str] = tuple(WORDS), letters: str = "etaoin", length: int = 16) -> None:
        for word in [words] if isinstance(words, str) else words:
            if word.split() != [word] or word is words:
                raise ValueError(f"words are a list of words without white space, got {word!r}")
        if not letters or len(set(letters)) < len(letters) or " " in letters:
            raise ValueError(f"letters are different ones, at least one and no space, got {letters!r}")
        alphabet = sorted({*letters, *"".join(words)})
        tokenizer = CharacterTokenizer("".join(alphabet) + " ", end=True)
        machines = [_machine([word for word in words if letter not in word], tokenizer) for letter in letters]
        for letter, (_, points) in zip(letters, machines, strict=True):
            if not (points > 0).any():
                raise ValueError(f"no word of the list does without {letter!r}; add one or forbid other letters")
        sizes = [len(points) for _, points in machines]
        self._roots = np.cumsum([0, *sizes[:-1]])  # the state that reads a new word, by forbidden letter
        for (following, _), root in zip(machines, self._roots, strict=True):
            following[:, :-1] += root  # all but the end action's column
        super().__init__(
            tokenizer,
            following=np.concatenate([following for following, _ in machines]),
            points=np.concatenate([points for _, points in machines]),
            out_of=at_least(1, length, "length"),
            max_prompt_tokens=1,
            max_new_tokens=length,
        )
        self._letters = np.array(self.codec.encode(letters))

    def sample(self, random: RowRandom) -> Samples:
        """Return uniform letters."""
        return self._shown(random.integers(len(self._letters), 1)[:, 0])

    def cases(self) -> tuple[Samples, Literal["enumerated"], None]:
        """Return every letter that may be forbidden."""
        return self._shown(np.arange(len(self._letters))), "enumerated", None

    def _shown(self, index: NDArray[np.int64]) -> Samples:
        return Samples(self._letters[index, None], columns={"state": self._roots[index]})


def _machine(words: Sequence[str], tokenizer: CharacterTokenizer) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the (S, V) following states and points of a machine that reads words of a list.

    States are the beginnings of words, first the empty one, and a last one where a mistake waits for its space.
    """
    states = sorted({word[:end] for word in ["", *words] for end in range(len(word) + 1)})
    number = {state: i for i, state in enumerate(states)}
    space, mistaken = tokenizer.vocab_size - 2, len(states)
    following = np.full((mistaken + 1, tokenizer.vocab_size), mistaken)
    following[mistaken, space] = number[""]
    following[:, -1] = CLOSED
    points = np.zeros(following.shape)
    for state, i in number.items():
        if state:
            letter = number[state[:-1]], tokenizer.encode(state[-1])[0]
            following[letter], points[letter] = i, 1
        if state in words:
            following[i, space], points[i, space] = number[""], 1
    return following, points
