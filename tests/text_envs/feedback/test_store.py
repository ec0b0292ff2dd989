import sqlite3
from contextlib import closing

import pytest

from text_envs.feedback import audit
from text_envs.feedback.database import Database, DatabaseError
from text_envs.feedback.records import (
    LONGEST_TEXT,
    AlreadyAnswered,
    Comparison,
    Completion,
    Forgotten,
    Pair,
    Rating,
)
from text_envs.feedback.store import Progress, Store

NASTY = [
    "",
    "\0 NUL \0",
    "'); DROP TABLE pairs; --",
    '<script>alert("x")</script>',
    "{{ 7 * 7 }} %s \\",
    "tränen 😀 \u202e right to left \u2028 line",
    "x" * 1_000_000,
]


def entries(database):
    with database.reading() as connection:
        audit.verify(connection)
        return [(entry.actor, entry.action, entry.subject) for entry in audit.entries(connection)]


@pytest.mark.usefixtures("quick_keys")
def test_any_text_comes_back_as_it_was(database):
    store = Store(database)
    added = [Pair(text, f"{text}a", f"{text}b", f"{text}c", None) for text in NASTY]
    ids = store.add_pairs(added)
    assert [store.pair(id) for id in ids] == list(store.pairs())
    for id, pair, found in zip(ids, added, store.pairs(), strict=True):
        assert found.id == id and found.completions == pair.completions
    for id in ids:
        store.record(id, "Robert'); DROP TABLE annotators;--", "tie")
    assert [comparison.pair.id for comparison in store.comparisons()] == ids
    assert store.counts()[0].name == "Robert'); DROP TABLE annotators;--"


def test_a_pair_is_one_pair_either_way_round(store, pairs):
    ids = store.add_pairs(pairs)
    assert store.add_pairs([pairs[2], pairs[0].swapped(), pairs[0]]) == [ids[2], ids[0], ids[0]]
    assert len(store.add_pairs([Pair("Which?", "this 0", "that 0")])) == 1  # by nobody knows whom: another pair
    assert store.progress().pairs == 6


def test_an_annotator_answers_a_pair_once(store, pairs):
    first, second, *_ = store.add_pairs(pairs)
    store.record(first, "Ann", "a", 2.5)
    store.record(first, "Bob", "tie")
    with pytest.raises(AlreadyAnswered, match="'Ann' has compared pair 1 before; the first answer stands"):
        store.record(first, "Ann", "b")
    with pytest.raises(AlreadyAnswered):
        store.skip(first, "Ann")
    assert [(c.choice, c.seconds) for c in store.comparisons()] == [("a", 2.5), ("tie", None)]
    store.record(first, "Ann", "b", replace=True)
    assert sorted(c.choice for c in store.comparisons()) == ["b", "tie"]
    assert store.progress() == Progress(pairs=5, answered=1, comparisons=2, skipped=0)


def test_an_answer_takes_the_place_of_a_skip(store, pairs):
    first, second, *_ = store.add_pairs(pairs)
    store.skip(first, "Ann")
    store.skip(first, "Ann")
    store.skip(second, "Ann")
    store.record(first, "Ann", "a")
    assert store.progress("Ann") == Progress(pairs=5, answered=1, comparisons=1, skipped=1)
    assert store.progress("Bob") == Progress(pairs=5, answered=0, comparisons=0, skipped=0)


def test_many_things_are_kept_in_one_transaction_or_none(store, pairs):
    first, second, *_ = store.add_pairs(pairs)
    with pytest.raises(AlreadyAnswered), store.database.transaction() as connection:
        store.record(first, "Ann", "a", connection=connection)
        store.skip(second, "Ann", connection)
        store.record(first, "Ann", "b", connection=connection)
    assert store.progress() == Progress(5, 0, 0, 0) and store.counts() == []


def test_ratings_are_kept(store):
    (id,) = store.add_completions([Completion("Q", "A", "ppo")])
    assert store.add_completions([Completion("Q", "A", "ppo")]) == [id]
    store.rate(id, "Ann", 4, 1.0)
    store.rate(id, "Bob", -0.5)
    with pytest.raises(AlreadyAnswered, match="'Ann' has rated completion 1 before"):
        store.rate(id, "Ann", 5)
    store.rate(id, "Ann", 5, replace=True)
    assert sorted((r.value, r.seconds, r.completion.policy) for r in store.ratings()) == [
        (-0.5, None, "ppo"),
        (5, None, "ppo"),
    ]
    with pytest.raises(ValueError, match="no completion has the id 7"):
        store.rate(7, "Ann", 1)


