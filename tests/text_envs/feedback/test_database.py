import os
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from text_envs.feedback.database import ConflictError, Database, DatabaseError, Key
from text_envs.feedback.keys import verifier_path
from text_envs.feedback.records import Pair
from text_envs.feedback.store import Store

ROOT = Path(__file__).parents[3]
SECRET = "correct horse battery staple"
pytestmark = pytest.mark.usefixtures("quick_keys")
TABLE = ["CREATE TABLE IF NOT EXISTS notes (text TEXT UNIQUE)"]


def write(database, *texts):
    database.create(TABLE)
    with database.transaction() as connection:
        connection.executemany("INSERT INTO notes VALUES (?)", [(text,) for text in texts])


def read(database):
    with database.reading() as connection:
        return [text for (text,) in connection.execute("SELECT text FROM notes ORDER BY rowid")]


def all_bytes(folder):
    return b"".join(path.read_bytes() for path in folder.iterdir())


def test_what_is_written_is_there_when_it_is_opened_again(tmp_path, key):
    path = tmp_path / "people.db"
    with Database(path, key) as database:
        write(database, "a", "b")
    with Database(str(path), key) as database:
        assert read(database) == ["a", "b"]
        assert repr(database) == f"Database({str(path)!r}, {'encrypted' if key else 'plain'})"
    assert path.stat().st_mode & 0o077 == 0
    with pytest.raises(DatabaseError, match="was closed"):
        read(database)


def test_an_error_undoes_its_transaction_only(database):
    write(database, "a")
    with pytest.raises(ZeroDivisionError), database.transaction() as connection:
        connection.execute("INSERT INTO notes VALUES ('lost')")
        raise ZeroDivisionError
    with pytest.raises(ConflictError, match=r"UNIQUE constraint failed: notes\.text"):
        write(database, "lost too", "a")
    with pytest.raises(DatabaseError, match="no such table"), database.transaction() as connection:
        connection.execute("INSERT INTO absent VALUES (1)")
    write(database, "b")
    assert read(database) == ["a", "b"]


def test_errors_of_others_pass_as_they_are(database):
    error = OSError(2, "No such file", 99)
    for use in (database.transaction, database.reading):
        with pytest.raises(OSError) as caught, use():
            raise error
        assert caught.value is error


def test_reading_sees_one_state_and_does_not_write(database):
    write(database, "a")
    with database.reading() as connection:
        write(database, "b")
        assert connection.execute("SELECT count(*) FROM notes").fetchone() == (1,)
    assert read(database) == ["a", "b"]
    with pytest.raises(DatabaseError, match=r"write in transaction\(\)"), database.reading() as connection:
        connection.execute("DELETE FROM notes")
    assert read(database) == ["a", "b"]


def test_a_thread_does_not_wait_for_itself(database):
    with pytest.raises(DatabaseError, match="hand its connection on"), database.transaction():
        with database.transaction():
            pass
    write(database, "a")


def test_a_fork_does_not_share_connections(database):
    database._process = -1  # as a child would find it
    with pytest.raises(DatabaseError, match="open it again in this one"):
        read(database)
    database._process = os.getpid()


def test_a_full_disk_keeps_nothing_of_the_transaction(database):
    write(database, "a")
    writer = database._writer.connection
    (pages,) = writer.execute("PRAGMA page_count").fetchone()
    writer.execute(f"PRAGMA max_page_count = {pages + 2}")
    with pytest.raises(DatabaseError, match="the disk is full; nothing of this transaction was kept"):
        write(database, "b", "x" * 100_000)
    writer.execute("PRAGMA max_page_count = 1000000")
    write(database, "c")
    assert read(database) == ["a", "c"]


@pytest.mark.parametrize("replace", [False, True])
def test_nothing_is_acknowledged_into_a_file_that_was_taken_away(tmp_path, database, replace):
    write(database, "a")
    read(database)
    database.path.rename(tmp_path / "away.db")
    if replace:
        database.path.write_bytes(b"")
    for use in (write, read):
        with pytest.raises(DatabaseError, match="was moved, removed or replaced while it was open here"):
            use(database, *"b" * (use is write))
    database.path.unlink(missing_ok=True)
    (tmp_path / "away.db").rename(database.path)
    write(database, "c")
    with pytest.raises(DatabaseError, match="nothing is kept any more"), database.transaction():
        database.path.rename(tmp_path / "away.db")  # within a transaction: its end is no acknowledgement
    (tmp_path / "away.db").rename(database.path)
    assert read(database) == ["a", "c"]


