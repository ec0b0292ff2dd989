"""Wrong logins, counted by account and by address: a pause that doubles with each one too many."""

from __future__ import annotations

import hashlib
import ipaddress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .accounts import normal
from .database import Database

if TYPE_CHECKING:
    from sqlite3 import Connection

FREE_BY_NAME, FREE_BY_ADDRESS = 5, 50
LONGEST_PAUSE = 900.0
_FORGOTTEN_AFTER = 3600.0  # seconds without a try

_TABLES = (
    """CREATE TABLE IF NOT EXISTS attempts (
        key BLOB PRIMARY KEY, count INTEGER NOT NULL, last REAL NOT NULL
    ) WITHOUT ROWID""",
)


class TooManyAttempts(Exception):
    """A login that is not even looked at.

    Attributes:
        seconds: until one is looked at again.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__(f"too many wrong logins; wait {seconds:.0f} seconds")
        self.seconds = seconds


@dataclass(frozen=True)
class Attempts:
    """The counted attempts of a database.

    An attempt counts as wrong from its start, so that a hundred at once get no further than a hundred in a row, and
    is taken back when the password was right. One that is refused does not count. Names that no account has are
    counted as those that one has, so that a refusal tells nobody which is which.

    Attributes:
        database: where they are kept.
        by_name: wrong ones in a row that an account may have before a pause.
        by_address: the same of an address, behind which many people may sit.
    """

    database: Database
    by_name: int = FREE_BY_NAME
    by_address: int = FREE_BY_ADDRESS

    def __post_init__(self) -> None:
        self.database.create(_TABLES)

    def start(self, name: str, address: str) -> None:
        """Count an attempt.

        Raises:
            TooManyAttempts: if name or address must wait.
        """
        with self.database.transaction() as connection:
            now = self.database.now()
            connection.execute("DELETE FROM attempts WHERE last <= ?", (now - _FORGOTTEN_AFTER,))
            keys = self._keys(name, address)
            wait = max(self._wait(connection, key, free, now) for key, free in keys)
            if wait > 0:
                raise TooManyAttempts(wait)
            for key, _ in keys:
                connection.execute(
                    """INSERT INTO attempts VALUES (?, 1, ?)
                       ON CONFLICT (key) DO UPDATE SET count = count + 1, last = excluded.last""",
                    (key, now),
                )

    def succeeded(self, name: str, address: str) -> None:
        """Forget an account's wrong attempts, and take this one back from its address.

        What else the address did stays counted: who has one account could else clear the way to others.
        """
        (by_name, _), (by_address, _) = self._keys(name, address)
        with self.database.transaction() as connection:
            connection.execute("DELETE FROM attempts WHERE key = ?", (by_name,))
            connection.execute("UPDATE attempts SET count = max(0, count - 1) WHERE key = ?", (by_address,))

    def _keys(self, name: str, address: str) -> tuple[tuple[bytes, int], tuple[bytes, int]]:
        return (_key("name", normal(name)), self.by_name), (_key("address", network(address)), self.by_address)

    def _wait(self, connection: Connection, key: bytes, free: int, now: float) -> float:
        count, last = connection.execute("SELECT count, last FROM attempts WHERE key = ?", (key,)).fetchone() or (
            0,
            now,
        )
        return 0.0 if count < free else last + pause(count - free) - now


def pause(excess: int) -> float:
    """Return the seconds to wait after some attempts too many: 1, 2, 4, ... up to LONGEST_PAUSE."""
    return min(LONGEST_PAUSE, 2.0 ** min(excess, 32))


def network(address: str) -> str:
    """Return what an address counts as: of the sixth version, the half that one customer is given."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv4Address) or found.ipv4_mapped:
        return str(getattr(found, "ipv4_mapped", None) or found)
    return str(ipaddress.ip_network((found, 64), strict=False))


def _key(kind: str, text: str) -> bytes:
    """Return what stands in the table: what people type into the wrong field is not kept as they typed it."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), person=kind.encode()).digest()
