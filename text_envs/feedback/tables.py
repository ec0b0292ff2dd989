"""The tables of pairs, comparisons and ratings, and what is done to single rows of them.

Who annotates is in people.py. Functions here run within a transaction of `Database.transaction`.
"""

from __future__ import annotations

import hashlib
import json
import operator
import sqlite3
from typing import SupportsIndex

from .people import Person
from .records import Choice, Completion, Pair

TABLES = (
    """CREATE TABLE IF NOT EXISTS completions (
        id INTEGER PRIMARY KEY,
        prompt TEXT NOT NULL,
        text TEXT NOT NULL,
        policy TEXT,
        digest BLOB NOT NULL UNIQUE
    )""",
    """CREATE TABLE IF NOT EXISTS pairs (
        id INTEGER PRIMARY KEY,
        a INTEGER NOT NULL REFERENCES completions(id),
        b INTEGER NOT NULL REFERENCES completions(id),
        UNIQUE (a, b)
    )""",
    """CREATE TABLE IF NOT EXISTS comparisons (
        id INTEGER PRIMARY KEY,
        pair INTEGER NOT NULL REFERENCES pairs(id),
        annotator INTEGER NOT NULL REFERENCES annotators(id) ON DELETE CASCADE,
        choice TEXT NOT NULL CHECK (choice IN ('a', 'b', 'tie')),
        at REAL NOT NULL,
        seconds REAL,
        UNIQUE (pair, annotator)
    )""",
    "CREATE INDEX IF NOT EXISTS comparisons_annotator ON comparisons (annotator)",
    """CREATE TABLE IF NOT EXISTS skips (
        pair INTEGER NOT NULL REFERENCES pairs(id),
        annotator INTEGER NOT NULL REFERENCES annotators(id) ON DELETE CASCADE,
        at REAL NOT NULL,
        PRIMARY KEY (annotator, pair)
    ) WITHOUT ROWID""",
    """CREATE TABLE IF NOT EXISTS ratings (
        id INTEGER PRIMARY KEY,
        completion INTEGER NOT NULL REFERENCES completions(id),
        annotator INTEGER NOT NULL REFERENCES annotators(id) ON DELETE CASCADE,
        value REAL NOT NULL,
        at REAL NOT NULL,
        seconds REAL,
        UNIQUE (completion, annotator)
    )""",
    "CREATE INDEX IF NOT EXISTS ratings_annotator ON ratings (annotator)",
)


def completion_id(connection: sqlite3.Connection, completion: Completion) -> int:
    """Return a completion's id, having added it if it was not there."""
    identity = completion.prompt, completion.text, completion.policy
    digest = digest_of(*identity)  # an index of whole texts would double the file
    row = connection.execute("SELECT id FROM completions WHERE digest = ?", (digest,)).fetchone()
    if row is not None:
        return row[0]
    added = connection.execute(
        "INSERT INTO completions (prompt, text, policy, digest) VALUES (?, ?, ?, ?)", (*identity, digest)
    )
    return added.lastrowid or 0


def digest_of(prompt: str, text: str, policy: str | None) -> bytes:
    """Return the SHA-256 that stands for a completion."""
    return hashlib.sha256(json.dumps([prompt, text, policy]).encode()).digest()


def pair_id(connection: sqlite3.Connection, pair: Pair) -> tuple[int, bool]:
    """Return a pair's id, having added it if it was not there, and whether it is there the other way round."""
    a, b = (completion_id(connection, completion) for completion in pair.completions)
    for ends, swapped in (((a, b), False), ((b, a), True)):
        row = connection.execute("SELECT id FROM pairs WHERE a = ? AND b = ?", ends).fetchone()
        if row is not None:
            return row[0], swapped
    return connection.execute("INSERT INTO pairs (a, b) VALUES (?, ?)", (a, b)).lastrowid or 0, False


def known_id(connection: sqlite3.Connection, table: str, id: SupportsIndex) -> int:
    """Return an id after checking that a table has it.

    Raises:
        ValueError: if it has not.
    """
    id = operator.index(id)
    found = -(2**63) <= id < 2**63 and connection.execute(f"SELECT 1 FROM {table} WHERE id = ?", (id,)).fetchone()
    if not found:
        raise ValueError(f"no {table.removesuffix('s')} has the id {id!r}")
    return id


def answer(connection: sqlite3.Connection, pair: int, person: Person) -> Choice | None:
    """Return what somebody said to a pair, None for nothing."""
    query = "SELECT choice FROM comparisons WHERE pair = ? AND annotator = ?"
    row = connection.execute(query, (pair, person.id)).fetchone()
    return row and row[0]


def rating(connection: sqlite3.Connection, completion: int, person: Person) -> float | None:
    """Return somebody's rating of a completion, None for none."""
    query = "SELECT value FROM ratings WHERE completion = ? AND annotator = ?"
    row = connection.execute(query, (completion, person.id)).fetchone()
    return row and row[0]


def keep_answer(
    connection: sqlite3.Connection, pair: int, person: Person, choice: Choice, at: float, seconds: float | None
) -> None:
    """Keep somebody's answer to a pair in place of what they said of it before."""
    connection.execute("DELETE FROM skips WHERE annotator = ? AND pair = ?", (person.id, pair))
    connection.execute(
        "INSERT OR REPLACE INTO comparisons (pair, annotator, choice, at, seconds) VALUES (?, ?, ?, ?, ?)",
        (pair, person.id, choice, float(at), seconds if seconds is None else float(seconds)),
    )


def keep_rating(
    connection: sqlite3.Connection, completion: int, person: Person, value: float, at: float, seconds: float | None
) -> None:
    """Keep somebody's rating of a completion in place of an earlier one."""
    connection.execute(
        "INSERT OR REPLACE INTO ratings (completion, annotator, value, at, seconds) VALUES (?, ?, ?, ?, ?)",
        (completion, person.id, float(value), float(at), seconds if seconds is None else float(seconds)),
    )