READ_ONLY = """
import os, sys
from text_envs.feedback.database import Database, DatabaseError
if os.geteuid() == 0:
    os.setuid(65534)
try:
    Database(sys.argv[1])
except DatabaseError as error:
    print(error)
"""


@pytest.mark.skipif(os.name != "posix", reason="permissions are POSIX's")
def test_a_file_that_may_not_be_written_is_told(tmp_path):
    path = tmp_path / "people.db"
    Database(path).close()
    path.chmod(0o444)
    done = subprocess.run(
        [sys.executable, "-c", READ_ONLY, os.path.relpath(path)], cwd=os.getcwd(), env=_environment(),
        capture_output=True, text=True,
    )  # fmt: skip
    assert "cannot be opened: Permission denied" in done.stdout, done.stderr


def _environment():
    return {**os.environ, "PYTHONPATH": str(ROOT)}


@pytest.mark.parametrize(("made", "opened"), [(None, SECRET), (SECRET, None), (SECRET, "another"), (SECRET, "")])
def test_a_key_that_does_not_fit_is_told_and_harms_nothing(tmp_path, made, opened):
    path = tmp_path / "people.db"
    with Database(path, made and Key(made)) as database:
        write(database, "a")
    before = all_bytes(tmp_path)
    message = {
        (None, SECRET): "is not encrypted, but a key was given",
        (SECRET, None): "is encrypted .*no key was given: set TEXT_ENVS_FEEDBACK_KEY",
        (SECRET, "another"): "wrong key for .*people.db",
        (SECRET, ""): "at least one visible character",
    }[made, opened]
    with pytest.raises((DatabaseError, ValueError), match=message):
        Database(path, None if opened is None else Key(opened))
    assert all_bytes(tmp_path) == before


@pytest.mark.parametrize("damage", ["cut", "short", "page 1", "page 2", "text"])
def test_damage_is_told_from_a_wrong_key(tmp_path, key, damage):
    path = tmp_path / "people.db"
    with Database(path, key) as database:
        write(database, *[f"{i} {'x' * 500}" for i in range(50)])
    content = bytearray(path.read_bytes())
    if damage == "cut":
        del content[len(content) // 2 :]
    elif damage == "short":
        del content[10:]
    else:
        place = {"page 1": 100, "page 2": 4096, "text": len(content) - 2000}[damage]
        content[place : place + 400] = bytes(400)
    path.write_bytes(content)
    if damage == "text" and key is None:  # what SQLite cannot see: nothing seals the pages of a plain file
        Database(path).check()
        return
    with pytest.raises(DatabaseError, match="damaged( \\(the key is right\\))?:" if key else "damaged"):
        with Database(path, key) as database:
            database.check()
            read(database)
    if key is not None and damage != "short":
        with pytest.raises(DatabaseError, match="wrong key"):
            Database(path, Key("another"))


@pytest.mark.parametrize("content", [b"no database at all, but long enough to look like one" * 20, None])
def test_other_files_are_refused_and_left_as_they_are(tmp_path, content):
    path = tmp_path / "people.db"
    if content is None:
        with sqlite3.connect(path) as file:
            file.execute("CREATE TABLE people (name TEXT)")
        file.close()
    else:
        path.write_bytes(content)
    before = path.read_bytes()
    with pytest.raises(DatabaseError, match="no database of people's preferences|not of people's preferences"):
        Database(path)
    with pytest.raises(DatabaseError, match="not encrypted|wrong key for .*, or it is damaged"):
        Database(path, Key(SECRET))
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["people.db"]


def test_a_newer_format_is_refused(tmp_path):
    path = tmp_path / "people.db"
    Database(path).close()
    with sqlite3.connect(path) as file:
        file.execute("PRAGMA user_version = 2")
    file.close()
    with pytest.raises(DatabaseError, match="has format 2, and this version of text-envs reads 1"):
        Database(path)


@pytest.mark.parametrize("path", ["no such folder/people.db", "."])
def test_places_where_no_file_can_be_are_told(tmp_path, path):
    with pytest.raises(DatabaseError, match="cannot be opened: (No such file|Is a directory)"):
        Database(tmp_path / path)


def test_a_lost_verifier_is_written_again_by_the_right_key(tmp_path):
    path, key = tmp_path / "people.db", Key(SECRET)
    with Database(path, key) as database:
        write(database, "a")
    verifier_path(path).unlink()
    with pytest.raises(DatabaseError, match="wrong key for .*, or it is damaged.*people.db.key.json is lost"):
        Database(path, Key("another"))
    with pytest.raises(DatabaseError, match="or encrypted and its file people.db.key.json is lost"):
        Database(path)
    with Database(path, key) as database:
        assert read(database) == ["a"]
    with pytest.raises(DatabaseError, match=r"another one \(people.db.key.json tells\)"):
        Database(path, Key("another"))


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b'{"salt": 3}', b"\xff", b"[" * 100_000, None])
def test_a_damaged_verifier_is_told(tmp_path, content):
    path, key = tmp_path / "people.db", Key(SECRET)
    Database(path, key).close()
    if content is None:  # a digit of its check
        content = verifier_path(path).read_bytes().replace(b'"check": "', b'"check": "0')
    verifier_path(path).write_bytes(content)
    with pytest.raises(DatabaseError, match="people.db.key.json is damaged"):
        Database(path, key)


