"""Columns that stay on disk: what a table is, and a sequence that reads a value when it is asked for.

How files are parsed does not live here but in `readers.py` and `hub.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray


class Record(NamedTuple):
    """One record of a table.

    Attributes:
        number: the line it ends on, or its row; both count from 1, for messages.
        place: where the table finds it again: a byte offset, or a row from 0.
        fields: name -> value.
    """

    number: int
    place: int
    fields: Mapping[str, Any]


class Table(Protocol):
    """Records that can be read in order and, most of them, at any place.

    Attributes:
        name: what messages call it.
        unit: what they put between it and the number of a record: "" for lines, " row " for rows.
    """

    name: str
    unit: str

    def scan(self) -> Iterator[Record]:
        """Yield all records, in order."""
        ...


class RandomAccess(Table, Protocol):
    """A table that reads single values again."""

    def values(self, name: str, places: Iterable[int]) -> Iterator[Any]:
        """Yield one field of the records at some places, None where a record lacks it."""
        ...


@dataclass(frozen=True, eq=False)
class LazyColumn(Sequence[Any]):
    """A column of n values of which only the places are in memory, 8 bytes each.

    Attributes:
        table: where the values are.
        name: which field.
        places: (n,) as in `Record.place`.
        words: how many words of a text are shown; None: the value as it is.
    """

    table: RandomAccess
    name: str
    places: NDArray[np.int64]
    words: int | None = None

    def __len__(self) -> int:
        """Return n."""
        return len(self.places)

    def __getitem__(self, index: Any) -> Any:
        """Return one value, or a tuple of the values of a slice."""
        if isinstance(index, slice):
            return tuple(self._read(self.places[index]))
        return next(self._read(self.places[[index]]))

    def __iter__(self) -> Iterator[Any]:
        """Yield the values in order, three times as fast as one by one."""
        return self._read(self.places)

    def _read(self, places: NDArray[np.int64]) -> Iterator[Any]:
        values = self.table.values(self.name, map(int, places))
        return values if self.words is None else (first_words(text, self.words) for text in values)


def first_words(text: str, count: int) -> str:
    """Return the first `count` words of a text, white space made single."""
    return " ".join(text.split()[:count])
