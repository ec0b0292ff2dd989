"""Records of .txt, .csv, .jsonl and .parquet files; what does not parse is named by file and line."""

from __future__ import annotations

import csv
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from .lazy import Record

Fields = Mapping[str, Any]
LONGEST_FIELD = 2**24  # characters of a .csv file's field; a quote that is never closed ends there


class Lines:
    """The lines of a UTF-8 file as they are asked for, each with one line feed at its end.

    Args:
        path: for messages.
        file: open for reading, at the beginning of a line.
        number: lines before that.

    Attributes:
        number: of the line read last, from 1.
        offset: byte at which the next one begins.

    Raises:
        ValueError: if a line is not UTF-8.
    """

    def __init__(self, path: Path, file: BinaryIO, number: int = 0) -> None:
        self.path = path
        self.number = number
        self.offset = file.tell()
        self._file = file

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = next(self._file)
        self.number += 1
        try:
            text = line.decode("utf-8" if self.offset else "utf-8-sig")
        except UnicodeDecodeError as error:
            raise ValueError(f"{self}: not UTF-8: {error}; save the file as UTF-8") from error
        self.offset += len(line)
        return text.rstrip("\r\n") + "\n"

    def __str__(self) -> str:
        return f"{self.path}:{self.number}"


class TextFile:
    """A .txt (a text per line), .csv (with a header) or .jsonl (an object per line) file as a table.

    The file is opened for each use: nothing is held open that processes or threads could share.

    Args:
        path: the file.
        column: what the lines of a .txt file are called.

    Raises:
        ValueError: if a line does not parse, or the file changed since this table was made.
    """

    unit = ""

    def __init__(self, path: Path, column: str) -> None:
        self.name = str(path)
        self._path = path
        self._stamp = _stamp(path.stat())
        with self._open() as file:
            lines = Lines(path, file)
            self._parse = TEXT_FORMATS[path.suffix.lower()](lines, column)
            self._header = lines.number, lines.offset

    def scan(self) -> Iterator[Record]:
        """Yield all records; a place is the byte offset after the record before."""
        number, place = self._header
        with self._open() as file:
            file.seek(place)
            lines = Lines(self._path, file, number)
            for fields in self._parse(lines):
                yield Record(lines.number, place, fields)
                place = lines.offset

    def values(self, name: str, places: Iterable[int]) -> Iterator[Any]:
        """Yield one field of the records at some places."""
        with self._open() as file:
            for place in places:
                file.seek(place)
                yield next(self._parse(Lines(self._path, file))).get(name)

    def _open(self) -> BinaryIO:
        file = self._path.open("rb")
        if _stamp(os.fstat(file.fileno())) != self._stamp:
            file.close()
            raise ValueError(f"{self._path} has changed since its prompts were found in it; load them again")
        return file


class ParquetFile:
    """A .parquet file as a table that is read in order, a thousand rows at a time.

    Raises:
        ImportError: if pyarrow is not installed.
        ValueError: if the file is damaged, of another kind, or has two columns of one name.
    """

    unit = " row "

    def __init__(self, path: Path) -> None:
        try:
            import pyarrow  # noqa: F401
        except ImportError as error:
            raise ImportError(
                f"{path}: .parquet needs the package pyarrow: pip install 'text-envs[data]'"
            ) from error
        self.name = str(path)
        self._path = path

    def scan(self) -> Iterator[Record]:
        """Yield all records; a place is a row."""
        from pyarrow import ArrowException, parquet

        try:
            place = 0
            with parquet.ParquetFile(self._path) as file:
                check_once(self.name, file.schema_arrow.names)
                for batch in file.iter_batches(1000):
                    for fields in batch.to_pylist():
                        yield Record(place + 1, place, fields)
                        place += 1
        except (ArrowException, OSError) as error:
            raise ValueError(
                f"{self._path}: damaged, or not Parquet (read {place} rows, then: {error}); fetch or write it again"
            ) from error


def check_once(where: str, names: list[str]) -> None:
    """Refuse names that come twice, of which one would hide the other.

    Raises:
        ValueError: if one does.
    """
    twice = [name for name, times in Counter(names).items() if times > 1]
    if twice:
        raise ValueError(
            f"{where} has {', '.join(map(repr, twice))} more than once; rename them so that each has a name of its "
            "own"
        )


def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object of JSON, as `object_pairs_hook`.

    Raises:
        ValueError: if a name comes twice.
    """
    found = dict(pairs)
    if len(found) < len(pairs):
        check_once("an object", [name for name, _ in pairs])
    return found


def _stamp(status: os.stat_result) -> tuple[int, int]:
    return status.st_size, status.st_mtime_ns


Parser = Callable[[Lines], Iterator[Fields]]


def _txt(lines: Lines, column: str) -> Parser:
    return partial(_read_txt, column)


def _read_txt(column: str, lines: Lines) -> Iterator[Fields]:
    for line in lines:
        if line.strip():
            yield {column: line.strip()}


def _csv(lines: Lines, column: str) -> Parser:
    names = next(_rows(lines), [])
    check_once(f"{lines}: the header", names)
    return partial(_read_csv, names)


def _read_csv(names: list[str], lines: Lines) -> Iterator[Fields]:
    for fields in filter(None, _rows(lines)):
        if len(fields) != len(names):
            raise ValueError(
                f"{lines}: {len(fields)} fields under a header of {len(names)}, {', '.join(names)}; "
                "quote fields that hold a comma"
            )
        yield dict(zip(names, fields, strict=True))


def _rows(lines: Lines) -> Iterator[list[str]]:
    """Yield the rows of a .csv file, an empty one for a blank line."""
    # The limit is of the whole process. It is only raised, and not set back: doing so would need a lock against
    # other threads that read, and a process forked while one is held could never read again.
    csv.field_size_limit(max(csv.field_size_limit(), LONGEST_FIELD))
    try:
        yield from csv.reader(lines, strict=True)
    except csv.Error as error:
        remedy = ""
        if "field limit" in str(error):
            remedy = "; close the quote that is open, or split the text, or write the file as .jsonl"
        raise ValueError(f"{lines}: not CSV: {error}{remedy}") from error


def _jsonl(lines: Lines, column: str) -> Parser:
    return partial(_read_jsonl, column)


def _read_jsonl(column: str, lines: Lines) -> Iterator[Fields]:
    for line in lines:
        if not line.strip():
            continue
        try:
            fields = json.loads(line, object_pairs_hook=once)
        except RecursionError:
            raise ValueError(f"{lines}: too deeply nested for a JSON reader; the line is {line[:200]!r}") from None
        except ValueError as error:
            raise ValueError(f"{lines}: not JSON: {error}; the line is {line[:200]!r}") from error
        if not isinstance(fields, dict):
            raise ValueError(f'{lines}: a line is an object such as {{"{column}": "..."}}, got {line[:200]!r}')
        yield fields


TEXT_FORMATS: dict[str, Callable[[Lines, str], Parser]] = {".txt": _txt, ".csv": _csv, ".jsonl": _jsonl}
FORMATS = (*TEXT_FORMATS, ".parquet")
