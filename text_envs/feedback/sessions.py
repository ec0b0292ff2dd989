"""Who is in: random tokens of which only the hash is stored, with an end, and taken back at any time."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass

from .accounts import COLUMNS, Account
from .store import Store

LONGEST = 12 * 3600.0
IDLE = 3600.0
MOST = 10  # of an account at once: each may have a pair open, which others then do not get
_NOTED_EVERY = 60.0  # a session in use is written to this seldom

_TABLES = (
    """CREATE TABLE IF NOT EXISTS sessions (
        token BLOB PRIMARY KEY, stamp BLOB NOT NULL, began REAL NOT NULL, seen REAL NOT NULL
    ) WITHOUT ROWID""",
)
_LIVE = "began > ? AND seen > ?"


@dataclass(frozen=True)
class Session:
    """A browser that is in.

    Attributes:
        hash: of its token, which itself is not stored; the session's name in other tables.
        account: who it is.
        csrf: what its forms must carry; it follows from the token, so that no other session's will do.
    """

    hash: bytes
    account: Account
    csrf: str


class Sessions:
    """The sessions of the accounts of a store's annotators.

    Args:
        store: whose annotators they are.
        longest: seconds after which one ends, whatever it does.
        idle: seconds without a request after which one ends.
    """

    def __init__(self, store: Store, longest: float = LONGEST, idle: float = IDLE) -> None:
        self.store, self.database = store, store.database
        self.longest, self.idle = longest, idle
        self.database.create(_TABLES)

    def begin(self, account: Account, replaced: str = "") -> str:
        """Return the token of a new session; an account's oldest ends if there are too many.

        Args:
            account: whose it is.
            replaced: a token that the browser showed before; it is worth nothing afterwards.
        """
        token = secrets.token_urlsafe(32)
        with self.database.transaction() as connection:
            now = self.database.now()
            connection.execute(
                f"DELETE FROM sessions WHERE NOT ({_LIVE}) OR token = ?", (*self._ends(now), _hash(replaced))
            )
            connection.execute(
                """DELETE FROM sessions WHERE stamp = :stamp AND token NOT IN
                   (SELECT token FROM sessions WHERE stamp = :stamp ORDER BY began DESC LIMIT :rest)""",
                {"stamp": account.stamp, "rest": MOST - 1},
            )
            connection.execute("INSERT INTO sessions VALUES (?, ?, ?, ?)", (_hash(token), account.stamp, now, now))
            self.store.log(connection, account.person, "log in")
        return token

    def find(self, token: str) -> Session | None:
        """Return the session of a token; None if it is forged, over or taken back, or its account is gone."""
        hashed, now = _hash(token), self.database.now()
        with self.database.reading() as connection:
            row = connection.execute(
                f"""SELECT {COLUMNS}, seen
                    FROM sessions JOIN accounts USING (stamp) JOIN annotators ON id = person
                    WHERE token = ? AND {_LIVE}""",
                (hashed, *self._ends(now)),
            ).fetchone()
        if row is None:
            return None
        *account, seen = row
        if now - seen >= min(_NOTED_EVERY, self.idle / 2):
            with self.database.transaction() as connection:
                connection.execute("UPDATE sessions SET seen = max(seen, ?) WHERE token = ?", (now, hashed))
        return Session(hashed, Account(*account), _csrf(token))

    def end(self, session: Session) -> None:
        """Take one session back."""
        with self.database.transaction() as connection:
            connection.execute("DELETE FROM sessions WHERE token = ?", (session.hash,))
            self.store.log(connection, session.account.person, "log out")

    def count(self) -> dict[str, int]:
        """Return name -> how many of its browsers are in."""
        with self.database.reading() as connection:
            rows = connection.execute(
                f"""SELECT name, count(*) FROM sessions JOIN accounts USING (stamp) JOIN annotators ON id = person
                    WHERE {_LIVE} GROUP BY name""",
                self._ends(self.database.now()),
            )
            return dict(rows.fetchall())

    def _ends(self, now: float) -> tuple[float, float]:
        return now - self.longest, now - self.idle


def _hash(token: str) -> bytes:
    """Return what is stored of a token: as it is random and long, nobody can guess it from a plain hash."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


def _csrf(token: str) -> str:
    return hmac.new(token.encode("utf-8", "surrogatepass"), b"csrf", "sha256").hexdigest()
