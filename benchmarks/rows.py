"""The append-only file of results: one JSON object a line, written whole or not at all.

Nothing that is found in it is thrown away: the torn end of a last line goes to a file beside it, rows of another
schema stay where they are and are left out of what is read. Both are told by a `RowWarning`.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .errors import UserError
from .suites import SCHEMA

Row = dict[str, Any]

_KEY: Mapping[str, type] = {"key": str}
RESULT: Mapping[str, type] = {
    **_KEY, "suite": str, "experiment": dict, "seed": int, "started": str, "versions": dict, "hardware": dict
}  # fmt: skip
FAILURE: Mapping[str, type] = {**_KEY, "trial": str, "when": str, "error": str}
_JSON_NAMES = {str: "text", int: "whole number", dict: "object"}


class RowError(UserError):
    """A line of a rows file that cannot be read, or a file that cannot be written."""


class RowWarning(UserWarning):
    """A part of a rows file that is left out of what is read."""


def read_rows(path: Path, fields: Mapping[str, type] = _KEY) -> list[Row]:
    """Return the rows of a file, none if it does not exist.

    A last line without its newline that does not parse was torn by a kill: it is left out with a `RowWarning`. So
    are rows of another schema, those of a text-envs to which the same configuration means another measurement;
    rows that say none are older than its number, and of schema 1.

    Args:
        path: the file.
        fields: what every row has: `RESULT`, `FAILURE`, or only a key.

    Raises:
        RowError: if another line does not parse or lacks a field; it names file and line.
    """
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")
    rows, foreign = [], set()
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:  # UnicodeDecodeError is one too
            if number == len(lines):
                _warn(f"{path}:{number}: the last line is torn; its trial will run again")
                continue
            raise RowError(
                f"{path}:{number}: not a JSON object ({error}): {line[:80]!r}; mend or delete this line"
            ) from error
        if not isinstance(row, dict):
            raise RowError(f"{path}:{number}: not a row (an object with a 'key'): {line[:80]!r}; delete this line")
        schema = row.get("schema", 1)
        if schema != SCHEMA:
            foreign.add(str(schema))
            continue
        for name, kind in fields.items():
            if not isinstance(row.get(name), kind):
                raise RowError(
                    f"{path}:{number}: not a row, its {name!r} is no {_JSON_NAMES[kind]}: {line[:80]!r}; "
                    "mend or delete this line"
                )
        rows.append(row)
    if foreign:
        _warn(
            f"{path}: rows of another version are left out (schema {', '.join(sorted(foreign))}; this text-envs "
            f"measures by schema {SCHEMA}); they stay in the file"
        )
    return rows


def names(row: Row) -> tuple[str, str]:
    """Return (task, agent)."""
    return row["experiment"]["task"], row["experiment"]["agent"]


def by_task_and_agent(rows: Iterable[Row]) -> dict[str, dict[str, list[Row]]]:
    """Return the rows of each agent on each task, in the order in which they come."""
    found: dict[str, dict[str, list[Row]]] = {}
    for row in rows:
        task, agent = names(row)
        found.setdefault(task, {}).setdefault(agent, []).append(row)
    return found


class RowWriter:
    """Appends rows, one write and one fsync each; made by `open_for_append`."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path, self._descriptor = path, descriptor

    def append(self, row: Row) -> None:
        """Append one row and wait until it is on the disk.

        Raises:
            RowError: if the disk does not take all of it; the file is then as it was before.
        """
        text = json.dumps(row, ensure_ascii=False, allow_nan=False)
        line = text.encode("utf-8", "backslashreplace") + b"\n"  # half of a surrogate pair becomes its JSON escape
        before = os.fstat(self._descriptor).st_size
        try:
            written = os.write(self._descriptor, line)
            if written < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(self._descriptor)
        except OSError as error:
            os.ftruncate(self._descriptor, before)
            raise RowError(
                f"{self._path}: a row of {len(line):,} bytes could not be appended ({error.strerror}); the rows "
                "before it are whole: make room and give the same command again"
            ) from error


@contextmanager
def open_for_append(path: Path) -> Iterator[RowWriter]:
    """Lock a rows file, move a torn last line aside and yield its writer.

    Raises:
        RowError: if the file cannot be written, or another process has it open for appending.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
    except OSError as error:
        raise RowError(f"{path} cannot be written ({error.strerror}); choose another --out") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RowError(f"{path}: another run is writing it; wait for it or choose another --out") from error
        _mend(path, descriptor)
        yield RowWriter(path, descriptor)
    finally:
        os.close(descriptor)


def _mend(path: Path, descriptor: int) -> None:
    """End the file with a newline: a whole last row gets its own, a torn one is moved to a file beside it."""
    content = path.read_bytes()
    if not content or content.endswith(b"\n"):
        return
    whole = content.rfind(b"\n") + 1
    try:
        json.loads(content[whole:])
    except ValueError:
        aside = path.with_suffix(".torn")
        _append(aside, content[whole:] + b"\n")  # on the disk before it leaves the rows
        os.ftruncate(descriptor, whole)
        _warn(f"{path}: its last line was torn; it is kept in {aside.name}, its trial will run again")
    else:
        os.write(descriptor, b"\n")
    os.fsync(descriptor)


def _append(path: Path, content: bytes) -> None:
    try:
        with path.open("ab") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise RowError(f"{path} cannot be written ({error.strerror}); make room and give the same command again"
                       ) from error  # fmt: skip


def _warn(text: str) -> None:
    warnings.warn(text, RowWarning, stacklevel=3)
