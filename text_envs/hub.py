"""What the package `datasets` reads: datasets of the Hugging Face Hub, folders, and its own objects.

Needs the extra `text-envs[data]`. Its datasets are memory-mapped files, so their columns can stay on disk.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any

from .lazy import Record
from .readers import check_once
from .sources import SourceError

PREFIX = "hub:"
OPTIONS = ("config", "revision", "split")
BATCH = 1000  # rows read at once


class DatasetTable:
    """A `datasets.Dataset`, or what looks like one, as a table.

    Args:
        data: has rows, `column_names` and a length.
        name: what messages call it.

    Raises:
        ValueError: if it is several splits, or a stream, which has neither length nor random access.
    """

    unit = " row "

    def __init__(self, data: Any, name: str) -> None:
        if isinstance(data.column_names, dict):
            splits = ", ".join(map(repr, data.column_names))
            raise ValueError(f"{name} has the splits {splits}; pass one of them (of a folder, the folder in it)")
        if not hasattr(data, "__len__"):
            raise ValueError(f"{name} is a stream: prompts are drawn at random; load it without streaming=True")
        self.name = name
        self._data = data.with_format(None)  # Python's values, not tensors
        self._columns = {name: self._data.select_columns([name]) for name in data.column_names}

    def scan(self) -> Iterator[Record]:
        """Yield all records; a place is a row."""
        batches = self._data.iter(batch_size=BATCH)
        rows = (row for batch in batches for row in zip(*batch.values(), strict=True))
        for place, row in enumerate(rows):
            yield Record(place + 1, place, dict(zip(self._columns, row, strict=True)))

    def values(self, name: str, places: Iterable[int]) -> Iterator[Any]:
        """Yield one field of the records at some places."""
        left = iter(places)
        while rows := list(islice(left, BATCH)):
            yield from self._columns[name][rows][name]


def is_dataset(source: Any) -> bool:
    """Whether an object looks like one of `datasets`, which need not be installed to ask."""
    return hasattr(source, "column_names") and hasattr(source, "with_format")


def load_hub(source: str) -> DatasetTable:
    """Return a dataset of the Hub.

    Args:
        source: "hub:owner/name", with options such as "hub:owner/name?config=en&split=test&revision=1a2b3c"; the
            split is "train" unless it says otherwise.

    Raises:
        ImportError: if `datasets` is not installed.
        ValueError: if the source has another form.
        SourceError: if `datasets` cannot load it.
    """
    name, _, query = source.removeprefix(PREFIX).partition("?")
    options = {"split": "train"}
    for option in query.split("&") if query else ():
        key, _, value = option.partition("=")
        if key not in OPTIONS or not value:
            near = get_close_matches(key, OPTIONS, 1) or OPTIONS
            raise ValueError(
                f"prompts={source!r}: {option!r} is no option; write {' or '.join(f'{key}=...' for key in near)}"
            )
        options[key] = value
    if not name:
        raise ValueError(f'prompts={source!r} names no dataset; write "hub:owner/name"')
    library = _library(source)
    try:
        data = library.load_dataset(name, options.pop("config", None), **options)
    except Exception as error:  # `datasets` raises a dozen kinds, some of them of its network library
        raise SourceError(
            f"{source}: {type(error).__name__}: {error}\nBy hand, where there is a network: "
            f"hf download {name} --repo-type dataset --local-dir FOLDER\nthen pass the path of a .parquet, .jsonl, "
            ".csv or .txt file in it."
        ) from error
    return DatasetTable(data, source)


def load_folder(path: Path) -> DatasetTable:
    """Return a folder that `datasets` saved, or the training files in a folder, such as .parquet.

    Raises:
        ImportError: if `datasets` is not installed.
        ValueError: if `datasets` cannot read the folder.
    """
    library = _library(path)
    saved = any((path / name).is_file() for name in ("state.json", "dataset_dict.json"))
    try:
        data = library.load_from_disk(str(path)) if saved else library.load_dataset(str(path), split="train")
    except Exception as error:  # see above
        raise ValueError(
            f"{path}: `datasets` cannot read the folder as training data: {type(error).__name__}: {error}; "
            "pass the path of a file in it"
        ) from error
    return DatasetTable(data, str(path))


def load_parquet(path: Path) -> DatasetTable:
    """Return a .parquet file whose values stay on disk, in a copy that `datasets` makes in its cache.

    A .parquet file itself can be read in order only.

    Raises:
        ImportError: if `datasets` is not installed.
        ValueError: if the file is damaged, of another kind, or has two columns of one name.
    """
    library = _library(path)
    from pyarrow import parquet  # comes with `datasets`

    with _parquet(path):
        names = parquet.read_schema(path).names
    check_once(str(path), names)
    with _parquet(path):
        data = library.Dataset.from_parquet(str(path))
    return DatasetTable(data, str(path))


@contextmanager
def _parquet(path: Path) -> Iterator[None]:
    """Say of which file an error is."""
    try:
        yield
    except Exception as error:  # see above
        raise ValueError(f"{path}: damaged, or not Parquet: {error}; fetch or write it again") from error


def _library(source: Any) -> ModuleType:
    try:
        import datasets
    except ImportError as error:
        raise ImportError(f"{source} needs the package datasets: pip install 'text-envs[data]'") from error
    return datasets
