"""Counter-based randomness: a draw is a hash of (row seed, episode, stream, index), for all rows at once.

Nothing here has a state that another row could disturb, so a row draws the same numbers alone, in a batch of
any size, on any platform and whatever PYTHONHASHSEED is.

Source: the SplitMix64 sequence and its finaliser, Steele, Lea & Flood 2014, "Fast splittable pseudorandom
number generators", doi:10.1145/2660193.2660195.
"""

from __future__ import annotations

import operator
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.random.bit_generator import ISeedSequence
from numpy.typing import ArrayLike, NDArray

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # 2**64 / golden ratio, odd: the counter's stride
_MULTIPLIERS = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
_SHIFTS = (np.uint64(30), np.uint64(27), np.uint64(31))
_HALF = np.uint64(32)
_LOW_HALF = np.uint64(0xFFFFFFFF)
_WORD = 1 << 64


class Stream(IntEnum):
    """What a draw is for; draws for different purposes never share numbers."""

    PROMPT = 1
    REPLY = 2
    NOISE = 3
    SECRET = 4
    CANDIDATES = 5
    DISTRACTORS = 6


def mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Scramble 64-bit words in place (SplitMix64's finaliser, a bijection) and return them."""
    x ^= x >> _SHIFTS[0]
    x *= _MULTIPLIERS[0]
    x ^= x >> _SHIFTS[1]
    x *= _MULTIPLIERS[1]
    x ^= x >> _SHIFTS[2]
    return x


def fold(key: NDArray[np.uint64], word: ArrayLike) -> NDArray[np.uint64]:
    """Return new keys that depend on `key` and on one more integer per row.

    Args:
        key: (n,), not changed.
        word: integers in 0..2**64-1 that broadcast against `key`.
    """
    return mix((key ^ np.asarray(word).astype(np.uint64)) + _GOLDEN)


def as_seed(seed: Any) -> int:
    """Return a seed, an integer of Python's, numpy's or any other kind, as one of Python's.

    Raises:
        TypeError: if the seed is not an integer.
        ValueError: if the seed is negative.
    """
    try:
        number = operator.index(seed)
    except TypeError:
        raise TypeError(f"a seed is a non-negative integer, got {seed!r} ({type(seed).__name__})") from None
    if number < 0:
        raise ValueError(f"a seed is a non-negative integer, got {number}; pass one such as {-number}")
    return number


def seed_to_word(seed: int) -> int:
    """Return a seed of any size as 64 bits; seeds below 2**64 are kept as they are.

    Raises:
        TypeError: if the seed is not an integer.
        ValueError: if the seed is negative.
    """
    seed = as_seed(seed)
    word = seed % _WORD
    while seed >= _WORD:  # a seed of numpy's entropy has 128 bits
        seed //= _WORD
        word = int(fold(np.array([word], np.uint64), seed % _WORD)[0])
    return word


def row_keys(seeds: ArrayLike) -> NDArray[np.uint64]:
    """Return the keys that the streams of (n,) 64-bit row seeds begin from."""
    return mix(np.array(seeds, np.uint64, ndmin=1) + _GOLDEN)


class RowRandom:
    """Random numbers for n rows, each row from its own counter-based stream.

    Args:
        seeds: (n,) row seeds, 64-bit.
        episodes: (n,) episode numbers of the rows.
        stream: what the numbers are for.

    The order and sizes of the calls are the same for every row, so what one row draws depends on nothing but
    its own seed and episode.
    """

    def __init__(self, seeds: ArrayLike, episodes: ArrayLike, stream: Stream) -> None:
        self._key = fold(fold(row_keys(seeds), episodes), int(stream))
        self._drawn = 0

    @classmethod
    def of_keys(cls, keys: NDArray[np.uint64], episodes: ArrayLike, stream: Stream) -> RowRandom:
        """Return the random numbers of rows whose seeds have been made keys by `row_keys`, once and for all."""
        random = object.__new__(cls)
        random._key = fold(fold(keys, episodes), int(stream))
        random._drawn = 0
        return random

    def __len__(self) -> int:
        """Return n, the number of rows."""
        return len(self._key)

    def fold(self, word: ArrayLike) -> RowRandom:
        """Return the random numbers of a sub-stream, such as a turn or the tokens said.

        Args:
            word: non-negative integers that broadcast against (n,).
        """
        child = object.__new__(RowRandom)
        child._key = fold(self._key, word)
        child._drawn = 0
        return child

    def words(self, size: int) -> NDArray[np.uint64]:
        """Return (n, size) uniform 64-bit words."""
        index = np.arange(self._drawn + 1, self._drawn + 1 + size, dtype=np.uint64) * _GOLDEN
        self._drawn += size
        return mix(self._key[:, None] + index)

    def integers(self, high: int, size: int) -> NDArray[np.int64]:
        """Return (n, size) integers uniform on 0..high-1.

        The 64-bit word is scaled by multiply-shift, so no value is likelier than another by more than
        high / 2**64.

        Raises:
            ValueError: if `high` is not in 1..2**32.
        """
        if not 1 <= high <= 1 << 32:
            raise ValueError(f"integers(high) draws from 0..high-1 with 1 <= high <= 2**32, got high={high}")
        word, factor = self.words(size), np.uint64(high)
        low = ((word & _LOW_HALF) * factor) >> _HALF  # the product's carry into the upper half
        return (((word >> _HALF) * factor + low) >> _HALF).view(np.int64)

    def random(self, size: int) -> NDArray[np.float64]:
        """Return (n, size) floats uniform on [0, 1), multiples of 2**-53."""
        return (self.words(size) >> np.uint64(11)).astype(np.float64) * 2.0**-53

    def generators(self) -> list[np.random.Generator]:
        """Return numpy generators, one per row, for code that wants their methods (2 us each)."""
        bits = [np.random.PCG64(_Words(words)) for words in self.words(4)]  # type: ignore[arg-type]  # numpy's stubs
        return list(map(np.random.Generator, bits))

    def normal(self, size: int) -> NDArray[np.float64]:
        """Return (n, size) standard normal floats (Box & Muller 1958)."""
        radius = np.sqrt(-2.0 * np.log1p(-self.random(size)))
        return radius * np.cos(2.0 * np.pi * self.random(size))


class _Words(ISeedSequence):
    """Hands four words to a bit generator as they are: they are hashed already."""

    def __init__(self, words: NDArray[np.uint64]) -> None:
        self._words = words

    def generate_state(self, n_words: int, dtype: Any = np.uint32) -> NDArray[Any]:
        """Return the first `n_words` of `dtype`."""
        return self._words.view(dtype)[:n_words]
