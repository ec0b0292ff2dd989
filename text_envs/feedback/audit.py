"""Who did what and when: a table that is only added to, in which each entry seals those before it.

It holds pseudonyms and counts, never a name, a text or a choice, so that a person can be forgotten without touching
it.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from .errors import DatabaseError

_REFUSE = "BEGIN SELECT RAISE(ABORT, 'the audit is only added to'); END"
TABLES = (
    """CREATE TABLE IF NOT EXISTS audit (
        number INTEGER PRIMARY KEY,
        at REAL NOT NULL,
        actor TEXT,
        action TEXT NOT NULL,
        subject TEXT,
        seal TEXT NOT NULL
    )""",
    f"CREATE TRIGGER IF NOT EXISTS audit_update BEFORE UPDATE ON audit {_REFUSE}",
    f"CREATE TRIGGER IF NOT EXISTS audit_delete BEFORE DELETE ON audit {_REFUSE}",
    # REPLACE would delete without asking the trigger above where a connection has no recursive triggers.
    "CREATE TRIGGER IF NOT EXISTS audit_insert BEFORE INSERT ON audit "
    f"WHEN NEW.number <= (SELECT max(number) FROM audit) {_REFUSE}",
)


class Entry(NamedTuple):
    """One entry.

    Attributes:
        number: from 1, without gaps.
        at: seconds since 1970.
        actor: a pseudonym; None: whoever runs the command line.
        action: such as "record".
        subject: what it was done to, such as "pair 5".
        seal: SHA-256 of the entry and the seal before it.
    """

    number: int
    at: float
    actor: str | None
    action: str
    subject: str | None
    seal: str


def append(
    connection: sqlite3.Connection, at: float, actor: str | None, action: str, subject: str | None = None
) -> None:
    """Add an entry within a transaction.

    Args:
        connection: of `Database.transaction`.
        at: seconds since 1970.
        actor: a pseudonym, never a name; None: whoever runs the command line.
        action: one word or two, such as "log in".
        subject: what it was done to, without personal data.
    """
    last = connection.execute("SELECT number, seal FROM audit ORDER BY number DESC LIMIT 1").fetchone()
    number, before = last or (0, "")
    at = float(at)  # a whole number would come back as one with a point, and break the seal
    seal = _seal(before, number + 1, at, actor, action, subject)
    connection.execute(
        "INSERT INTO audit VALUES (?, ?, ?, ?, ?, ?)", (number + 1, at, actor, action, subject, seal)
    )


def has(connection: sqlite3.Connection, actions: Sequence[str], subject: str) -> bool:
    """Return whether one of some actions was done to something."""
    marks = ", ".join("?" * len(actions))
    query = f"SELECT 1 FROM audit WHERE subject = ? AND action IN ({marks}) LIMIT 1"
    return connection.execute(query, (subject, *actions)).fetchone() is not None


def entries(connection: sqlite3.Connection) -> Iterator[Entry]:
    """Yield all entries in order."""
    return map(Entry._make, connection.execute("SELECT * FROM audit ORDER BY number"))


def verify(connection: sqlite3.Connection) -> Entry | None:
    """Return the last entry after checking that all fit together; None if there is none.

    Entries taken from the end leave no trace here: compare the number and the seal with those noted before.

    Raises:
        DatabaseError: if one was changed, removed or put in.
    """
    last = None
    for number, entry in enumerate(entries(connection), 1):
        if entry.number != number or entry.seal != _seal(last.seal if last else "", *entry[:-1]):
            raise DatabaseError(f"the audit was changed: entry {number} does not fit those before it")
        last = entry
    return last


def _seal(before: str, number: int, at: float, actor: str | None, action: str, subject: str | None) -> str:
    return hashlib.sha256(json.dumps([before, number, at, actor, action, subject]).encode()).hexdigest()
