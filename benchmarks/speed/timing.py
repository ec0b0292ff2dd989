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


def with_flops(name: str, seconds: Sequence[tuple[float, float]], flops: dict[str, int], other: str) -> Row:
    """Return a row: how much faster ours is, and how much of the saved work that is.

    Args:
        name: of the row.
        seconds: (theirs, ours) of each pair.
        flops: floating-point operations of the same work, "stock" and "ours".
        other: what it is compared with.
    """
    ratio = spread([theirs / own for theirs, own in seconds])
    flop_ratio = flops["stock"] / flops["ours"]
    return {
        "name": name,
        "told": f"{ratio['median']:.1f}x {other} ({ratio['min']:.1f}-{ratio['max']:.1f}); floating-point "
        f"operations {flop_ratio:.1f}x, {ratio['median'] / flop_ratio:.0%} of it reached",
        "stock_seconds": [theirs for theirs, _ in seconds],
        "our_seconds": [own for _, own in seconds],
        "flops": flops,
        "flop_ratio": flop_ratio,
        "ratio": ratio,
        "reached": ratio["median"] / flop_ratio,
    }
