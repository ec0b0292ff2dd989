"""The key of an encrypted database, and the small file beside it that tells a wrong key from a damaged database."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
import stat
import tempfile
from contextlib import suppress
from os import PathLike, fspath
from pathlib import Path
from typing import Any, NamedTuple

from .errors import DatabaseError

ENVIRONMENT = "TEXT_ENVS_FEEDBACK_KEY"
SUFFIX = ".key.json"
SALT_BYTES = 16  # SQLCipher's own length: the same salt stands at the beginning of the database
_COST = {"n": 2**15, "r": 8, "p": 1}  # 32 MiB and a tenth of a second for each guess of a thief
_LONGEST = 2**16
_PURPOSE = b"text-envs feedback database, key check"


class Key:
    """A secret that encrypts a database. It stands in no repr, no pickle and no message.

    Args:
        secret: any text; a long random one, such as `openssl rand -hex 32` prints, cannot be guessed.

    Raises:
        ValueError: if it is empty.
    """

    __slots__ = ("_secret",)

    def __init__(self, secret: str | bytes) -> None:
        if not isinstance(secret, str | bytes):
            raise TypeError(f"the key of a database is a text, got {type(secret).__name__}; a file: Key.from_file")
        try:
            self._secret = os.fsencode(secret).rstrip(b"\r\n")
        except UnicodeEncodeError:
            raise ValueError("the key of a database holds a lone surrogate, which is half a character") from None
        if not self._secret.strip():
            raise ValueError("the key of a database is a text of at least one visible character, and this is empty")

    @classmethod
    def from_environment(cls, name: str = ENVIRONMENT) -> Key:
        """Return the key in an environment variable.

        Raises:
            ValueError: if it is not set (no key would mean no encryption), or empty.
        """
        if name not in os.environ:
            raise ValueError(f"the environment variable {name} is not set; it holds the key of the database")
        try:
            return cls(os.environ[name])
        except ValueError as error:
            raise ValueError(f"the environment variable {name}: {error}") from None

    @classmethod
    def from_file(cls, path: str | PathLike[str]) -> Key:
        """Return the key that is a file's content; line feeds at its end do not count.

        Raises:
            OSError: if it cannot be read.
            ValueError: if others than its owner may read or write it, or it is empty, or no key at all.
        """
        with open(path, "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode) or status.st_size > _LONGEST:
                raise ValueError(f"{fspath(path)} is no key file: a key is a short text in a file of its own")
            if os.name == "posix" and status.st_mode & 0o077:
                raise ValueError(
                    f"{fspath(path)} may be read or written by others than its owner "
                    f"(mode {stat.S_IMODE(status.st_mode):03o}), so its key is no secret: chmod 600 {fspath(path)}"
                )
            try:
                return cls(file.read(_LONGEST))
            except ValueError as error:
                raise ValueError(f"{fspath(path)}: {error}") from None

    def __repr__(self) -> str:
        return "Key(...)"

    def __reduce__(self) -> Any:
        raise TypeError("a key is not pickled: open the database in each process, with Key.from_environment()")


class Derived(NamedTuple):
    """What a key becomes with a salt: what SQLCipher gets, and what a verifier file may show."""

    salt: bytes
    cipher: SecretText
    check: str


class SecretText:
    """A text that no repr shows."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return "SecretText(...)"


def derive(key: Key, salt: bytes) -> Derived:
    """Return SQLCipher's raw key with its salt, as hex, and a check that does not lead back to either.

    Both halves of scrypt's output are independent: the check is of the second, SQLCipher gets the first.
    """
    drawn = hashlib.scrypt(key._secret, salt=salt, dklen=64, maxmem=2**26, **_COST)
    check = hmac.new(drawn[32:], _PURPOSE, hashlib.sha256).hexdigest()
    return Derived(salt, SecretText(drawn[:32].hex() + salt.hex()), check)


def fits(path: Path, key: Key) -> Derived | None:
    """Return what a key becomes by the verifier file of a database; None if there is no such file.

    Args:
        path: of the database.
        key: the one that was given.

    Raises:
        DatabaseError: if it is another key, or the file is damaged.
    """
    verifier = verifier_path(path)
    try:
        content = json.loads(verifier.read_bytes())
        salt, check = bytes.fromhex(content["salt"]), content["check"]
        if content != _content(content["salt"], check):
            raise ValueError("not what text-envs writes")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DatabaseError(f"{verifier} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DatabaseError(
            f"{verifier} is damaged, or made by a newer version of text-envs ({error}); restore it from a backup, "
            "or move it away: the right key opens the database without it, and it is written again"
        ) from None
    derived = derive(key, salt)
    if not hmac.compare_digest(derived.check, check):
        raise DatabaseError(f"wrong key for {path}: it was encrypted with another one ({verifier.name} tells)")
    return derived


def make_verifier(path: Path, derived: Derived) -> None:
    """Write the verifier file of a database unless there is one: whole or not at all, for its owner only."""
    verifier = verifier_path(path)
    if verifier.exists():
        return
    handle, temporary = tempfile.mkstemp(prefix=".new-", suffix=SUFFIX, dir=verifier.parent)
    try:
        with os.fdopen(handle, "w", encoding="ascii") as file:
            json.dump(_content(derived.salt.hex(), derived.check), file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):  # where another process was first, whose salt then counts
            os.link(temporary, verifier)
    finally:
        os.unlink(temporary)


def new_salt() -> bytes:
    """Return a fresh random salt."""
    return secrets.token_bytes(SALT_BYTES)


def verifier_path(path: Path) -> Path:
    """Return where the verifier file of a database is."""
    return path.with_name(path.name + SUFFIX)


def _content(salt: str, check: str) -> dict[str, Any]:
    """Return what the file holds; with a sum, so that damage to it is not taken for a wrong key."""
    what = {"what": "key check of a text-envs feedback database", "version": 1, "kdf": "scrypt", **_COST}
    sum = hashlib.sha256(f"{salt} {check}".encode("utf-8", "surrogatepass")).hexdigest()
    return {**what, "salt": salt, "check": check, "sum": sum}
