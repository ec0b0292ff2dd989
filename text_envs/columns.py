"""Columns: per-row values beside the tokens, those a task's samples bring and those its scores detail."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Columns:
    """What the samples of B rows brought beside their tokens.

    Args:
        num_rows: B.
        owner: what messages call the task.
    """

    def __init__(self, num_rows: int, owner: str) -> None:
        self._num_rows = num_rows
        self._owner = owner
        self._values: dict[str, NDArray[Any]] = {}

    def keep(self, columns: Mapping[str, NDArray[Any]], where: Any) -> None:
        """Store the columns of new samples; a type grows where theirs has more room, as that of longer texts.

        Args:
            columns: (n, ...) of n rows each.
            where: the index of those rows.

        Raises:
            ValueError: if a row's values have another shape than those of samples before.
        """
        for name, values in columns.items():
            kept = self._values.get(name)
            if kept is None:
                kept = np.zeros((self._num_rows, *values.shape[1:]), values.dtype)
            if values.shape[1:] != kept.shape[1:]:
                raise ValueError(
                    f"{self._owner}.sample returned the column {name!r} with values of shape "
                    f"{values.shape[1:]}, and of shape {kept.shape[1:]} before; pad them to one shape"
                )
            if values.dtype != kept.dtype:
                kept = kept.astype(_common(kept, values), copy=False)
            kept[where] = values
            self._values[name] = kept

    def of(self, where: Any) -> dict[str, NDArray[Any]]:
        """Return the columns of the rows at an index."""
        return {name: values[where] for name, values in self._values.items()}


def take(details: Mapping[str, Any], at: NDArray[np.intp]) -> dict[str, Any]:
    """Return the given positions of every per-row sequence in a nested dict."""
    taken: dict[str, Any] = {}
    for name, values in details.items():
        if isinstance(values, Mapping):
            taken[name] = take(values, at)
        elif isinstance(values, np.ndarray):
            taken[name] = values[at]
        else:
            taken[name] = [values[i] for i in at]
    return taken


def _common(one: NDArray[Any], other: NDArray[Any]) -> np.dtype[Any]:
    """Return a type that keeps the values of both, as Python objects where no other one does."""
    kinds = {one.dtype.kind, other.dtype.kind}
    if len(kinds) > 1 and not kinds <= set("biuf"):
        return np.dtype(object)
    common = np.result_type(one.dtype, other.dtype)
    rounded = common.kind == "f" and any(_is_large(values) for values in (one, other))
    return np.dtype(object) if rounded else common


def _is_large(values: NDArray[Any]) -> bool:
    """Return whether there are integers that a float rounds."""
    return values.dtype.kind in "iu" and values.size > 0 and bool(values.min() < -(2**53) or values.max() > 2**53)
