"""How two things are timed beside each other: in turn, in one process, as ratios."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

Row = dict[str, Any]  # "name", "told" (what a person reads) and figures


def spread(values: Sequence[float]) -> dict[str, float]:
    """Return the smallest, the median and the largest."""
    return {"min": min(values), "median": float(np.median(values)), "max": max(values)}


def rate(work: Callable[[], int]) -> float:
    """Return units per second of a function that returns how many units it did."""
    begin = time.perf_counter()
    count = work()
    return count / (time.perf_counter() - begin)


def in_turn(ours: Callable[[], int], theirs: Callable[[], int], repeats: int) -> tuple[list[float], list[float]]:
    """Return the rates of both, measured in turn after a warm-up of each."""
    ours()
    theirs()
    pairs = [(rate(theirs), rate(ours)) for _ in range(repeats)]
    return [own for _, own in pairs], [other for other, _ in pairs]


def compare(
    name: str, unit: str, ours: Callable[[], int], theirs: Callable[[], int], other: str, repeats: int
) -> Row:
    """Return a row: our rate, theirs, and the ratio."""
    mine, others = in_turn(ours, theirs, repeats)
    ratio = spread([a / b for a, b in zip(mine, others, strict=True)])
    own, their = float(np.median(mine)), float(np.median(others))
    return {
        "name": name,
        "told": f"{own:,.0f} {unit}, {ratio['median']:.2f}x {other} ({ratio['min']:.2f}-{ratio['max']:.2f}), "
        f"which does {their:,.0f}",
        "unit": unit,
        "ours": own,
        "theirs": their,
        "other": other,
        "ratio": ratio,
    }
