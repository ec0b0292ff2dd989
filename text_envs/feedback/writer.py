"""The one connection of a process that writes: threads take turns, and one commit serves all who were waiting.

A commit waits for the disk, some milliseconds, whatever is in it. So a transaction that ends while others wait for
their turn leaves the commit to them, and comes to its end when it is done.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from .errors import DatabaseError, kind_of

PATIENCE = 60.0  # seconds to wait for another writer
MOST = 64  # transactions in one commit
_LOOK = 0.05  # seconds, until those who wait for a commit look whether it was left to nobody
_GAP = 0.001  # seconds, until we look whether another process lets us


class Clock:
    """A clock that never runs backwards.

    While it is ahead of the machine's clock, which was set back, it runs at half speed until they agree again: what
    is to expire does expire.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._machine = clock
        self._seen = clock()
        self._lock = threading.Lock()
        self.latest = float("-inf")

    def now(self) -> float:
        """Return the time."""
        with self._lock:
            seen = self._machine()
            passed, self._seen = max(0.0, seen - self._seen), seen
            self.latest = max(seen, self.latest + passed / 2)
            return self.latest

    def read(self, connection: sqlite3.Connection) -> None:
        """Be no earlier than the latest time that a commit of any process kept."""
        (kept,) = connection.execute("SELECT coalesce(max(latest), 0) FROM clock").fetchone()
        with self._lock:
            self.latest = max(self.latest, kept)

    def keep(self, connection: sqlite3.Connection) -> None:
        """Keep the time for others, as part of a transaction."""
        connection.execute("UPDATE clock SET latest = ? WHERE latest < ?", (self.latest, self.latest))


class _Group:
    """Transactions that are committed together."""

    def __init__(self) -> None:
        self.members = 0
        self.done = threading.Event()
        self.error: BaseException | None = None


class Writer:
    """A connection that writes, and its turns.

    Args:
        connection: usable in any thread, one at a time.
        clock: read when a transaction begins, kept when it ends.
    """

    def __init__(self, connection: Any, clock: Clock) -> None:
        self.connection = connection
        self._clock = clock
        self._turn, self._owner = threading.Lock(), 0
        self._waiting: set[int] = set()  # threads
        self._group: _Group | None = None  # begun and not committed

    def vacuum(self) -> bool:
        """Write the file anew and empty the write-ahead log; return whether others kept it from being emptied."""
        with self.alone():
            patiently(self.connection, "VACUUM")
            deadline = time.monotonic() + PATIENCE
            while True:
                busy, *_ = patiently(self.connection, "PRAGMA wal_checkpoint(TRUNCATE)")
                if not busy or time.monotonic() > deadline:
                    return bool(busy)
                time.sleep(_GAP)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Take a turn without a transaction.

        Raises:
            DatabaseError: if the thread has the turn already.
        """
        with self._in_turn():
            if self._group is not None:
                self._commit(self._group)
            yield

    @contextmanager
    def transaction(self) -> Iterator[Any]:
        """Give the connection; what was done is on the disk at the end, or undone after an error.

        Raises:
            DatabaseError: as `alone` does, or if the commit it shared with others failed.
        """
        with self._in_turn():
            group = self._join()
            try:
                yield self.connection
                self.connection.execute("RELEASE member")
            except BaseException as error:
                self._undo(group, error)
                raise
            finally:
                if self._group is group and (not self._waiting or group.members >= MOST):
                    self._commit(group)
        self._wait_for(group)

    @contextmanager
    def _in_turn(self) -> Iterator[None]:
        if self._owner == threading.get_ident():
            raise DatabaseError(
                "this thread is in a transaction already and would wait for itself: hand its connection on "
                "(connection=...)"
            )
        thread = threading.get_ident()
        try:
            self._waiting.add(thread)
            with self._turn:  # an interrupt (Ctrl-C) cannot come between taking a lock and this statement
                self._waiting.discard(thread)
                try:
                    self._owner = thread
                    yield
                finally:
                    self._owner = 0
        finally:
            self._waiting.discard(thread)

    def _join(self) -> _Group:
        """Return the group that is under way, or begin one."""
        group = self._group
        if group is None:
            group = _Group()
            if self.connection.in_transaction:  # an interrupt came between beginning one and noting it
                self.connection.execute("ROLLBACK")
            patiently(self.connection, "BEGIN IMMEDIATE")
            self._group = group
        try:
            self._clock.read(self.connection)
            self.connection.execute("SAVEPOINT member")
        except BaseException as error:
            self._fail(group, error)
            raise
        group.members += 1
        return group

    def _undo(self, group: _Group, error: BaseException) -> None:
        """Undo one member's work; all of it where the database has done so, as it does when the disk is full."""
        try:
            self.connection.execute("ROLLBACK TO member")
            self.connection.execute("RELEASE member")
        except BaseException as another:
            self._fail(group, error)
            if not isinstance(another, Exception):
                raise

    def _commit(self, group: _Group) -> None:
        try:
            self._clock.keep(self.connection)
            self.connection.execute("COMMIT")
        except BaseException as error:
            if isinstance(error, Exception) or self.connection.in_transaction:
                self._fail(group, error)
                raise
            self._done(group)  # an interrupt that came after it
            raise
        self._done(group)

    def _fail(self, group: _Group, error: BaseException) -> None:
        with suppress(Exception):  # it may have been undone already
            self.connection.execute("ROLLBACK")
        group.error = error
        self._done(group)

    def _done(self, group: _Group) -> None:
        self._group = None
        group.done.set()

    def _wait_for(self, group: _Group) -> None:
        """Wait until a group is committed; do it, should those who were waiting for their turn have given up.

        Raises:
            DatabaseError: if that failed.
        """
        try:
            while not group.done.wait(_LOOK):
                self._see_to(group)
        except BaseException:  # an interrupt, which must not leave it open
            self._see_to(group)
            raise
        if group.error is not None:
            raise DatabaseError(f"nothing was kept: the commit failed ({group.error!r})") from group.error

    def _see_to(self, group: _Group) -> None:
        """Commit a group that is still open and that nobody is at; whoever has the turn sees to it otherwise."""
        if self._turn.acquire(blocking=False):
            try:
                if self._group is group:
                    self._commit(group)
            finally:
                self._turn.release()


def patiently(connection: Any, statement: str) -> Any:
    """Run a statement as soon as other processes let us, and return its row, if it has one.

    SQLite itself would look again after up to 0.1 s, and so hardly ever find a gap between the transactions of a
    busy process.
    """
    deadline = time.monotonic() + PATIENCE
    connection.execute("PRAGMA busy_timeout = 0")
    try:
        while True:
            try:
                return connection.execute(statement).fetchone()
            except Exception as error:
                if kind_of(error) != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    raise
                time.sleep(_GAP)
    finally:
        connection.execute(f"PRAGMA busy_timeout = {1000 * PATIENCE:.0f}")
