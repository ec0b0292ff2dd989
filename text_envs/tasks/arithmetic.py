"""Arithmetic: say the result."""

from __future__ import annotations

import itertools
import math
import string
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..exact import Automaton, spelling
from ..streams import RowRandom
from ..tokenizer import CharacterTokenizer
from .base import Samples, Score, Task, Utterances, a_bool, at_least, count

MAX_LISTED = 1_000_000  # prompts whose answers are all looked at for exact values; takes about a second
_FUNCTIONS = {"+": np.add, "-": np.subtract, "*": np.multiply}
_CHOICES = ["".join(some) for n in (1, 2, 3) for some in itertools.permutations(_FUNCTIONS, n)]
_DIGITS = string.digits + string.ascii_lowercase
_NOTHING = -1  # what is right after the answer's end: no token
Integers = NDArray[np.int64]


class Arithmetic(Task):
    """Calculate.

    Shown: a number, an operation, a number and "=", such as "12+34="; numbers are uniform below base**digits,
    without leading zeros, and the operation is uniform. Said: the result, without leading zeros and with "-" in
    front if it is negative, and the end action, which counts in the budget; the budget is that of the longest
    result. Earns: the fraction of the answer's tokens, its end included, that are right in place: 1 for the
    result and nothing else. Missing tokens are wrong, a partial answer is scored the same way. Random tokens earn
    a little less than 1 / V (the end action cuts them short), and the best is 1.

    Args:
        digits: most digits of a number.
        operations: one or several of "+", "-" and "*".
        base: what the numbers are written in, 2 to 36; "a" comes after "9".
        reverse: the result is said backwards, last digit first (and "-" last), which is the order of carrying.

    Raises:
        ValueError: if numbers are too large, the base has no digits or an operation is unknown.

    Source: the plain and reversed formats of Lee et al. 2023, "Teaching arithmetic to small transformers",
    arXiv:2307.03381.
    """

    family = "diagnostic"

    def __init__(self, *, digits: int = 2, operations: str = "+", base: int = 10, reverse: bool = False) -> None:
        base, digits = at_least(2, base, "base"), at_least(1, digits, "digits")
        if base > len(_DIGITS):
            raise ValueError(f"base is at most {len(_DIGITS)}, got {base}")
        if (2 * digits + 2) * math.log2(base) > 63:
            raise ValueError(f"{digits} digits in base {base} are more than 64 bits can multiply; lower either")
        if operations not in _CHOICES:
            raise ValueError(f'operations are one or several of "+-*", each once, got {operations!r}')
        self.base, self.operations, self.reverse = base, operations, a_bool(reverse, "reverse")
        self._below = base**digits
        self._powers = base ** np.arange(2 * digits + 2)
        longest = 2 * digits if "*" in operations else digits + 1
        super().__init__(
            CharacterTokenizer(_DIGITS[:base] + operations + "=", end=True),
            max_prompt_tokens=2 * digits + 2,
            max_new_tokens=longest + 1,
        )

    def sample(self, random: RowRandom) -> Samples:
        """Return uniform numbers and operations."""
        first, second = random.integers(self._below, 2).T
        return self._written(first, second, random.integers(len(self.operations), 1)[:, 0])

    def score(self, said: Utterances) -> Score:
        """Return the fraction of the answer's tokens that are right."""
        answer = said.columns["answer"]
        rows, place = np.arange(len(said))[:, None], np.arange(self.max_new_tokens)
        spoken = said.tokens[rows, said.start[:, None] + place]
        return Score(count(spoken == answer) / count(answer != _NOTHING))

    def cases(self) -> tuple[Samples, Literal["enumerated", "symmetry", "sampled"], NDArray[np.float64] | None]:
        """Return a prompt for each length of the answer: renaming its tokens turns it into others as long."""
        prompts = self._below**2 * len(self.operations)
        if prompts > MAX_LISTED:
            return super().cases()
        operation, pair = np.divmod(np.arange(prompts), self._below**2)
        first, second = np.divmod(pair, self._below)
        lengths = self._lengths(self._results(first, second, operation))
        _, at, counts = np.unique(lengths, return_index=True, return_counts=True)
        return self._written(first[at], second[at], operation[at]), "symmetry", counts / prompts

    def automaton(self, samples: Samples) -> Automaton:
        """Return the machine that counts positions and pays each right one; the end action closes."""
        return spelling(samples.columns["answer"], self.vocab_size, self.end_token_id)

    def _written(self, first: Integers, second: Integers, operation: Integers) -> Samples:
        """Return prompts and what is right after them, the column "answer", (n, T).

        Args:
            first: (n,) numbers before the operation.
            second: (n,) numbers after it.
            operation: (n,) indices into `operations`.
        """
        rows, place = np.arange(len(first)), np.arange(self.max_prompt_tokens)
        sign = self._lengths(first)
        equals = sign + 1 + self._lengths(second)
        both = (first * self._powers[equals - sign] + second) * self.base  # one number, its 0s for the two signs
        prompt = self._digits(both, equals[:, None] - place)
        prompt[rows, sign] = self.base + operation
        prompt[rows, equals] = self.base + len(self.operations)
        prompt[place > equals[:, None]] = self.vocab_size
        return Samples(prompt, equals + 1, {"answer": self._answers(self._results(first, second, operation))})

    def _answers(self, result: Integers) -> Integers:
        """Return (n, T) tokens of results, then the end, then -1."""
        rows, place = np.arange(len(result)), np.arange(self.max_new_tokens)
        length = self._lengths(result)
        answer = self._digits(np.abs(result), place if self.reverse else (length - 1)[:, None] - place)
        below = np.flatnonzero(result < 0)
        answer[below, length[below] - 1 if self.reverse else 0] = self.base + self.operations.find("-")
        answer[rows, length] = self.vocab_size - 1
        answer[place > length[:, None]] = _NOTHING
        return answer

    def _results(self, first: Integers, second: Integers, operation: Integers) -> Integers:
        return np.choose(operation, [_FUNCTIONS[name](first, second) for name in self.operations])

    def _lengths(self, number: Integers) -> Integers:
        """Return the characters of numbers, "-" included."""
        return np.searchsorted(self._powers[1:], np.abs(number), side="right") + 1 + (number < 0)

    def _digits(self, number: Integers, from_last: Integers) -> Integers:
        """Return (n, m) digits of (n,) numbers, places counted from the last; elsewhere, any digit."""
        return number[:, None] // self._powers.take(from_last, mode="clip") % self.base