def test_comparisons_made_elsewhere_are_added_once_either_way_round(store, pairs):
    made = [Comparison(pairs[0], "a", "Ann", when=10.0), Comparison(pairs[1], "tie", "Ann", 11.0, 0.5)]
    assert store.add_comparisons(made) == 2
    assert store.add_comparisons([made[0].swapped(), made[1]]) == 0
    with pytest.raises(AlreadyAnswered, match="'Ann' has compared pair 1 before and chose otherwise"):
        store.add_comparisons([Comparison(pairs[2], "a", "Ann"), Comparison(pairs[0], "b", "Ann")])
    assert [(c.choice, c.when, c.seconds) for c in store.comparisons()] == [("a", 10, None), ("tie", 11, 0.5)]


def test_disagreements_are_found(store, pairs):
    ids = store.add_pairs(pairs)
    for name, choices in {"Ann": "aab", "Bob": "aba"}.items():
        for id, choice in zip(ids, choices, strict=False):
            store.record(id, name, choice)
    ann, bob = (counts.pseudonym for counts in store.counts())
    assert [(pair.id, choices) for pair, choices in store.disagreements()] == [
        (ids[1], {ann: "a", bob: "b"}),
        (ids[2], {ann: "b", bob: "a"}),
    ]


def test_iterating_does_not_keep_others_from_writing(store):
    store.add_pairs(Pair("Q", f"{i}", f"{-i}") for i in range(1, 121))
    for pair in store.pairs():
        store.record(pair.id, "Ann", "a")
    found = [comparison.pair for comparison in store.comparisons()]
    assert found == list(store.pairs()) and len(found) == 120


def test_times_do_not_go_back_with_the_clock(tmp_path, pairs):
    time = [5000.0]
    with Database(tmp_path / "people.db", clock=lambda: time[0]) as database:
        store = Store(database)
        for id in store.add_pairs(pairs):
            store.record(id, "Ann", "a")
            time[0] -= 1000
    with Database(tmp_path / "people.db", clock=lambda: 7.0) as database:
        store = Store(database)
        store.record(1, "Bob", "a")
        times = [comparison.when for comparison in store.comparisons()]
        assert times == sorted(times) and times[0] == 5000 and len(times) == 6


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda s: s.record(1, "Ann", "c"), 'a choice is "a", "b" or "tie", got \'c\''),
        (lambda s: s.record(1, "Ann", ["a"]), r"got \['a'\]"),
        (lambda s: s.record(99, "Ann", "a"), "no pair has the id 99"),
        (lambda s: s.record(10**30, "Ann", "a"), "no pair has the id 1000"),
        (lambda s: s.record(1, "Ann", "a", -1), "seconds are not negative, got -1"),
        (lambda s: s.record(1, "Ann", "a", float("nan")), "seconds is a finite number, got nan"),
        (lambda s: s.record(1, "", "a"), "1 to 200 visible characters, got ''"),
        (lambda s: s.record(1, "a\nb", "a"), "visible characters, got 'a\\\\nb'"),
        (lambda s: s.record(1, "x" * 201, "a"), "visible characters"),
        (lambda s: s.record(1, "\ud800", "a"), "holds a lone surrogate, '\\\\ud800' at 0"),
        (lambda s: s.record(1, None, "a"), "an annotator's name is a text, got None"),
        (lambda s: s.enrol("p-0123456789abcdef"), "looks like a pseudonym"),
        (lambda s: s.rate(1, "Ann", True), "rating is a finite number, got True"),
        (lambda s: s.rate(1, "Ann", 10**400), "rating is a finite number"),
        (lambda s: s.forget("Ann"), "no annotator is called 'Ann'"),
        (lambda s: s.forget("Ann", "hide"), 'how is "delete" or "anonymise", got \'hide\''),
        (lambda s: Pair("Q", "same", "same"), "both completions are 'same'"),
        (lambda s: Pair("Q", "a", "\udfff"), "completion holds a lone surrogate"),
        (lambda s: Pair("Q", "a", 3), "completion is a text, got 3"),
        (lambda s: Completion("Q", "x" * (LONGEST_TEXT + 1)), "has 16,777,217 characters, more than"),
        (lambda s: Rating(Completion("Q", "a"), 1, "Ann", when=float("inf")), "when is a finite number"),
    ],
)
def test_what_cannot_be_kept_is_refused(store, pairs, make, message):
    store.add_pairs(pairs)
    before = entries(store.database)
    with pytest.raises(ValueError, match=message):
        make(store)
    assert entries(store.database) == before and store.counts() == []


