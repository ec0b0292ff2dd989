"""The append-only file of results: one JSON object a line, written whole or not at all; see row_schema.json.

Nothing that is found in it is thrown away: the torn end of a last line goes to a file beside it, rows of another
schema stay where they are and are left out of what is read. Both are told by a `RowWarning`.
"""

from __future__ import annotations

import errno
import fcntl
import json
import math
import os
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from .errors import UserError
from .suites import SCHEMA

Row = dict[str, Any]

Kind = Literal["row", "result", "failure"]  # which definition of row_schema.json
_SHOWN = 160  # characters of what is wrong


class RowError(UserError):
    """A line of a rows file that cannot be read, or a file that cannot be written."""


class RowWarning(UserWarning):
    """A part of a rows file that is left out of what is read."""


def read_rows(path: Path, kind: Kind = "row") -> list[Row]:
    """Return the rows of a file, none if it does not exist.

    A last line without its newline that does not parse was torn by a kill: it is left out with a `RowWarning`. So
    are rows of another schema, those of a text-envs to which the same configuration means another measurement;
    rows that say none are older than its number, and of schema 1.

    Args:
        path: the file.
        kind: what every row is: a result, a failure, or anything with a key.

    Raises:
        RowError: if another line does not parse or is not of that kind; it names file, line and field.
    """
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")
    rows, foreign = [], set()
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = _parse(line)
        except ValueError as error:
            if number == len(lines):
                _warn(f"{path}:{number}: the last line is torn; its trial will run again")
                continue
            raise RowError(
                f"{path}:{number}: not a JSON object ({error}): {line[:80]!r}; mend or delete this line"
            ) from error
        schema = json.dumps(row.get("schema", 1)) if isinstance(row, dict) else str(SCHEMA)
        if schema != str(SCHEMA):
            foreign.add(schema)
            continue
        if told := fault(row, kind):
            raise RowError(f"{path}:{number}: not a {kind}: {told}; mend or delete this line")
        rows.append(row)
    if foreign:
        _warn(
            f"{path}: rows of another version are left out (schema {', '.join(sorted(foreign))}; this text-envs "
            f"measures by schema {SCHEMA}); they stay in the file"
        )
    return rows


def fault(row: Any, kind: Kind) -> str | None:
    """Return what is wrong with a row in a line, None if nothing is."""
    from jsonschema.exceptions import best_match

    error = best_match(_validator(kind).iter_errors(row))
    if error is None:
        steps = [point[0] for point in row.get("curve", ())] if kind == "result" else []
        back = next((pair for pair in pairwise(steps) if pair[0] >= pair[1]), None)
        return back and f"curve: its steps do not increase: {back[0]:,}, then {back[1]:,}"
    where = error.json_path.removeprefix("$").removeprefix(".")
    told = f"{where}: {error.message}" if where else error.message
    return told if len(told) <= _SHOWN else told[: _SHOWN // 2] + " ... " + told[-_SHOWN // 2 :]


@cache
def _validator(kind: Kind) -> Any:
    from jsonschema import Draft202012Validator

    definitions = json.loads(files(__package__).joinpath("row_schema.json").read_text("utf-8"))
    return Draft202012Validator({**definitions, "$ref": f"#/$defs/{kind}"})


def _parse(line: bytes) -> Any:
    """Return what a line holds.

    Raises:
        ValueError: if that is not JSON, or a number that no float holds; UnicodeDecodeError is one too.
    """

    def finite(text: str) -> float:
        if not math.isfinite(value := float(text)):
            raise ValueError(f"no float holds the number {text[:20]}{'...' * (len(text) > 20)}")
        return value

    def whole(text: str) -> int:
        finite(text)
        return int(text)

    try:
        return json.loads(line, parse_constant=finite, parse_float=finite, parse_int=whole)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


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
        _parse(content[whole:])
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
