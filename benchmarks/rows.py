"""The append-only file of results: one JSON object a line, written whole or not at all."""

from __future__ import annotations

import fcntl
import json
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .errors import UserError

Row = dict[str, Any]

_KEY: Mapping[str, type] = {"key": str}
RESULT: Mapping[str, type] = {
    **_KEY, "suite": str, "experiment": dict, "seed": int, "started": str, "versions": dict, "hardware": dict
}  # fmt: skip
FAILURE: Mapping[str, type] = {**_KEY, "trial": str, "error": str}
_JSON_NAMES = {str: "text", int: "whole number", dict: "object"}


class RowError(UserError):
    """A line of a rows file that cannot be read, or a file that another run is writing."""


def read_rows(path: Path, fields: Mapping[str, type] = _KEY) -> list[Row]:
    """Return the rows of a file, none if it does not exist.

    A last line without its newline that does not parse was torn by a kill: it is left out with a warning.

    Args:
        path: the file.
        fields: what every row has: `RESULT`, `FAILURE`, or only a key.

    Raises:
        RowError: if another line does not parse or lacks a field; it names file and line.
    """
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")
    rows = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:  # UnicodeDecodeError is one too
            if number == len(lines):
                warnings.warn(f"{path}:{number}: the last line is torn; its trial will run again", stacklevel=2)
                continue
            raise RowError(
                f"{path}:{number}: not a JSON object ({error}): {line[:80]!r}; mend or delete this line"
            ) from error
        if not isinstance(row, dict):
            raise RowError(f"{path}:{number}: not a row (an object with a 'key'): {line[:80]!r}; delete this line")
        for name, kind in fields.items():
            if not isinstance(row.get(name), kind):
                raise RowError(
                    f"{path}:{number}: not a row, its {name!r} is no {_JSON_NAMES[kind]}: {line[:80]!r}; "
                    "mend or delete this line"
                )
        rows.append(row)
    return rows


class RowWriter:
    """Appends rows, one write and one fsync each; made by `open_for_append`."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def append(self, row: Row) -> None:
        """Append one row and wait until it is on the disk."""
        line = json.dumps(row, ensure_ascii=False, allow_nan=False).encode() + b"\n"
        written = os.write(self._descriptor, line)
        if written != len(line):
            raise OSError(f"only {written} of {len(line)} bytes could be appended; is the disk full?")
        os.fsync(self._descriptor)


@contextmanager
def open_for_append(path: Path) -> Iterator[RowWriter]:
    """Lock a rows file, mend a torn last line and yield its writer.

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
        yield RowWriter(descriptor)
    finally:
        os.close(descriptor)


def _mend(path: Path, descriptor: int) -> None:
    """End the file with a newline: a whole last row gets its own, a torn one is cut off."""
    content = path.read_bytes()
    if not content or content.endswith(b"\n"):
        return
    whole = content.rfind(b"\n") + 1
    try:
        json.loads(content[whole:])
    except ValueError:
        os.ftruncate(descriptor, whole)
    else:
        os.write(descriptor, b"\n")
    os.fsync(descriptor)
