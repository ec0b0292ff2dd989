import pickle
import traceback
from pathlib import Path

import pytest

from text_envs.feedback.database import Database, DatabaseError, Key

SECRET = "correct horse battery staple"
pytestmark = pytest.mark.usefixtures("quick_keys")


def test_keys_show_themselves_nowhere(tmp_path):
    key = Key(SECRET)
    with Database(tmp_path / "people.db", key) as database:
        shown = f"{key!r} {key} {database._derived!r} {vars(database)!r}"
        hidden = [SECRET, database._derived.cipher.text]
        refused = ["CREATE TABLE clock (there INTEGER)"]
        for fail in (lambda: database.create(refused), lambda: Database(database.path, Key("hunter two"))):
            with pytest.raises(DatabaseError) as caught:
                fail()
            told = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
            frames = [frame for frame in told.stack if frame.filename != __file__]
            assert frames
            shown += f"{told} {[frame.locals for frame in frames]}"
    hidden.append("hunter two")
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(key)
    assert not any(secret in shown for secret in hidden)


@pytest.mark.parametrize("secret", ["", "\n", "\ud800", None, Path("key")])
def test_what_is_no_key_is_refused(secret):
    with pytest.raises((ValueError, TypeError), match="the key of a database"):
        Key(secret)


def test_keys_come_from_the_environment_or_a_file_of_their_owner(tmp_path, monkeypatch):
    monkeypatch.delenv("TEXT_ENVS_FEEDBACK_KEY", raising=False)
    with pytest.raises(ValueError, match="TEXT_ENVS_FEEDBACK_KEY is not set"):
        Key.from_environment()
    monkeypatch.setenv("TEXT_ENVS_FEEDBACK_KEY", " ")
    with pytest.raises(ValueError, match="TEXT_ENVS_FEEDBACK_KEY: .*at least one visible character"):
        Key.from_environment()
    monkeypatch.setenv("MY_KEY", "gehéim")
    file = tmp_path / "key"
    file.write_bytes("gehéim\n".encode())
    file.chmod(0o600)
    Database(tmp_path / "people.db", Key.from_environment("MY_KEY")).close()
    Database(tmp_path / "people.db", Key.from_file(file)).close()
    for mode in (0o640, 0o604, 0o602):
        file.chmod(mode)
        with pytest.raises(ValueError, match=f"mode {mode:o}.*chmod 600"):
            Key.from_file(file)
    file.chmod(0o600)
    file.write_bytes(b"\n")
    with pytest.raises(ValueError, match="key: the key of a database is a text"):
        Key.from_file(file)
    file.write_bytes(b"x" * 100_000)
    with pytest.raises(ValueError, match="is no key file"):
        Key.from_file(file)
