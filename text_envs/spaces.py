"""UnicodeText: Gymnasium's Text for any Unicode string, and what Gymnasium's utilities do with it."""

from __future__ import annotations

from typing import Any, NoReturn

import numpy as np
from gymnasium import spaces
from gymnasium.error import CustomSpaceError
from gymnasium.spaces.utils import flatdim, flatten, flatten_space, is_space_dtype_shape_equiv, unflatten
from gymnasium.vector.utils import create_empty_array, create_shared_memory

_SURROGATES = range(0xD800, 0xE000)  # halves of UTF-16 pairs: code points that are not characters
_CHARACTERS = 0x110000 - len(_SURROGATES)


def first_surrogate(text: str) -> int | None:
    """Return the index of the first lone surrogate in a text, None if every code point is a character."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        return error.start
    return None


class UnicodeText(spaces.Text):
    r"""Strings of `min_length` to `max_length` characters, any of Unicode's 1,112,064.

    `spaces.Text` keeps its characters in a set; this space never builds one. Code points that are not
    characters (lone surrogates) are outside the space: no UTF-8 file, socket or tokenizer can carry them.

    Args:
        max_length: most characters of a text.
        min_length: least characters.
        longest_sample: most characters of a text that `sample` draws, unless told; None: `max_length`.
        seed: of the samples.

    Example:
        >>> UnicodeText(8)
        UnicodeText(0, 8)
        >>> "žluťoučký" in UnicodeText(9), "\ud800" in UnicodeText(9)
        (True, False)
    """

    def __init__(
        self,
        max_length: int,
        *,
        min_length: int = 0,
        longest_sample: int | None = None,
        seed: int | np.random.Generator | None = None,
    ) -> None:
        self.longest_sample = max_length if longest_sample is None else longest_sample
        if not min_length <= self.longest_sample <= max_length:
            raise ValueError(f"longest_sample is in {min_length}..{max_length}, got {longest_sample}")
        super().__init__(max_length, min_length=min_length, charset=frozenset(), seed=seed)

    def sample(
        self,
        mask: tuple[int | None, Any] | None = None,
        probability: tuple[int | None, Any] | None = None,
    ) -> str:
        """Return a text of uniform length, up to `longest_sample`, whose characters are uniform over Unicode.

        Args:
            mask: (length, None) fixes the length.
            probability: the same as `mask`.

        Raises:
            ValueError: if both are given, or either holds a value per character (there are 1,112,064).
        """
        if mask is not None and probability is not None:
            raise ValueError(f"pass mask or probability, not both: mask={mask}, probability={probability}")
        length, characters = mask or probability or (None, None)
        if characters is not None:
            raise ValueError(
                "UnicodeText cannot weigh single characters (there are 1,112,064 of them); "
                "pass (length, None), or use gymnasium.spaces.Text with a charset"
            )
        if length is None:
            length = int(self.np_random.integers(self.min_length, self.longest_sample + 1))
        if not self.min_length <= length <= self.max_length:
            raise ValueError(f"length {length} is outside {self.min_length}..{self.max_length} of {self}")
        points = self.np_random.integers(_CHARACTERS, size=length)
        points += (points >= _SURROGATES.start) * len(_SURROGATES)
        return "".join(map(chr, points))

    def contains(self, x: Any) -> bool:
        """Return whether `x` is a string of allowed length without lone surrogates."""
        return isinstance(x, str) and self.min_length <= len(x) <= self.max_length and first_surrogate(x) is None

    def __repr__(self) -> str:
        return f"UnicodeText({self.min_length}, {self.max_length})"

    def __eq__(self, other: object, /) -> bool:
        return (
            isinstance(other, UnicodeText)
            and self.min_length == other.min_length
            and self.max_length == other.max_length
        )

    @property
    def is_np_flattenable(self) -> bool:
        """False: a text has no faithful vector of fixed size."""
        return False

    @property
    def character_set(self) -> frozenset[str]:
        """Not available: the set of all characters takes 294 MB.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError("UnicodeText builds no character set; use `text in space` to test a text")

    @property
    def character_list(self) -> tuple[str, ...]:
        """Not available, see `character_set`.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError("UnicodeText builds no character list; use `text in space` to test a text")

    @property
    def characters(self) -> str:
        """Not available, see `character_set`.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError("UnicodeText builds no character list; use `text in space` to test a text")

    def character_index(self, char: str) -> NoReturn:
        """Not available, see `character_set`.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError(f"UnicodeText does not number its characters; use ord({char!r})")


def _refuse_to_flatten(space: UnicodeText, *args: Any) -> NoReturn:
    raise ValueError(
        f"{space} cannot be flattened to numbers: a text has no vector of fixed size. Make the environment "
        'with level="token" (token ids in a Box), or turn texts into vectors with a wrapper of your own'
    )


def _refuse_shared_memory(space: UnicodeText, *args: Any, **kwargs: Any) -> NoReturn:
    raise CustomSpaceError(f"{space} cannot live in shared memory; pass shared_memory=False to AsyncVectorEnv")


def _empty_texts(space: UnicodeText, n: int = 1, fn: Any = None) -> tuple[str, ...]:
    return (" " * space.min_length,) * n


def _same_lengths(space: UnicodeText, other: spaces.Space) -> bool:
    return isinstance(other, UnicodeText) and space == other


for _function in (flatdim, flatten, flatten_space, unflatten):
    _function.register(UnicodeText, _refuse_to_flatten)
create_empty_array.register(UnicodeText, _empty_texts)
is_space_dtype_shape_equiv.register(UnicodeText, _same_lengths)
create_shared_memory.register(UnicodeText, _refuse_shared_memory)