def test_the_audit_says_who_did_what_without_names(store, pairs):
    ids = store.add_pairs(pairs)
    store.record(ids[0], "Ann", "a")
    store.record(ids[0], "Ann", "b", replace=True)
    store.skip(ids[1], "Ann")
    (ann,) = (counts.pseudonym for counts in store.counts())
    assert entries(store.database) == [
        (None, "add pairs", "5 pairs"),
        (ann, "record", "pair 1"),
        (ann, "replace", "pair 1"),
        (ann, "skip", "pair 2"),
    ]


def test_a_text_that_changed_is_found(store, pairs):
    store.add_pairs(pairs)
    assert store.check().action == "add pairs"
    with store.database.transaction() as connection:
        connection.execute("UPDATE completions SET text = 'that 7' WHERE text = 'that 4'")
    with pytest.raises(DatabaseError, match="is damaged: completion 10 is not what it was"):
        store.check()


CHANGES = [
    "UPDATE audit SET actor = 'nobody' WHERE number = 2",
    "DELETE FROM audit WHERE number = 2",
    "INSERT OR REPLACE INTO audit VALUES (2, 0, NULL, 'record', 'pair 1', '')",
    "INSERT OR REPLACE INTO audit SELECT 2, at, actor, action, subject, seal FROM audit WHERE number = 1",
]


@pytest.mark.parametrize("change", CHANGES)
def test_the_audit_is_only_added_to_and_shows_who_forced_it(store, pairs, change):
    for id in store.add_pairs(pairs):
        store.record(id, "Ann", "a")
    before = entries(store.database)
    with pytest.raises(DatabaseError, match="the audit is only added to"):
        with store.database.transaction() as connection:
            connection.execute(change)
    with closing(sqlite3.connect(store.database.path)) as file:  # of a program without our settings
        with pytest.raises(sqlite3.DatabaseError, match="the audit is only added to"):
            file.execute(change)
        assert entries(store.database) == before
        for trigger in ("audit_update", "audit_delete", "audit_insert"):
            file.execute(f"DROP TRIGGER {trigger}")
        file.execute(change)
        file.commit()
    with pytest.raises(DatabaseError, match="the audit was changed: entry [23] does not fit"):
        entries(store.database)


@pytest.mark.usefixtures("quick_keys")
@pytest.mark.parametrize("how", ["delete", "anonymise"])
def test_an_annotator_is_forgotten(tmp_path, database, pairs, how):
    store = Store(database)
    database.create(["CREATE TABLE logins (who REFERENCES annotators(id) ON DELETE CASCADE)"])  # another room's
    ids = store.add_pairs(pairs)
    for name in ("Annabel Secret", "Bob"):
        for id in ids[:3]:
            store.record(id, name, "a", 1.5)
        store.skip(ids[3], name)
        store.rate(1, name, 3)
    with database.transaction() as connection:
        person = store.enrol("Annabel Secret", connection)
        connection.execute("INSERT INTO logins VALUES (?)", (person.id,))
    before = entries(database)
    store.forget("Annabel Secret" if how == "delete" else person.pseudonym, how)
    content = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert b"Annabel" not in content
    assert entries(database) == [*before, (None, "forget" if how == "delete" else "anonymise", person.pseudonym)]
    bob, *others = sorted(store.counts(), key=lambda counts: counts.name is None)
    assert (bob.name, bob.comparisons, bob.skipped, bob.ratings) == ("Bob", 3, 1, 1)
    theirs = [comparison for comparison in store.comparisons() if comparison.annotator != bob.pseudonym]
    if how == "delete":
        assert not others and not theirs and len(list(store.ratings())) == 1
    else:
        (nobody,) = others
        assert (nobody.name, nobody.comparisons, nobody.skipped, nobody.ratings) == (None, 3, 0, 1)
        assert nobody.pseudonym != person.pseudonym
        assert all(c.annotator == nobody.pseudonym and c.when % 86_400 == 0 for c in theirs)
    with database.reading() as connection:
        assert not connection.execute("SELECT * FROM logins").fetchall()
    database.check()


def test_the_forgotten_do_not_come_back_with_a_file(store, pairs):
    store.add_comparisons([Comparison(pairs[0], "a", "Ann")])
    (comparison,) = store.comparisons()
    store.forget("Ann")
    with pytest.raises(Forgotten, match=f"{comparison.annotator} was forgotten here"):
        store.add_comparisons([comparison])
    store.record(1, "Ann", "b")  # who begins anew, under another pseudonym
    assert [c.annotator for c in store.comparisons()] != [comparison.annotator]


def test_names_are_one_however_they_were_typed(store, pairs):
    store.add_pairs(pairs)
    store.record(1, "Zoe\u0308", "a")
    with pytest.raises(AlreadyAnswered):
        store.record(1, " Zo\u00eb ", "a")
