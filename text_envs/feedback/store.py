"""Pairs, comparisons and ratings in a database.

Their tables are in tables.py, who annotates in people.py, what was done in audit.py, files in exchange.py.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple, get_args

from . import audit, people, tables
from .database import Database, DatabaseError
from .records import (
    AlreadyAnswered,
    Choice,
    Comparison,
    Completion,
    Pair,
    Rating,
    checked_choice,
    checked_number,
    checked_seconds,
    swap,
)

_PAIR = "x.prompt, x.text, y.text, x.policy, y.policy, p.id"
_PAIRS = "pairs p JOIN completions x ON x.id = p.a JOIN completions y ON y.id = p.b"
_AT_ONCE = 50  # rows that are read in one go, since texts may be long


class Answer(NamedTuple):
    """An answer without its texts.

    Attributes:
        pair: its id.
        annotator: a pseudonym.
    """

    pair: int
    annotator: str
    choice: Choice


@dataclass(frozen=True)
class Progress:
    """How far the work is.

    Attributes:
        pairs: to be compared.
        answered: pairs that somebody has compared.
        comparisons: answers to them.
        skipped: times that somebody had no answer.
    """

    pairs: int
    answered: int
    comparisons: int
    skipped: int


@dataclass(frozen=True)
class Counts:
    """What one annotator did; `name` is None for one of whom only the pseudonym is known."""

    pseudonym: str
    name: str | None
    comparisons: int
    ties: int
    skipped: int
    ratings: int


class Store:
    """People's preferences, kept in a database.

    An annotator is given by name; answers show a pseudonym, which is drawn at random when the name first comes.

    A method with `connection` does its work within that transaction of `Database.transaction`; with None, in one of
    its own.
    """

    def __init__(self, database: Database) -> None:
        self.database = database
        database.create((*people.TABLES, *audit.TABLES, *tables.TABLES))

    def add_completions(self, completions: Iterable[Completion]) -> list[int]:
        """Add completions to be rated and return their ids; one that is there already keeps its id."""
        with self.database.transaction() as connection:
            ids = [tables.completion_id(connection, completion) for completion in completions]
            self.log(connection, None, "add completions", f"{len(ids)} completions")
        return ids

    def add_pairs(self, pairs: Iterable[Pair]) -> list[int]:
        """Add pairs to be compared and return their ids; one that is there, either way round, keeps its id."""
        with self.database.transaction() as connection:
            ids = [tables.pair_id(connection, pair)[0] for pair in pairs]
            self.log(connection, None, "add pairs", f"{len(ids)} pairs")
        return ids

    def pair(self, id: int, connection: sqlite3.Connection | None = None) -> Pair:
        """Return a pair.

        Raises:
            ValueError: if there is none with this id.
        """
        with self._reading(connection) as connection:
            id = tables.known_id(connection, "pairs", id)
            row = connection.execute(f"SELECT {_PAIR} FROM {_PAIRS} WHERE p.id = ?", (id,)).fetchone()
        return Pair(*row)

    def enrol(self, name: str, connection: sqlite3.Connection | None = None) -> people.Person:
        """Return the person of a name (id, pseudonym, name), who is new if nobody has it.

        Raises:
            ValueError: if it cannot be a name.
        """
        with self._writing(connection) as connection:
            return people.enrol(connection, name)

    def record(
        self,
        pair_id: int,
        annotator: str,
        choice: Choice,
        seconds: float | None = None,
        *,
        replace: bool = False,
        connection: sqlite3.Connection | None = None,
    ) -> None:
        """Keep an annotator's answer to a pair.

        Args:
            pair_id: as `add_pairs` returned it.
            annotator: their name.
            choice: "a", "b" or "tie".
            seconds: how long it took.
            replace: whether an earlier answer of theirs gives way.
            connection: of a transaction to do it in; None: one of its own.

        Raises:
            AlreadyAnswered: if they have answered before, and it is not to be replaced.
            ValueError: if there is no such pair, or a value cannot be kept.
        """
        checked_choice(choice), checked_seconds(seconds)
        with self._writing(connection) as connection:
            pair_id = tables.known_id(connection, "pairs", pair_id)
            person = people.identify(connection, annotator)
            before = tables.answer(connection, pair_id, person)
            if before is not None and not replace:
                raise AlreadyAnswered(f"{annotator!r} has compared pair {pair_id} before; the first answer stands")
            tables.keep_answer(connection, pair_id, person, choice, self.database.now(), seconds)
            self.log(connection, person, "record" if before is None else "replace", f"pair {pair_id}")

    def skip(self, pair_id: int, annotator: str, connection: sqlite3.Connection | None = None) -> None:
        """Note that an annotator has no answer to a pair; an answer that comes later takes the note's place.

        Raises:
            AlreadyAnswered: if they have answered before.
            ValueError: if there is no such pair.
        """
        with self._writing(connection) as connection:
            pair_id = tables.known_id(connection, "pairs", pair_id)
            person = people.identify(connection, annotator)
            if tables.answer(connection, pair_id, person) is not None:
                raise AlreadyAnswered(f"{annotator!r} has compared pair {pair_id} before; the answer stands")
            values = pair_id, person.id, self.database.now()
            connection.execute("INSERT OR REPLACE INTO skips (pair, annotator, at) VALUES (?, ?, ?)", values)
            self.log(connection, person, "skip", f"pair {pair_id}")

    def rate(
        self,
        completion_id: int,
        annotator: str,
        value: float,
        seconds: float | None = None,
        *,
        replace: bool = False,
        connection: sqlite3.Connection | None = None,
    ) -> None:
        """Keep an annotator's rating of a completion; arguments and errors are those of `record`."""
        value = checked_number("rating", value)
        checked_seconds(seconds)
        with self._writing(connection) as connection:
            completion_id = tables.known_id(connection, "completions", completion_id)
            person = people.identify(connection, annotator)
            before = tables.rating(connection, completion_id, person)
            if before is not None and not replace:
                raise AlreadyAnswered(
                    f"{annotator!r} has rated completion {completion_id} before; the first rating stands"
                )
            tables.keep_rating(connection, completion_id, person, value, self.database.now(), seconds)
            self.log(connection, person, "rate" if before is None else "replace", f"completion {completion_id}")

    def add_comparisons(self, comparisons: Iterable[Comparison]) -> int:
        """Keep comparisons that were made elsewhere, and their pairs; return how many were not there before.

        Raises:
            AlreadyAnswered: if an annotator chose otherwise before; nothing is kept then.
        """
        with self.database.transaction() as connection:
            added = sum(self.add_comparison(comparison, connection) for comparison in comparisons)
            self.log(connection, None, "add comparisons", f"{added} comparisons")
        return added

    def add_comparison(self, comparison: Comparison, connection: sqlite3.Connection) -> bool:
        """Keep a comparison that was made elsewhere, and its pair; return False if it was there already.

        Raises:
            AlreadyAnswered: if the annotator chose otherwise before.
        """
        person = people.identify(connection, comparison.annotator)
        pair_id, swapped = tables.pair_id(connection, comparison.pair)
        choice = swap(comparison.choice) if swapped else comparison.choice
        before = tables.answer(connection, pair_id, person)
        if before is None:
            when = self.database.now() if comparison.when is None else comparison.when
            tables.keep_answer(connection, pair_id, person, choice, when, comparison.seconds)
        elif before != choice:
            raise AlreadyAnswered(
                f"{comparison.annotator!r} has compared pair {pair_id} before and chose otherwise"
            )
        return before is None

    def add_rating(self, rating: Rating, connection: sqlite3.Connection) -> bool:
        """Keep a rating that was made elsewhere, and its completion; return False if it was there already.

        Raises:
            AlreadyAnswered: if the annotator rated otherwise before.
        """
        person = people.identify(connection, rating.annotator)
        completion_id = tables.completion_id(connection, rating.completion)
        before = tables.rating(connection, completion_id, person)
        if before is None:
            when = self.database.now() if rating.when is None else rating.when
            tables.keep_rating(connection, completion_id, person, rating.value, when, rating.seconds)
        elif before != rating.value:
            raise AlreadyAnswered(f"{rating.annotator!r} has rated completion {completion_id} before and otherwise")
        return before is None

    def pairs(self) -> Iterator[Pair]:
        """Yield all pairs, in the order they came."""
        return (Pair(*row) for row in self._rows("p.id", _PAIR, _PAIRS))

    def comparisons(self) -> Iterator[Comparison]:
        """Yield all comparisons, in the order they came."""
        what = f"{_PAIR}, c.choice, who.pseudonym, c.at, c.seconds"
        where = f"{_PAIRS} JOIN comparisons c ON c.pair = p.id JOIN annotators who ON who.id = c.annotator"
        return (Comparison(Pair(*row[:6]), *row[6:]) for row in self._rows("c.id", what, where))

    def ratings(self) -> Iterator[Rating]:
        """Yield all ratings, in the order they came."""
        what = "x.prompt, x.text, x.policy, x.id, r.value, who.pseudonym, r.at, r.seconds"
        where = "ratings r JOIN completions x ON x.id = r.completion JOIN annotators who ON who.id = r.annotator"
        return (Rating(Completion(*row[:4]), *row[4:]) for row in self._rows("r.id", what, where))

    def answers(self) -> list[Answer]:
        """Return all answers without the texts, pair by pair."""
        with self.database.reading() as connection:
            rows = connection.execute(
                "SELECT c.pair, who.pseudonym, c.choice FROM comparisons c JOIN annotators who "
                "ON who.id = c.annotator ORDER BY c.pair, c.id"
            )
            return list(map(Answer._make, rows))

    def disagreements(self) -> Iterator[tuple[Pair, dict[str, Choice]]]:
        """Yield the pairs on which annotators disagree, each with pseudonym -> choice."""
        chosen: dict[int, dict[str, Choice]] = {}
        for answer in self.answers():
            chosen.setdefault(answer.pair, {})[answer.annotator] = answer.choice
        return ((self.pair(id), choices) for id, choices in chosen.items() if len(set(choices.values())) > 1)

    def counts(self) -> list[Counts]:
        """Return what each annotator did, in the order they came."""
        query = """SELECT pseudonym, name,
            (SELECT count(*) FROM comparisons WHERE annotator = who.id),
            (SELECT count(*) FROM comparisons WHERE annotator = who.id AND choice = 'tie'),
            (SELECT count(*) FROM skips WHERE annotator = who.id),
            (SELECT count(*) FROM ratings WHERE annotator = who.id)
            FROM annotators who ORDER BY id"""
        with self.database.reading() as connection:
            return [Counts(*row) for row in connection.execute(query)]

    def progress(self, annotator: str | None = None) -> Progress:
        """Return how far the work is: all of it, or one annotator's, by name or pseudonym."""
        with self.database.reading() as connection:
            whose, values = "", ()  # type: tuple[str, tuple[int, ...]]
            if annotator is not None:
                person = people.find(connection, annotator)
                whose, values = " WHERE annotator = ?", (0 if person is None else person.id,)

            def count(what: str, table: str, condition: str = whose) -> int:
                query = f"SELECT count({what}) FROM {table}{condition}"
                return connection.execute(query, values if condition else ()).fetchone()[0]

            return Progress(
                pairs=count("*", "pairs", ""),
                answered=count("DISTINCT pair", "comparisons"),
                comparisons=count("*", "comparisons"),
                skipped=count("*", "skips"),
            )

    def forget(self, annotator: str, how: people.How = "delete") -> None:
        """Remove an annotator, by name or pseudonym, from the tables and from the bytes of the file.

        Args:
            annotator: their name or pseudonym.
            how: "delete" removes the person and their answers; "anonymise" keeps the answers, under a new pseudonym
                that nothing leads to and without the time of day.

        Raises:
            ValueError: if nobody has that name.
            DatabaseError: if the rows are gone, but another program keeps the file from being written anew: run
                `Database.scrub` when it has ended.
        """
        if how not in get_args(people.How):
            raise ValueError(f'how is "delete" or "anonymise", got {how!r}')
        with self.database.transaction() as connection:
            person = people.find(connection, annotator)
            if person is None:
                raise ValueError(
                    f"no annotator is called {annotator!r}; if an earlier attempt to forget them was interrupted, "
                    "finish it: text-envs feedback scrub"
                )
            people.remove(connection, person, how)
            self.log(connection, None, people.ACTIONS[how], person.pseudonym)
        self.database.scrub()

    def check(self) -> audit.Entry | None:
        """Check that the file is sound, the texts are what they were and the audit is whole; return its last entry.

        Raises:
            DatabaseError: if anything was damaged or changed.
        """
        self.database.check()
        for id, digest, *identity in self._rows("id", "id, digest, prompt, text, policy", "completions"):
            if digest != tables.digest_of(*identity):
                raise DatabaseError(f"{self.database.path} is damaged: completion {id} is not what it was")
        with self.database.reading() as connection:
            return audit.verify(connection)

    def log(
        self, connection: sqlite3.Connection, who: people.Person | None, action: str, subject: str | None = None
    ) -> None:
        """Add an entry to the audit within a transaction.

        Args:
            connection: of `Database.transaction`.
            who: None: whoever runs the command line.
            action: one word or two, such as "log in".
            subject: what it was done to, without personal data.
        """
        audit.append(connection, self.database.now(), who and who.pseudonym, action, subject)

    def _rows(self, key: str, what: str, where: str) -> Iterator[tuple[Any, ...]]:
        """Yield rows by ascending key, a few at a time: no reader stays while the caller works on them."""
        query = f"SELECT {key}, {what} FROM {where} WHERE {key} > ? ORDER BY {key} LIMIT {_AT_ONCE}"
        last = -1
        while True:
            with self.database.reading() as connection:
                rows = connection.execute(query, (last,)).fetchall()
            if not rows:
                return
            last = rows[-1][0]
            for row in rows:
                yield row[1:]

    def _writing(self, connection: sqlite3.Connection | None) -> AbstractContextManager[sqlite3.Connection]:
        return self.database.transaction() if connection is None else nullcontext(connection)

    def _reading(self, connection: sqlite3.Connection | None) -> AbstractContextManager[sqlite3.Connection]:
        return self.database.reading() if connection is None else nullcontext(connection)
