"""One file that many write at once, plain or encrypted: SQLite in its write-ahead mode, or SQLCipher.

What is kept in it does not live here: each room makes its own tables through `Database.create`.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from os import PathLike, fspath
from pathlib import Path
from typing import Any
from weakref import WeakSet

from ..rewards.packages import missing
from . import keys
from .errors import ConflictError, DatabaseError, kind_of, told
from .keys import Key
from .writer import PATIENCE, Clock, Writer, patiently

__all__ = ["ConflictError", "Database", "DatabaseError", "Key"]

OURS = 0x54455646  # marks a file of ours, as SQLite's application_id
FORMAT = 1  # raised when an older version of this project could not read the file
_PLAIN = b"SQLite format 3\0"
_IN_USE = b"in use\0"  # the first bytes of an encrypted file that this process has open
_CLOCK = "CREATE TABLE clock (only INTEGER PRIMARY KEY CHECK (only = 1), latest REAL NOT NULL)"
_SETTINGS = (
    "PRAGMA synchronous = FULL",  # what a commit acknowledged survives a power cut
    "PRAGMA secure_delete = ON",
    "PRAGMA temp_store = MEMORY",  # no plain text in temporary files
    "PRAGMA foreign_keys = ON",
    "PRAGMA recursive_triggers = ON",  # REPLACE fires the triggers of DELETE
    "PRAGMA trusted_schema = OFF",
)


_opening = threading.Lock()
_open: WeakSet[Database] = WeakSet()  # by this process; changed and read under the lock


class Database:
    """A file of people's preferences, for any number of threads and processes at once.

    Writers take turns; readers see the file as it was when they began. A transaction that came to its end is on
    the disk.

    Args:
        path: the file; it is made where there is none.
        key: encrypts it; None: it is plain. SQLCipher is asked for only with a key.
        clock: seconds since 1970.

    Raises:
        DatabaseError: if the file is not ours, is damaged, or key and file do not fit.
        ImportError: if there is a key, and the package sqlcipher3 is not installed.
    """

    def __init__(
        self, path: str | PathLike[str], key: Key | None = None, *, clock: Callable[[], float] = time.time
    ) -> None:
        self.path = Path(fspath(path))
        self._file = self.path.absolute()  # wherever the process goes, and never one of SQLite's URIs
        self._clock = Clock(clock)
        self._process = os.getpid()
        self._idle: list[sqlite3.Connection] = []  # readers that nobody uses at present
        self._closed = False
        self._module: Any = sqlite3 if key is None else _sqlcipher()
        self._derived: keys.Derived | None = None
        with _opening:
            try:
                doubt = self._prepare(key)
            except OSError as error:
                raise DatabaseError(f"{self.path} cannot be opened: {error.strerror}") from error
            with self._told(doubt):
                connection = self._connect()
                try:
                    _make_ours(connection, self.path)
                    _write_ahead(connection, self.path)
                except BaseException:
                    connection.close()
                    raise
            self._writer = Writer(connection, self._clock)
            self._inode = self._found()
            _open.add(self)
        if self._derived is not None:
            keys.make_verifier(self._file, self._derived)

    def __repr__(self) -> str:
        return f"Database({str(self.path)!r}, {'encrypted' if self.encrypted else 'plain'})"

    @property
    def encrypted(self) -> bool:
        """Whether the file is."""
        return self._derived is not None

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Give a connection to read and write through; all of it is kept at the end, or nothing after an error.

        Raises:
            ConflictError: if a constraint refused a row.
            DatabaseError: if the file cannot be written or was taken away, or this thread is in a transaction
                already: hand its connection on instead.
        """
        self._check_usable()
        with self._told(), self._writer.transaction() as connection:
            yield connection
        self._check_place()  # or it may have been kept in a file that is gone

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Give a connection to read through, which sees one state of the file; writing is an error.

        Raises:
            DatabaseError: if the file cannot be read.
        """
        self._check_usable()
        with self._told():
            try:
                connection = self._idle.pop()
            except IndexError:
                connection = self._connect()
                connection.execute("PRAGMA query_only = ON")
            sound = False
            try:
                connection.execute("BEGIN")
                self._clock.read(connection)
                yield connection
                connection.execute("ROLLBACK")
                sound = True
            except self._errors() as error:
                if kind_of(error) == sqlite3.SQLITE_READONLY:
                    raise DatabaseError("reading() is for reading: write in transaction()") from error
                raise
            finally:
                if sound and not self._closed:
                    self._idle.append(connection)
                else:
                    connection.close()

    def create(self, statements: Iterable[str]) -> None:
        """Make a room's tables; each statement says IF NOT EXISTS, since it runs whenever the room is opened.

        Raises:
            DatabaseError: if a statement is refused.
        """
        with self.transaction() as connection:
            for statement in statements:
                connection.execute(statement)

    def now(self) -> float:
        """Return the time in seconds since 1970; it never runs backwards, whatever the machine's clock does.

        Inside a transaction, it is no earlier than any time that was read in one before, by any process.
        """
        return self._clock.now()

    def scrub(self) -> None:
        """Write the file anew, so that no byte of what was deleted is left in it or beside it.

        Raises:
            DatabaseError: if other programs keep reading what was there before.
        """
        self._check_usable()
        with self._told():
            busy = self._writer.vacuum()
        if busy:
            raise DatabaseError(
                f"deleted rows of {self.path} may still stand in {self.path.name}-wal, which another program "
                "reads; stop it, then: text-envs feedback scrub"
            )

    def check(self) -> None:
        """Read the whole file and check that it is sound.

        Raises:
            DatabaseError: if it is damaged.
        """
        with self.reading() as connection:
            (found,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
            astray = connection.execute("PRAGMA foreign_key_check").fetchone()
        if found != "ok" or astray is not None:
            what = " ".join(found.split()) if found != "ok" else f"a row of {astray[0]!r} refers to nothing"
            raise DatabaseError(f"{self.path} is damaged: {what}; restore it from a backup")

    def close(self) -> None:
        """Close the file; a transaction under way in another thread comes to its end first."""
        if self._closed or self._process != os.getpid():
            return
        with self._writer.alone(), _opening:  # in this order: one may open another file within a transaction
            self._closed = True
            _open.discard(self)
            self._writer.connection.close()
            while self._idle:
                self._idle.pop().close()

    def __enter__(self) -> Database:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _prepare(self, key: Key | None) -> str:
        """Find out what is there and derive what opens it.

        Returns:
            Why the key might still be the wrong one; "" if it is not.
        """
        head = self._head()
        verifier = keys.verifier_path(self._file)
        if key is None:
            if head != _PLAIN and verifier.exists():
                raise DatabaseError(
                    f"{self.path} is encrypted ({verifier.name} is beside it), and no key was given: set "
                    f"{keys.ENVIRONMENT}, or name a key file"
                )
        elif head == _PLAIN:
            raise DatabaseError(f"{self.path} is not encrypted, but a key was given: open it without one")
        else:
            self._derived = keys.fits(self._file, key)
            if self._derived is None and not head:
                keys.make_verifier(self._file, keys.derive(key, keys.new_salt()))
                self._derived = keys.fits(self._file, key)  # its salt, should another process have been first
            if self._derived is None:
                self._derived = keys.derive(key, head)  # SQLCipher's salt stands there, and is ours
                return f"{verifier.name} is lost"
            if head not in (b"", self._derived.salt, _IN_USE):
                return f"{verifier.name} is another database's, or the first bytes are damaged"
        if not head:
            os.close(os.open(self._file, os.O_RDWR | os.O_CREAT, 0o600))  # for its owner only
        return ""

    def _head(self) -> bytes:
        """Return the first bytes of the file, none where there is no file or an empty one.

        A file that this process has open already is not opened here: to close it would take SQLite's locks away.
        """
        for other in _open:
            if os.path.exists(self._file) and os.path.exists(other._file) and self._file.samefile(other._file):
                return _IN_USE if other.encrypted else _PLAIN
        try:
            with open(self._file, "r+b") as file:
                head = file.read(len(_PLAIN))
        except FileNotFoundError:
            return b""
        if 0 < len(head) < len(_PLAIN):
            raise DatabaseError(f"{self.path} is damaged: it is too short for a database; restore it from a backup")
        return head

    def _connect(self) -> sqlite3.Connection:
        connection = self._module.connect(
            self._file, timeout=PATIENCE, isolation_level=None, check_same_thread=False
        )
        try:
            if self._derived is not None:
                connection.execute("PRAGMA cipher_log_level = NONE")  # it would write to the standard error
                connection.execute(f"PRAGMA key = \"x'{self._derived.cipher.text}'\"")
            for setting in _SETTINGS:
                connection.execute(setting)
        except BaseException:
            connection.close()
            raise
        return connection

    def _errors(self) -> tuple[type[Exception], ...]:
        return (sqlite3.Error,) if self._module is sqlite3 else (sqlite3.Error, self._module.Error)

    @contextmanager
    def _told(self, doubt: str = "") -> Iterator[None]:
        """Turn what either database module raises into an error that says what to do.

        Args:
            doubt: why the key might be the wrong one; "" if it is not.
        """
        try:
            yield
        except self._errors() as error:
            raise told(error, self.path, encrypted=self.encrypted, doubt=doubt) from error

    def _check_usable(self) -> None:
        if self._closed:
            raise DatabaseError(f"{self.path} was closed; open it again")
        if self._process != os.getpid():
            raise DatabaseError(
                f"{self.path} was opened in another process (this one is a fork); open it again in this one"
            )
        self._check_place()

    def _check_place(self) -> None:
        if self._found() != self._inode:
            raise DatabaseError(
                f"{self.path} was moved, removed or replaced while it was open here; nothing is kept any more: "
                "stop what has it open, put the file back, with its -wal if there is one, and open it again"
            )

    def _found(self) -> tuple[int, int] | None:
        """Return which file has our name, None for none: SQLite would go on writing to one without a name."""
        try:
            found = os.stat(self._file)
        except OSError:
            return None
        return found.st_dev, found.st_ino


def _sqlcipher() -> Any:
    try:
        from sqlcipher3 import dbapi2
    except ImportError as error:
        raise missing("an encrypted database", "sqlcipher3", "feedback") from error
    return dbapi2


def _make_ours(connection: sqlite3.Connection, path: Path) -> None:
    """Mark a new file as ours; refuse one of another kind.

    Raises:
        DatabaseError: if the file is something else, or made by a newer version.
    """
    if connection.execute("PRAGMA application_id").fetchone()[0] != OURS:
        connection.execute("BEGIN IMMEDIATE")  # another process may be making it at this moment
        mark = connection.execute("PRAGMA application_id").fetchone()[0]
        if mark != OURS:
            if mark or connection.execute("SELECT name FROM sqlite_master").fetchone():
                raise DatabaseError(f"{path} is a database, but not of people's preferences; name another path")
            connection.execute(_CLOCK)
            connection.execute("INSERT INTO clock VALUES (1, 0)")
            connection.execute(f"PRAGMA user_version = {FORMAT}")
            connection.execute(f"PRAGMA application_id = {OURS}")
        connection.execute("COMMIT")
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version != FORMAT:
        raise DatabaseError(
            f"{path} has format {version}, and this version of text-envs reads {FORMAT}: use the one that made it"
        )


def _write_ahead(connection: sqlite3.Connection, path: Path) -> None:
    """Let readers and a writer work side by side.

    Raises:
        DatabaseError: if the file system cannot.
    """
    (mode,) = patiently(connection, "PRAGMA journal_mode = WAL")
    if mode != "wal":
        raise DatabaseError(
            f"{path} is on a file system that cannot share it (journal mode {mode}); use a local one"
        )
