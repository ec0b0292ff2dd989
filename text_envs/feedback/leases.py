"""Who is shown which pair: a lease with an end, so that no two browsers have the same one open.

Which side a completion stands on is drawn for each showing and remembered here; the browser only knows the lease's
random name.
"""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from .records import Choice, swap
from .sessions import Session
from .store import Store

SECONDS = 600.0
Said = Literal["1", "2", "0", "skip"]
Outcome = Literal["kept", "not yours", "answered before", "too late"]
_CHOICES: dict[str, Choice] = {"1": "a", "2": "b", "0": "tie"}

_TABLES = (
    """CREATE TABLE IF NOT EXISTS leases (
        id TEXT PRIMARY KEY,
        session BLOB NOT NULL REFERENCES sessions(token) ON DELETE CASCADE,
        person INTEGER NOT NULL REFERENCES annotators(id) ON DELETE CASCADE,
        pair INTEGER NOT NULL REFERENCES pairs(id),
        swapped INTEGER NOT NULL,
        began REAL NOT NULL,
        ends REAL NOT NULL,
        replaces INTEGER NOT NULL,
        closed TEXT
    )""",
    "CREATE INDEX IF NOT EXISTS leases_open ON leases (pair) WHERE closed IS NULL",
    "CREATE INDEX IF NOT EXISTS leases_open_of ON leases (session, began) WHERE closed IS NULL",
    "CREATE INDEX IF NOT EXISTS leases_of ON leases (session, began)",
    "CREATE INDEX IF NOT EXISTS leases_person ON leases (person)",
)
_LEASE = "SELECT id, pair, swapped, began, ends, replaces, closed FROM leases"
# A pair p has room if fewer have answered it, or have it open, than are to answer it. Who goes back to an answer of
# theirs takes no more room by that.
_ROOM = """(SELECT count(*) FROM comparisons WHERE pair = p.id)
    + (SELECT count(*) FROM leases
       WHERE pair = p.id AND closed IS NULL AND ends > :now AND NOT replaces AND id != :id) < :wanted"""
_MINE = """EXISTS (SELECT 1 FROM comparisons WHERE pair = p.id AND annotator = :me)
    OR EXISTS (SELECT 1 FROM leases WHERE pair = p.id AND closed IS NULL AND ends > :now AND person = :me)"""
_FRESH = f"""SELECT p.id FROM pairs p WHERE p.id > :after AND {_ROOM} AND NOT ({_MINE})
    AND NOT EXISTS (SELECT 1 FROM skips WHERE annotator = :me AND pair = p.id) ORDER BY p.id LIMIT 1"""
_SKIPPED = f"""SELECT p.id FROM skips s JOIN pairs p ON p.id = s.pair
    WHERE s.annotator = :me AND {_ROOM} AND NOT ({_MINE}) ORDER BY s.at, p.id LIMIT 1"""


@dataclass(frozen=True)
class Lease:
    """A pair that a browser was shown.

    Attributes:
        id: random; what the browser's form carries.
        pair: the pair's id.
        swapped: whether b stands first.
        began: when it was first shown, in seconds since 1970.
        ends: when others may be shown it.
        replaces: whether the annotator has answered it before and went back to it.
        closed: what came of it: "answered", "skipped", "left"; None: it is open.
    """

    id: str
    pair: int
    swapped: bool
    began: float
    ends: float
    replaces: bool = False
    closed: str | None = None


