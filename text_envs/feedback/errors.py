"""What the database modules raise, in words that say what to do."""

from __future__ import annotations

import sqlite3
from pathlib import Path


class DatabaseError(RuntimeError):
    """A database of people's preferences that cannot be opened, read or written; the message says why."""


class ConflictError(DatabaseError):
    """A constraint refused a row: it is there already, or refers to one that is not."""


def kind_of(error: Exception) -> int:
    """Return the kind of what either module raised, such as sqlite3.SQLITE_BUSY; 0: none of SQLite's."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF  # the other bytes say more


def told(error: Exception, path: Path, *, encrypted: bool, doubt: str) -> DatabaseError:
    """Return an error of sqlite3 or sqlcipher3 as ours.

    Args:
        error: what either module raised.
        path: of the database.
        encrypted: whether it was opened with a key.
        doubt: why the key might be the wrong one; "" if it is not.
    """
    code = kind_of(error)
    if code == sqlite3.SQLITE_CONSTRAINT:
        return ConflictError(f"{path} refused a row: {error}")
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        if doubt:
            return DatabaseError(
                f"wrong key for {path}, or it is damaged; one cannot tell: {doubt}; restore both from a backup"
            )
        if encrypted:
            return DatabaseError(f"{path} is damaged (the key is right): {error}; restore it from a backup")
        return DatabaseError(
            f"{path} is damaged, or no database of people's preferences, or encrypted and its file "
            f"{path.name}.key.json is lost ({error}); it was left as it is: restore it from a backup, or give its "
            "key"
        )
    remedies = {
        sqlite3.SQLITE_FULL: "the disk is full; nothing of this transaction was kept: make room and do it again",
        sqlite3.SQLITE_READONLY: "it, or its folder, may not be written: change its permissions, or copy it",
        sqlite3.SQLITE_CANTOPEN: "it cannot be opened: is its folder there, and may it be written?",
        sqlite3.SQLITE_BUSY: "other programs have been writing it for too long: do it again later",
        sqlite3.SQLITE_IOERR: "the disk failed or is full; nothing of this transaction was kept",
    }
    return DatabaseError(f"{path}: {remedies.get(code, 'the database refused')} ({error})")