def test_the_verifier_of_another_database_is_told(tmp_path):
    one, two = tmp_path / "one.db", tmp_path / "two.db"
    for path in (one, two):
        Database(path, Key(SECRET)).close()
    verifier_path(one).write_bytes(verifier_path(two).read_bytes())
    with pytest.raises(DatabaseError, match="one.db.key.json is another database's"):
        Database(one, Key(SECRET))


def test_first_bytes_that_are_damaged_do_no_harm(tmp_path):
    path, key = tmp_path / "people.db", Key(SECRET)
    with Database(path, key) as database:
        write(database, "a")
    path.write_bytes(bytes(8) + path.read_bytes()[8:])
    with Database(path, key) as database:
        assert read(database) == ["a"]


LAST = """
import sys
from text_envs.feedback.database import Database
Database(sys.argv[1]).close()  # were it the last to close, it would take the write-ahead log away
"""


def test_opening_a_file_twice_does_not_take_its_locks_away(tmp_path, monkeypatch):
    path = tmp_path / "people.db"
    with Database(path) as database:
        write(database, "a")
        monkeypatch.chdir(tmp_path)
        Database("people.db").close()
        done = subprocess.run(
            [sys.executable, "-c", LAST, path], env=_environment(), capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        assert path.with_name("people.db-wal").exists()
        write(database, "b")
        with pytest.raises(DatabaseError, match="not encrypted"):
            Database(path, Key(SECRET))


def test_the_folder_of_the_process_does_not_matter(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with Database("people.db", Key(SECRET)) as database:
        monkeypatch.chdir("/")
        write(database, "a")
        assert read(database) == ["a"]
    assert sorted(os.listdir(tmp_path)) == ["people.db", "people.db.key.json"]


def test_a_creation_that_was_cut_short_goes_on(tmp_path, key):
    path = tmp_path / "people.db"
    Database(path, key).close()
    path.write_bytes(b"")  # the verifier comes first
    with Database(path, key) as database:
        write(database, "a")
        assert read(database) == ["a"]
    if key is not None:
        path.unlink()
        with pytest.raises(DatabaseError, match="is encrypted"):
            Database(path)
        with pytest.raises(DatabaseError, match="wrong key"):
            Database(path, Key("another"))
        assert not path.exists()


def test_an_encrypted_file_shows_nothing(tmp_path):
    with Database(tmp_path / "people.db", Key(SECRET)) as database:
        store = Store(database)
        store.add_pairs(
            Pair(f"prompt-{i}" * 50, "left-text", "right-text", "policy-x", "policy-y") for i in range(99)
        )
        for pair in range(1, 99):
            store.record(pair, "Annabel", "a")
        while_open = all_bytes(tmp_path)
    closed = all_bytes(tmp_path)
    words = ("prompt-", "left-text", "right-text", "policy-x", "Annabel", "CREATE TABLE", "SQLite format", SECRET)
    for word in words:
        assert word.encode() not in while_open + closed, word


def test_what_was_deleted_is_gone_from_the_bytes(tmp_path, database):
    secrets = [f"secret-{i}-{'y' * 300}" for i in range(300)]
    write(database, "kept", *secrets)
    database.scrub()
    if not database.encrypted:
        assert b"secret-" in all_bytes(tmp_path)
    with database.transaction() as connection:
        connection.execute("DELETE FROM notes WHERE text LIKE 'secret%'")
    database.scrub()
    assert b"secret-" not in all_bytes(tmp_path)
    assert read(database) == ["kept"]
    database.check()


def test_scrubbing_says_if_a_reader_keeps_old_pages(key, database, monkeypatch):
    write(database, "a")
    monkeypatch.setattr("text_envs.feedback.writer.PATIENCE", 0.05)
    with Database(database.path, key) as other, other.reading():
        with database.transaction() as connection:
            connection.execute("DELETE FROM notes")
        with pytest.raises(DatabaseError, match="may still stand in people.db-wal.*text-envs feedback scrub"):
            database.scrub()
    database.scrub()


def test_the_time_never_runs_backwards(tmp_path, key):
    path, time = tmp_path / "people.db", [1000.0]
    with Database(path, key, clock=lambda: time[0]) as database:
        assert database.now() == 1000
        time[0] = 400.0
        assert database.now() == 1000
        time[0] = 500.0
        assert database.now() == 1050  # half speed, until both agree
        write(database, "a")
        time[0] = 2000.0
        assert database.now() == 2000
    time[0] = 3.0
    with Database(path, key, clock=lambda: time[0]) as database:
        with database.reading():
            assert database.now() >= 1050
        with database.transaction():
            assert database.now() >= 1050


def test_processes_share_the_latest_time(tmp_path):
    path = tmp_path / "people.db"
    with Database(path, clock=lambda: 10.0) as slow, Database(path, clock=lambda: 90.0) as fast:
        fast.now()
        write(fast, "a")
        with slow.transaction():
            assert slow.now() == 90


def test_a_missing_package_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "sqlcipher3", None)
    with pytest.raises(ImportError, match=r"pip install 'text-envs\[feedback\]'"):
        Database(tmp_path / "people.db", Key(SECRET))
    Database(tmp_path / "people.db").close()


def test_threads_share_commits_and_an_error_undoes_one_member_only(database):
    database.create(TABLE)
    said = []
    database._writer.connection.set_trace_callback(said.append)

    def work(text):
        try:
            write_one(text)
        except ZeroDivisionError:
            failed.append(text)

    def write_one(text):
        with database.transaction() as connection:
            connection.execute("INSERT INTO notes VALUES (?)", (text,))
            if text.endswith("3"):
                raise ZeroDivisionError

    failed = []
    with database.transaction():  # the others queue behind this one
        threads = [threading.Thread(target=work, args=(str(i),)) for i in range(10)]
        for thread in threads:
            thread.start()
        while len(database._writer._waiting) < 10:
            pass
    for thread in threads:
        thread.join()
    assert failed == ["3"] and sorted(read(database)) == [str(i) for i in range(10) if i != 3]
    assert said.count("COMMIT") < 10


def test_a_commit_that_fails_is_told_to_all_who_share_it(database, monkeypatch):
    database.create(TABLE)
    told, writer = [], database._writer

    def work(text):
        try:
            with database.transaction() as connection:
                connection.execute("INSERT INTO notes VALUES (?)", (text,))
                if text == "z":
                    connection.execute("ROLLBACK")  # as the database does by itself when a disk is full
                    connection.execute("INSERT INTO absent VALUES (1)")
        except DatabaseError as error:
            told.append((text, str(error)))

    threads = [threading.Thread(target=work, args=(text,)) for text in "abcz"]
    with writer._in_turn():
        for count, thread in enumerate(threads, 1):
            thread.start()
            while len(writer._waiting) < count:
                pass
    for thread in threads:
        thread.join()
    kept, failed = set(read(database)), {text for text, _ in told}
    assert "z" in failed and kept.isdisjoint(failed) and kept | failed == set("abcz")
    write(database, "after")


class Interrupting:
    """A connection on which Ctrl-C comes right after a statement."""

    def __init__(self, connection, statement):
        self.connection, self.statement = connection, statement

    def execute(self, statement, *values):
        done = self.connection.execute(statement, *values)
        if statement.startswith(self.statement):
            self.statement = "never again"
            raise KeyboardInterrupt
        return done

    def __getattr__(self, name):
        return getattr(self.connection, name)


STATEMENTS = ["BEGIN", "SELECT coalesce", "SAVEPOINT", "INSERT", "RELEASE", "ROLLBACK TO", "UPDATE clock", "COMMIT"]


@pytest.mark.parametrize("statement", STATEMENTS)
def test_an_interrupt_leaves_all_or_nothing_and_nobody_waiting(tmp_path, statement):
    with Database(tmp_path / "people.db") as database, Database(tmp_path / "people.db") as other:
        database.create(TABLE)
        writer = database._writer
        writer.connection, plain = Interrupting(writer.connection, statement), writer.connection
        with pytest.raises(KeyboardInterrupt), database.transaction() as connection:
            database.now()
            connection.execute("INSERT INTO notes VALUES ('a')")
            connection.execute("INSERT INTO notes VALUES ('b')")
            if statement == "ROLLBACK TO":
                raise ZeroDivisionError
        writer.connection = plain
        kept = read(database)
        assert kept == (["a", "b"] if statement == "COMMIT" else [])
        write(database, "c")
        write(other, "d")
        assert read(database) == [*kept, "c", "d"]
