"""Cached: a costly reward asked once for each prompt and completion."""

from __future__ import annotations

import json
import math
import threading
from collections import OrderedDict
from collections.abc import Awaitable, Iterable
from functools import cached_property, partial
from os import PathLike
from typing import Any, cast

from .base import Reward, RewardFunction, WeightedSum
from .cache_file import CacheFile
from .calling import Pending, checked, is_awaitable


class Cached(Reward):
    """A reward that remembers what it answered, in memory and, if asked to, in a file.

    The value belongs to the prompt, the completion and the columns named in `columns`; the reward gets those
    columns only, so it cannot depend on what the cache does not know. A text that comes twice in one call is
    asked once. A failure is never remembered. Of an async reward it is an async one.

    Args:
        function: the reward; not a WeightedSum, whose terms would no longer be reported.
        columns: the columns the reward needs; their values are such as JSON has.
        max_size: values kept in memory, the ones used last; None: all. The file keeps all.
        path: an SQLite file that keeps the values for later runs and other processes, any number at once; None:
            memory only. It is made where there is none.
        name: what the file calls the reward; needed with a path. One file may serve several rewards. Choose a new
            name when the reward's model or settings change, or the old values would be taken for the new.

    Attributes:
        hits: completions answered without the reward.
        misses: completions it was asked about.

    Raises:
        TypeError: if the reward is not callable, or a WeightedSum.
        ValueError: if max_size is not positive, there is a path and no name, or the reverse, or the name holds
            half a character.
        RewardError: if the file is damaged, or not a cache of rewards; it is left as it is.
    """

    def __init__(
        self,
        function: RewardFunction,
        *,
        columns: Iterable[str] = (),
        max_size: int | None = 100_000,
        path: str | PathLike[str] | None = None,
        name: str | None = None,
    ) -> None:
        if isinstance(function, WeightedSum):
            raise TypeError("a cached WeightedSum would not report its terms: put Cached around its costly terms")
        if not callable(function):
            raise TypeError(f"Cached takes a reward, got {function!r}")
        if isinstance(columns, str):
            raise TypeError(f'columns is a list of names, such as columns=["{columns}"], got {columns!r}')
        if max_size is not None and max_size < 1:
            raise ValueError(f"max_size is at least 1, or None, got {max_size}")
        if (path is None) != (name is None):
            raise ValueError(
                f"path={path!r} and name={name!r}: a file needs a name for the reward, such as "
                'name="judge, prompt 2", by which it tells one reward, and one version of it, from another'
            )
        self.function, self.columns, self.max_size = function, tuple(columns), max_size
        self.file = None if path is None or name is None else CacheFile(path, name)
        self.hits = self.misses = 0

    @cached_property
    def _recent(self) -> OrderedDict[str, float | None]:
        return OrderedDict()

    @cached_property
    def _lock(self) -> threading.Lock:
        return threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        """Return the settings; a copy in another process starts empty."""
        return {**super().__getstate__(), "hits": 0, "misses": 0}

    def __call__(self, prompts: list[str], completions: list[str], **columns: Any) -> Any:
        """Return the value of each completion; of an async reward, an awaitable of them unless all are known.

        Raises:
            ValueError: if a named column is missing, or holds what JSON does not have.
            RewardError: if the reward does not return one finite number or None for each, or the file fails.
        """
        asked = self._keys(prompts, completions, columns)
        first = {key: i for i, key in reversed(list(enumerate(asked)))}
        known = self._known(list(first))
        missing = sorted(i for key, i in first.items() if key not in known)
        with self._lock:
            self.hits += len(asked) - len(missing)
            self.misses += len(missing)
        if not missing:
            return [known[key] for key in asked]
        new = [prompts[i] for i in missing], [completions[i] for i in missing]
        given = {name: [columns[name][i] for i in missing] for name in self.columns}
        values = self.function(prompts=list(new[0]), completions=list(new[1]), **given)
        finish = partial(self._finish, asked, known, missing, new)
        if not is_awaitable(values):
            return finish(values)
        return Pending(partial(_after, cast("Awaitable[Any]", values), finish), [values])

    def _finish(
        self,
        asked: list[str],
        known: dict[str, float | None],
        missing: list[int],
        new: tuple[list[str], list[str]],
        values: Any,
    ) -> list[float | None]:
        """Remember the reward's answers on what was missing, and return all values in order."""
        numbers = checked(self.function, values, *new, none_allowed=True)
        answers = {asked[i]: None if math.isnan(x) else x for i, x in zip(missing, numbers.tolist(), strict=True)}
        if self.file is not None:
            self.file.store(answers)
        self._keep(answers)
        known |= answers
        return [known[key] for key in asked]

    def _keys(self, prompts: list[str], completions: list[str], columns: dict[str, Any]) -> list[str]:
        absent = [name for name in self.columns if name not in columns]
        if absent:
            raise ValueError(f"the cache needs the columns {absent}; the samples have {sorted(columns)}")
        rows = zip(prompts, completions, *(columns[name] for name in self.columns), strict=True)
        try:
            return [json.dumps(row, sort_keys=True) for row in rows]
        except TypeError as error:
            raise ValueError(
                f"the columns {list(self.columns)} hold what cannot be a cache's key ({error}); a key is made of "
                "texts, numbers, lists and dicts"
            ) from error

    def _known(self, keys: list[str]) -> dict[str, float | None]:
        """Return what memory and file know of distinct keys."""
        with self._lock:
            known = {key: self._recent[key] for key in keys if key in self._recent}
        if self.file is not None and len(known) < len(keys):
            known |= self.file.recall([key for key in keys if key not in known])
        self._keep(known)
        return known

    def _keep(self, values: dict[str, float | None]) -> None:
        with self._lock:
            for key, value in values.items():
                self._recent[key] = value
                self._recent.move_to_end(key)
            while self.max_size is not None and len(self._recent) > self.max_size:
                self._recent.popitem(last=False)


async def _after(values: Awaitable[Any], finish: Any) -> list[float | None]:
    return finish(await values)
