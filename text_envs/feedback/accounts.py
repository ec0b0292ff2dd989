"""Who may enter: annotators with a password and a role. Sessions and counted attempts live elsewhere."""

from __future__ import annotations

import secrets
import sqlite3
import unicodedata
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from ..rewards.packages import missing
from . import people
from .records import checked_name
from .store import Store

if TYPE_CHECKING:
    from argon2 import PasswordHasher

ANNOTATOR, ADMIN = "annotator", "admin"
ROLES = (ANNOTATOR, ADMIN)
SHORTEST_PASSWORD, LONGEST_PASSWORD = 10, 1_000

_TABLES = (
    """CREATE TABLE IF NOT EXISTS accounts (
        person INTEGER PRIMARY KEY REFERENCES annotators(id) ON DELETE CASCADE,
        role TEXT NOT NULL,
        created REAL NOT NULL,
        stamp BLOB NOT NULL UNIQUE,
        hash TEXT NOT NULL
    )""",
)
COLUMNS = "id, pseudonym, name, role, created, stamp"
_ACCOUNT = f"SELECT {COLUMNS}, hash FROM accounts JOIN annotators ON id = person"


@dataclass(frozen=True)
class Account:
    """An annotator who may enter.

    Attributes:
        id: the annotator's.
        pseudonym: what stands beside their answers.
        name: what they type.
        role: ANNOTATOR, who answers, or ADMIN, who also sees what all answered.
        created: seconds since 1970.
        stamp: random; a session is good for as long as its account has the stamp with which it began.
    """

    id: int
    pseudonym: str
    name: str
    role: str
    created: float
    stamp: bytes

    @property
    def person(self) -> people.Person:
        """The annotator."""
        return people.Person(self.id, self.pseudonym, self.name)


class Accounts:
    """The accounts of a store's annotators.

    Args:
        store: whose annotators they are; one who is forgotten there has no account any more.
        hasher: how passwords are hashed; None: argon2-cffi's defaults, RFC 9106's for little memory. A hash made
            with other settings is renewed when its owner next enters.
    """

    def __init__(self, store: Store, hasher: PasswordHasher | None = None) -> None:
        self.store, self.database = store, store.database
        self.hasher = hasher or _default_hasher()
        self.database.create(_TABLES)

    def add(self, name: str, password: str, role: str = ANNOTATOR) -> None:
        """Make an account.

        Raises:
            ValueError: if the name is taken or cannot be one, the role is none, or the password too short or long.
        """
        if role not in ROLES:
            raise ValueError(f"role={role!r} is none of {', '.join(ROLES)}")
        hashed = self._hash(password)
        with self.database.transaction() as connection:
            person = self.store.enrol(name, connection)
            row = (person.id, role, self.database.now(), _stamp(), hashed)
            if not connection.execute("INSERT OR IGNORE INTO accounts VALUES (?, ?, ?, ?, ?)", row).rowcount:
                raise ValueError(f"{person.name!r} has an account; `account password` gives it a new password")
            self.store.log(connection, None, f"add {role}", person.pseudonym)

    def remove(self, name: str) -> None:
        """Take an account and its sessions away; what its owner answered stays.

        Raises:
            ValueError: if there is none of that name.
        """
        with self.database.transaction() as connection:
            person = self._person(connection, name)
            connection.execute("DELETE FROM accounts WHERE person = ?", (person.id,))
            self.store.log(connection, None, "remove account", person.pseudonym)

    def set_password(self, name: str, password: str) -> None:
        """Give an account a new password; its sessions end.

        Raises:
            ValueError: if there is none of that name, or the password is too short or long.
        """
        hashed = self._hash(password)
        with self.database.transaction() as connection:
            person = self._person(connection, name)
            values = (hashed, _stamp(), person.id)
            connection.execute("UPDATE accounts SET hash = ?, stamp = ? WHERE person = ?", values)
            self.store.log(connection, None, "new password", person.pseudonym)

    def revoke(self, name: str, by: Account | None = None) -> None:
        """End all sessions of an account.

        Args:
            name: whose.
            by: who does it; None: whoever runs the command line.

        Raises:
            ValueError: if there is no account of that name.
        """
        with self.database.transaction() as connection:
            person = self._person(connection, name)
            connection.execute("UPDATE accounts SET stamp = ? WHERE person = ?", (_stamp(), person.id))
            actor = None if by is None else by.person
            self.store.log(connection, actor, "end sessions", person.pseudonym)

    def all(self) -> list[Account]:
        """Return all accounts, by name."""
        with self.database.reading() as connection:
            return [Account(*row[:-1]) for row in connection.execute(f"{_ACCOUNT} ORDER BY name")]

    def verify(self, name: str, password: str) -> Account | None:
        """Return the account whose name and password these are, else None.

        A name that nobody has costs as much work as a wrong password, so that the time does not tell them apart.
        """
        from argon2.exceptions import InvalidHashError, VerificationError

        nobody = (self._hash_of_nobody,)
        with self.database.reading() as connection:
            row = connection.execute(f"{_ACCOUNT} WHERE name = ?", (normal(name),)).fetchone()
        *found, hashed = row or nobody
        try:
            self.hasher.verify(hashed, _typed(password))
        except (VerificationError, InvalidHashError):
            return None
        if not found:
            return None
        if self.hasher.check_needs_rehash(hashed):
            renewed = (self.hasher.hash(_typed(password)), found[0], hashed)
            with self.database.transaction() as connection:
                connection.execute("UPDATE accounts SET hash = ? WHERE person = ? AND hash = ?", renewed)
        return Account(*found)

    @cached_property
    def _hash_of_nobody(self) -> str:
        return self.hasher.hash(secrets.token_hex())

    def _hash(self, password: str) -> str:
        if not SHORTEST_PASSWORD <= len(password) <= LONGEST_PASSWORD:
            raise ValueError(
                f"a password has {SHORTEST_PASSWORD} to {LONGEST_PASSWORD:,} characters, this one {len(password):,}"
            )
        return self.hasher.hash(_typed(password))

    def _person(self, connection: sqlite3.Connection, name: str) -> people.Person:
        """Return the annotator of an account.

        Raises:
            ValueError: if there is none of that name.
        """
        known = {row[2]: people.Person(*row[:3]) for row in connection.execute(_ACCOUNT)}
        if normal(name) not in known:
            raise ValueError(f"nobody called {name!r} has an account; those who have: {sorted(known)}")
        return known[normal(name)]


def normal(name: str) -> str:
    """Return a name that somebody typed as it would be stored; "" if it cannot be anybody's."""
    try:
        return checked_name(name)
    except ValueError:
        return ""


def _typed(password: str) -> bytes:
    """Return the bytes of a password, which keyboards may compose in one way or another."""
    return unicodedata.normalize("NFC", password[: LONGEST_PASSWORD + 1]).encode("utf-8", "surrogatepass")


def _stamp() -> bytes:
    return secrets.token_bytes(16)


def _default_hasher() -> PasswordHasher:
    try:
        from argon2 import PasswordHasher
    except ImportError as error:
        raise missing("an account", "argon2-cffi", "feedback") from error
    return PasswordHasher()
