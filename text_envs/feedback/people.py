"""Who annotates: the one table that has names, and how somebody is forgotten.

Everything else refers to a row of it. What other rooms know of a person (an account, a session) goes with the row
if their tables say `REFERENCES annotators(id) ON DELETE CASCADE`.
"""

from __future__ import annotations

import re
import secrets
import sqlite3
from typing import Literal, NamedTuple

from . import audit
from .records import Forgotten, checked_name

How = Literal["delete", "anonymise"]
ACTIONS: dict[How, str] = {"delete": "forget", "anonymise": "anonymise"}  # what the audit calls them
DAY = 86_400
TABLES = (
    # AUTOINCREMENT: the id of somebody who was forgotten never becomes another's.
    """CREATE TABLE IF NOT EXISTS annotators (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        pseudonym TEXT NOT NULL UNIQUE,
        name TEXT UNIQUE
    )""",
)
_PSEUDONYM = re.compile("p-[0-9a-f]{16}")


class Person(NamedTuple):
    """A row of the table; name is None where only the pseudonym is known."""

    id: int
    pseudonym: str
    name: str | None


def enrol(connection: sqlite3.Connection, name: str) -> Person:
    """Return the person of a name, who is new if nobody has it.

    Raises:
        ValueError: if it cannot be a name, or looks like a pseudonym.
    """
    name = checked_name(name)
    if _PSEUDONYM.fullmatch(name):
        raise ValueError(f"{name!r} looks like a pseudonym; take another name")
    return _find(connection, "name", name) or _add(connection, _new_pseudonym(), name)


def identify(connection: sqlite3.Connection, who: str) -> Person:
    """Return the person of a name or a pseudonym, who is new if nobody has it.

    Raises:
        Forgotten: if it is the pseudonym of somebody who was forgotten.
        ValueError: if it can be neither.
    """
    if not isinstance(who, str) or not _PSEUDONYM.fullmatch(who):
        return enrol(connection, who)
    person = _find(connection, "pseudonym", who)
    if person is None and audit.has(connection, tuple(ACTIONS.values()), who):
        raise Forgotten(f"{who} was forgotten here")
    return person or _add(connection, who, None)


def find(connection: sqlite3.Connection, who: str) -> Person | None:
    """Return the person of a name or a pseudonym, None if nobody has it."""
    if _PSEUDONYM.fullmatch(who):
        return _find(connection, "pseudonym", who)
    return _find(connection, "name", checked_name(who))


def remove(connection: sqlite3.Connection, person: Person, how: How) -> None:
    """Remove a person and what refers to them.

    Args:
        connection: of a transaction.
        person: who is to be forgotten.
        how: "delete" removes their answers too; "anonymise" keeps answers under a new pseudonym that nothing leads
            to, with the day as their time.
    """
    if how == "anonymise":
        nobody = _add(connection, _new_pseudonym(), None)
        for table in ("comparisons", "ratings"):
            connection.execute(
                f"UPDATE {table} SET annotator = ?, at = CAST(at / {DAY} AS INTEGER) * {DAY}.0 WHERE annotator = ?",
                (nobody.id, person.id),
            )
    connection.execute("DELETE FROM annotators WHERE id = ?", (person.id,))


def _find(connection: sqlite3.Connection, column: str, value: str) -> Person | None:
    row = connection.execute(f"SELECT id, pseudonym, name FROM annotators WHERE {column} = ?", (value,)).fetchone()
    return row and Person(*row)


def _add(connection: sqlite3.Connection, pseudonym: str, name: str | None) -> Person:
    values = pseudonym, name
    added = connection.execute("INSERT INTO annotators (pseudonym, name) VALUES (?, ?)", values)
    return Person(added.lastrowid or 0, pseudonym, name)


def _new_pseudonym() -> str:
    return f"p-{secrets.token_hex(8)}"
