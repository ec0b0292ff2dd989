"""Pattern: write a date, a time or a telephone number that exists."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..exact import CLOSED
from ..streams import RowRandom
from ..tokenizer import CharacterTokenizer
from .base import Samples, at_least
from .machine import MachineTask

# What belongs to each pattern, as regular expressions of which one must match; groups are not nested, and all
# strings of a pattern have the same length. Dates are the Gregorian calendar's of the years 1000 to 9999; telephone
# numbers are those that North America keeps for fiction.
PATTERNS: dict[str, tuple[str, ...]] = {
    "date": (
        r"[1-9]\d\d\d-(0[13578]|1[02])-(0[1-9]|[12]\d|3[01])",
        r"[1-9]\d\d\d-(0[469]|11)-(0[1-9]|[12]\d|30)",
        r"[1-9]\d\d\d-02-(0[1-9]|1\d|2[0-8])",
        r"[1-9]\d(0[48]|[2468][048]|[13579][26])-02-29",
        r"([2468][048]|[13579][26])00-02-29",
    ),
    "time": (r"([01]\d|2[0-3]):[0-5]\d",),
    "phone": (r"[2-9]\d\d-555-01\d\d",),
}
SYMBOLS = "0123456789-:"
INITIALS = "".join(name[0] for name in PATTERNS)


class Pattern(MachineTask):
    """Complete a member of a regular language: a date, a time or a telephone number.

    Shown: the first letter of the pattern's name, uniform over `kinds`, and the first `given` symbols of a member,
    uniform over all such beginnings. Said: the rest of a member, such as "2024-02-29", "23:59" or "212-555-0123",
    then the end action, which counts. Earns: the share of what must be said, the end action included, before the
    first symbol after which no member is possible: 1 for a complete member, and the symbols that follow a mistake
    earn nothing. Random tokens earn about 0.07 with the defaults.

    Args:
        kinds: names of patterns, of "date", "time" and "phone".
        given: symbols of the member that are shown, fewer than the shortest pattern has.

    Raises:
        ValueError: if a pattern is unknown, named twice or shorter than what is given, or there is none.

    Source: regular languages as tests of sequence learners, Tomita 1982, "Dynamic construction of finite-state
    automata from examples using hill-climbing"; completion under a grammar, Willard & Louf 2023, "Efficient guided
    generation for large language models", arXiv:2307.09702.
    """

    family = "diagnostic"

    def __init__(self, *, kinds: Sequence[str] = tuple(PATTERNS), given: int = 2) -> None:
        if not kinds or len(set(kinds)) < len(kinds) or not set(kinds) <= set(PATTERNS):
            raise ValueError(f"kinds are different ones of {', '.join(map(repr, PATTERNS))}, got {kinds!r}")
        rests = [frozenset(_sequences(PATTERNS[kind])) for kind in kinds]
        lengths = [max(map(len, rest)) for rest in rests]
        if at_least(0, given, "given") >= min(lengths):
            shortest = kinds[lengths.index(min(lengths))]
            raise ValueError(f"a {shortest} has {min(lengths)} symbols, so fewer can be given, got given={given}")
        tokenizer = CharacterTokenizer(SYMBOLS + INITIALS, end=True)
        following, points, kind_of = _machine(rests, tokenizer.vocab_size)
        super().__init__(
            tokenizer,
            following,
            points,
            out_of=np.array(lengths)[kind_of] - given + 1,
            max_prompt_tokens=1 + given,
            max_new_tokens=max(lengths) - given + 1,
        )
        self._prompts, self._starts = self._beginnings(kinds, given)
        self._counts = np.bincount(kind_of[self._starts])  # beginnings of each kind
        self._firsts = self._counts.cumsum() - self._counts

    def sample(self, random: RowRandom) -> Samples:
        """Return a uniform kind's initial and a uniform beginning of its members."""
        kind = random.integers(len(self._counts), 1)[:, 0]
        within = (random.random(1)[:, 0] * self._counts[kind]).astype(np.int64)
        return self._shown(self._firsts[kind] + within)

    def cases(self) -> tuple[Samples, Literal["enumerated"], NDArray[np.float64]]:
        """Return every beginning and its probability."""
        chances = np.repeat(1 / (len(self._counts) * self._counts), self._counts)
        return self._shown(np.arange(len(chances))), "enumerated", chances

    def _shown(self, index: NDArray[np.int64]) -> Samples:
        return Samples(self._prompts[index], columns={"state": self._starts[index]})

    def _beginnings(self, kinds: Sequence[str], given: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return (N, 1 + given) prompts, in the order of their kinds, and the (N,) states they lead to."""
        prompts = np.array([self.codec.encode(kind[0]) for kind in kinds])
        state = np.arange(len(kinds))
        for _ in range(given):
            row, symbol = self._points[state].nonzero()
            prompts = np.column_stack([prompts[row], symbol])
            state = self._following[state[row], symbol]
        return prompts, state


def _sequences(expressions: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Yield what strings that match look like: at each place, the symbols that may stand there."""
    for expression in expressions:
        groups = (group.split("|") for group in re.split("[()]", expression))
        for choice in itertools.product(*groups):
            atoms = re.findall(r"\[.*?\]|\\.|.", "".join(choice))
            yield tuple("".join(re.findall(atom, SYMBOLS)) for atom in atoms)


def _machine(
    rests: Sequence[frozenset[tuple[str, ...]]], vocab_size: int
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.int64]]:
    """Return a machine whose states are a kind and what may still follow: nothing, after a mistake.

    The first states are those in which all of each kind may follow.

    Returns:
        (S, V) following and points, and the (S,) kinds.

    Source: Brzozowski 1964, "Derivatives of regular expressions", doi:10.1145/321239.321249.
    """
    states = list(enumerate(rests))
    number = {state: i for i, state in enumerate(states)}
    following, points = [], []
    for kind, rest in states:  # which grows
        after = [(kind, frozenset(s[1:] for s in rest if s and symbol in s[0])) for symbol in SYMBOLS + INITIALS]
        for state in after:
            if state not in number:
                number[state] = len(states)
                states.append(state)
        following.append([*(number[state] for state in after), CLOSED])
        points.append([*(float(bool(possible)) for _, possible in after), float(() in rest)])
    return np.array(following), np.array(points), np.array([kind for kind, _ in states])
