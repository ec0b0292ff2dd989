"""Many writers at once, and writers that are killed."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from text_envs.feedback import audit
from text_envs.feedback.database import Database
from text_envs.feedback.records import Pair
from text_envs.feedback.store import Store

ROOT = Path(__file__).parents[3]
SECRET = "correct horse battery staple"
pytestmark = pytest.mark.slow

WRITER = """
import os, sys, threading
from text_envs.feedback.database import Database, Key
from text_envs.feedback.records import Pair
from text_envs.feedback.store import Store
path, name, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
key = Key.from_environment() if "TEXT_ENVS_FEEDBACK_KEY" in os.environ else None
sys.stdin.readline()
store = Store(Database(path, key))
ids = store.add_pairs(Pair("Which?", f"this {i}", f"that {i}") for i in range(count))
def work(part):
    for id in ids[part::4]:
        store.record(id, name, "a", 1.0)
        os.write(1, f"{id}\\n".encode())
threads = [threading.Thread(target=work, args=(part,)) for part in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""


def start(path, name, count, key):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("TEXT_ENVS_FEEDBACK_KEY", None)
    if key is not None:
        environment["TEXT_ENVS_FEEDBACK_KEY"] = SECRET
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, path, name, str(count)], env=environment, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip


def go(writer):
    writer.stdin.write("go\n")
    writer.stdin.flush()


def test_kill_9_loses_nothing_that_was_acknowledged(tmp_path, key):
    path = tmp_path / "people.db"
    with start(path, "Ann", 1000, key) as writer:
        go(writer)
        acknowledged = [int(writer.stdout.readline()) for _ in range(400)]
        os.kill(writer.pid, signal.SIGKILL)
        acknowledged += map(int, writer.stdout.read().split())
        assert writer.wait() == -signal.SIGKILL
    assert 400 <= len(acknowledged) < 1000
    with Database(path, key) as database:
        store = Store(database)
        kept = [answer.pair for answer in store.answers()]
        assert len(kept) == len(set(kept)) and set(acknowledged) <= set(kept)
        assert len(kept) <= len(acknowledged) + 4  # at most those under way
        database.check()
        with database.reading() as connection:
            assert audit.verify(connection).number == 1 + len(kept)
        store.record(max(set(range(1, 1001)) - set(kept)), "Ann", "b")


def test_processes_that_make_one_file_at_once_lose_nothing(tmp_path, key):
    path = tmp_path / "people.db"
    names = ["Ann", "Bob", "Cid"]
    writers = [start(path, name, 50, key) for name in names]
    for writer in writers:
        go(writer)
    outputs = [writer.communicate(timeout=120)[0] for writer in writers]
    assert [len(output.split()) for output in outputs] == [50, 50, 50]
    with Database(path, key) as database:
        store = Store(database)
        assert store.progress().pairs == 50
        assert [(counts.comparisons, counts.ties) for counts in store.counts()] == [(50, 0)] * 3
        with database.reading() as connection:
            assert audit.verify(connection).number == 3 * 51
        assert store.add_pairs([Pair("Which?", "that 0", "this 0")]) == [store.answers()[0].pair]