class Leases:
    """The leases of a store's pairs.

    Args:
        store: whose pairs.
        wanted: how many annotators are to answer each pair.
        seconds: how long a pair is kept for a browser. A later answer counts if the pair has room still.
        coin: draws whether b stands first.
    """

    def __init__(
        self,
        store: Store,
        wanted: int = 1,
        seconds: float = SECONDS,
        coin: Callable[[], bool] = lambda: bool(secrets.randbits(1)),
    ) -> None:
        self.store, self.database = store, store.database
        self.wanted, self.seconds, self.coin = wanted, seconds, coin
        self._searched: dict[int, int] = {}  # person -> the pair up to which they were given all that was free
        self.database.create(_TABLES)

    def current(self, session: Session, skipped: bool = False) -> Lease | None:
        """Return the lease of a browser, a new one if it has none; None if nothing is left for its annotator.

        Args:
            session: the browser.
            skipped: whether pairs that the annotator skipped are shown again, after all others.
        """
        with self.database.reading() as connection:
            lease = self._last(connection, session, "closed IS NULL")
        if lease is not None and lease.ends > self.database.now():
            return lease
        with self.database.transaction() as connection:
            return self._current(connection, session, skipped)

    def answer(self, session: Session, id: str, said: Said, skipped: bool = False) -> Outcome:
        """Keep what an annotator said about a pair they were shown, and lease them the next one.

        Args:
            session: the browser.
            id: of the lease.
            said: which side is better, "0" if neither is, "skip" if they have no answer.
            skipped: as in `current`.

        Returns:
            "kept"; or why nothing was: the pair was not leased to this browser, its annotator has answered it, or
            the lease was over and others have the pair now.
        """
        with self.database.transaction() as connection:
            lease = self._last(connection, session, "id = ?", id)
            if lease is None:
                return "not yours"
            if lease.closed in ("answered", "skipped") or self._is_answered(connection, session, lease):
                self._close(connection, lease, lease.closed or "left")
                return "answered before"
            if lease.closed is not None or not self._is_free(connection, session, lease):
                self._close(connection, lease, "left")
                return "too late"
            self._keep(connection, session, lease, said)
            self._current(connection, session, skipped)
        return "kept"

    def back(self, session: Session) -> bool:
        """Lease a browser the pair it answered last once more; the answer stands until another takes its place.

        Returns:
            Whether there is one, and it is not open already.
        """
        with self.database.transaction() as connection:
            last = self._last_answer(connection, session)
            if last is None:
                return False
            self._lease(connection, session, last.pair, last.swapped, replaces=True)
        return True

    def can_go_back(self, session: Session) -> bool:
        """Return whether `back` would."""
        with self.database.reading() as connection:
            return self._last_answer(connection, session) is not None

    def elsewhere(self, session: Session) -> int:
        """Return how many pairs other annotators have open."""
        with self.database.reading() as connection:
            return connection.execute(
                "SELECT count(DISTINCT pair) FROM leases WHERE closed IS NULL AND ends > ? AND person != ?",
                (self.database.now(), session.account.id),
            ).fetchone()[0]

    def _current(self, connection: sqlite3.Connection, session: Session, skipped: bool) -> Lease | None:
        now = self.database.now()
        while lease := self._last(connection, session, "closed IS NULL"):
            answered = self._is_answered(connection, session, lease)
            if not answered and self._is_free(connection, session, lease):
                if lease.ends <= now:
                    lease = replace(lease, ends=now + self.seconds)
                    connection.execute("UPDATE leases SET ends = ? WHERE id = ?", (lease.ends, lease.id))
                return lease
            self._close(connection, lease, "left")
        pair = self._next(connection, session, skipped)
        return None if pair is None else self._lease(connection, session, pair, self.coin())

    def _next(self, connection: sqlite3.Connection, session: Session, skipped: bool) -> int | None:
        """Return a pair that is free: after the one that was found before, so that none is looked at twice."""
        me = session.account.id
        before = self._searched.get(me, 0)
        searches = [(_FRESH, before), *([(_FRESH, 0)] if before else []), *([(_SKIPPED, 0)] if skipped else [])]
        for query, after in searches:
            row = connection.execute(query, {**self._asked(session), "after": after}).fetchone()
            if row is not None:
                self._searched[me] = row[0] if query is _FRESH else before
                return row[0]
        return None

    def _lease(
        self, connection: sqlite3.Connection, session: Session, pair: int, swapped: bool, replaces: bool = False
    ) -> Lease:
        now = self.database.now()
        lease = Lease(secrets.token_urlsafe(16), pair, swapped, now, now + self.seconds, replaces)
        connection.execute(
            "INSERT INTO leases VALUES (?, ?, ?, ?, ?, ?, ?, ?, NULL)",
            (lease.id, session.hash, session.account.id, pair, swapped, now, lease.ends, replaces),
        )
        return lease

    def _keep(self, connection: sqlite3.Connection, session: Session, lease: Lease, said: Said) -> None:
        name = session.account.name
        if said == "skip":
            if not lease.replaces:
                self.store.skip(lease.pair, name, connection)
            return self._close(connection, lease, "skipped")
        choice = swap(_CHOICES[said]) if lease.swapped else _CHOICES[said]
        seconds = self.database.now() - lease.began
        self.store.record(lease.pair, name, choice, seconds, replace=lease.replaces, connection=connection)
        self._close(connection, lease, "answered")

    def _is_answered(self, connection: sqlite3.Connection, session: Session, lease: Lease) -> bool:
        """Return whether the annotator has answered the pair and does not want to change that."""
        query = "SELECT 1 FROM comparisons WHERE pair = ? AND annotator = ?"
        values = (lease.pair, session.account.id)
        return not lease.replaces and connection.execute(query, values).fetchone() is not None

    def _is_free(self, connection: sqlite3.Connection, session: Session, lease: Lease) -> bool:
        """Return whether the pair has room for an answer, as it does while the lease is live."""
        query = f"SELECT 1 FROM pairs p WHERE p.id = :pair AND {_ROOM}"
        asked = {**self._asked(session), "id": lease.id, "pair": lease.pair}
        return lease.replaces or connection.execute(query, asked).fetchone() is not None

    def _asked(self, session: Session) -> dict[str, float | int | str]:
        return {"now": self.database.now(), "me": session.account.id, "wanted": self.wanted, "id": ""}

    def _last_answer(self, connection: sqlite3.Connection, session: Session) -> Lease | None:
        shown = self._last(connection, session, "closed IS NULL")
        if shown is not None and shown.replaces:
            return None
        return self._last(connection, session, "closed = 'answered'")

    def _last(self, connection: sqlite3.Connection, session: Session, condition: str, *values: str) -> Lease | None:
        """Return the last lease of a browser for which something holds."""
        query = f"{_LEASE} WHERE session = ? AND {condition} ORDER BY began DESC, rowid DESC LIMIT 1"
        row = connection.execute(query, (session.hash, *values)).fetchone()
        if row is None:
            return None
        id, pair, swapped, began, ends, replaces, closed = row
        return Lease(id, pair, bool(swapped), began, ends, bool(replaces), closed)

    def _close(self, connection: sqlite3.Connection, lease: Lease, how: str) -> None:
        connection.execute("UPDATE leases SET closed = ? WHERE id = ?", (how, lease.id))
