"""Statistics of scores, pure functions on a (runs x tasks) matrix; every draw comes from the rng handed in.

Source: Agarwal et al. 2021, "Deep reinforcement learning at the edge of the statistical precipice",
arXiv:2108.13264. Leading dimensions, where a function takes them, are resamples.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.floating]
Statistic = Callable[..., NDArray[np.floating]]


def mean(scores: Scores) -> NDArray[np.floating]:
    """Return the mean over runs and tasks of scores (..., runs, tasks)."""
    return _flat(scores).mean(axis=-1)


def iqm(scores: Scores) -> NDArray[np.floating]:
    """Return the interquartile mean over runs and tasks of scores (..., runs, tasks).

    The mean of what is left when a quarter of the values, rounded down, is cut from each end: less swayed by
    outliers than the mean, less wasteful than the median.
    """
    flat = np.sort(_flat(scores), axis=-1)
    cut = flat.shape[-1] // 4
    return flat[..., cut : flat.shape[-1] - cut].mean(axis=-1)


def probability_of_improvement(x: Scores, y: Scores) -> NDArray[np.floating]:
    """Return how probably a run of X beats a run of Y on a task drawn at random; ties count half.

    Args:
        x: (..., runs of X, tasks).
        y: (..., runs of Y, tasks), the same tasks.

    Raises:
        ValueError: if the numbers of tasks differ.
    """
    x, y = _checked(x), _checked(y)
    if x.shape[-1] != y.shape[-1]:
        raise ValueError(f"{x.shape[-1]} tasks against {y.shape[-1]}; compare on the same tasks")
    ours, theirs = x[..., :, None, :], y[..., None, :, :]
    return ((ours > theirs) + 0.5 * (ours == theirs)).mean(axis=(-3, -2, -1))


def bootstrap_interval(
    statistic: Statistic,
    *matrices: Scores,
    rng: np.random.Generator,
    confidence: float = 0.95,
    n_resamples: int = 2000,
) -> tuple[float, float]:
    """Return the percentile interval of a statistic under the stratified bootstrap.

    Within each task, and each matrix, as many runs as there are are drawn with replacement; tasks are kept.

    Args:
        statistic: maps resampled matrices (resamples, runs, tasks) to (resamples,).
        matrices: each (runs, tasks); the numbers of runs may differ.
        rng: where the draws come from.
        confidence: of the interval, within (0, 1).
        n_resamples: how many times to draw.

    Raises:
        ValueError: if the confidence lies outside (0, 1) or a matrix is empty.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence={confidence}; give a number between 0 and 1, such as 0.95")
    drawn = [_resampled(_checked(matrix), rng, n_resamples) for matrix in matrices]
    tail = (1 - confidence) / 2
    low, high = np.quantile(statistic(*drawn), [tail, 1 - tail])
    return float(low), float(high)


def _resampled(scores: Scores, rng: np.random.Generator, n: int) -> Scores:
    """Return (n, runs, tasks)."""
    runs, tasks = scores.shape
    picks = rng.integers(runs, size=(n, runs, tasks))
    return np.take_along_axis(scores[None], picks, axis=1)


def _flat(scores: Scores) -> Scores:
    scores = _checked(scores)
    return scores.reshape(*scores.shape[:-2], -1)


def _checked(scores: Scores) -> Scores:
    scores = np.asarray(scores, float)
    if scores.ndim < 2 or 0 in scores.shape:
        raise ValueError(f"scores of shape {scores.shape}; expected (runs, tasks), neither of them 0")
    if not np.isfinite(scores).all():
        raise ValueError("scores contain NaN or infinity; a failed run is not a score, leave it out")
    return scores
