"""The SQLite file that keeps the values of costly rewards, for later runs and any number of other processes."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from os import PathLike, fspath
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from ..spaces import first_surrogate
from .calling import RewardError, is_finite

if TYPE_CHECKING:
    import sqlite3

_OURS = 0x54455256  # marks a file of ours, as SQLite's application_id
_TABLE = "CREATE TABLE rewards (name TEXT, asked TEXT, value REAL, PRIMARY KEY (name, asked)) WITHOUT ROWID"


class CacheFile:
    """The values of one reward in a file that may hold those of several.

    Args:
        path: the file; it is made where there is none.
        name: what the file calls the reward.

    Raises:
        ValueError: if the name holds half a character.
        RewardError: if the file is damaged, or not a cache of rewards; it is left as it is.
    """

    def __init__(self, path: str | PathLike[str], name: str) -> None:
        if first_surrogate(name) is not None:
            raise ValueError(
                f"name={name!r} holds a lone surrogate, half a character, which no file can; leave it out"
            )
        self.path, self.name = Path(fspath(path)), name
        self.recall([])  # now, so that a damaged file is told early

    def recall(self, keys: Sequence[str]) -> dict[str, float | None]:
        """Return the values of those keys that the file knows.

        Raises:
            RewardError: if the file fails, or holds what no reward answers.
        """
        found = {}
        with _opened(self.path) as file:
            for key in keys:
                row = file.execute("SELECT value FROM rewards WHERE name = ? AND asked = ?", (self.name, key))
                for (value,) in row:
                    if value is not None and not is_finite(value):
                        raise RewardError(
                            f"{self.path} holds {value!r:.100} for {self.name!r}, which no reward answers: "
                            "something else wrote it; move the file away, and a new one will be made"
                        )
                    found[key] = value
        return found

    def store(self, values: Mapping[str, float | None]) -> None:
        """Keep values, all or none.

        Raises:
            RewardError: if the file fails.
        """
        rows = [(self.name, key, value) for key, value in values.items()]
        with _opened(self.path) as file:
            file.execute("BEGIN IMMEDIATE")
            file.executemany("INSERT OR REPLACE INTO rewards VALUES (?, ?, ?)", rows)
            file.execute("COMMIT")


class Writer:
    """Values on their way into a cache file: written once a second, and at the end, even one by an error.

    Args:
        file: the file, or None to keep nothing.
    """

    def __init__(self, file: CacheFile | None) -> None:
        self._file = file
        self._new: dict[str, float | None] = {}
        self._due = time.monotonic() + 1.0

    def put(self, key: str, value: float) -> None:
        """Keep a value; at the latest when the writer is left."""
        self._new[key] = value
        if time.monotonic() >= self._due:
            self._flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._flush()

    def _flush(self) -> None:
        if self._file is not None and self._new:
            self._file.store(self._new)
        self._new = {}
        self._due = time.monotonic() + 1.0


@contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    """Open a cache file, or make it; a connection per call, since threads and forks may not share one.

    Raises:
        RewardError: if the file is damaged, something else, or cannot be read or written.
    """
    import sqlite3

    try:
        with closing(sqlite3.connect(path, timeout=60, isolation_level=None)) as file:
            if file.execute("PRAGMA application_id").fetchone() != (_OURS,):
                file.execute("BEGIN IMMEDIATE")  # another process may be making it at this moment
                mark = file.execute("PRAGMA application_id").fetchone()[0]
                if mark != _OURS:
                    if mark or file.execute("SELECT name FROM sqlite_master").fetchone():
                        raise RewardError(f"{path} is a database, but no cache of rewards; name another path")
                    file.execute(_TABLE)
                    file.execute(f"PRAGMA application_id = {_OURS}")
                file.execute("COMMIT")
            yield file
    except sqlite3.OperationalError as error:
        raise RewardError(f"the cache of rewards {path} cannot be used: {error}") from error
    except sqlite3.DatabaseError as error:
        raise RewardError(
            f"{path} is damaged, or no cache of rewards ({error}); it was left as it is: move it away, and a new "
            "one will be made, or name another path"
        ) from error
