"""A store in a plain and in an encrypted database."""

import pytest

from text_envs.feedback import keys
from text_envs.feedback.database import Database, Key
from text_envs.feedback.records import Pair
from text_envs.feedback.store import Store

SECRET = "correct horse battery staple"


@pytest.fixture(params=["plain", "encrypted"])
def key(request):
    return Key(SECRET) if request.param == "encrypted" else None


@pytest.fixture
def quick_keys(monkeypatch):
    """Keys derived a thousand times as fast; processes that a test starts do not know of it."""
    monkeypatch.setitem(keys._COST, "n", 2**5)


@pytest.fixture
def database(tmp_path, key):
    with Database(tmp_path / "people.db", key) as database:
        yield database


@pytest.fixture
def store(tmp_path):
    with Database(tmp_path / "people.db") as database:
        yield Store(database)


@pytest.fixture
def pairs():
    return [Pair("Which?", f"this {i}", f"that {i}", "ppo", "dqn") for i in range(5)]
