"""The real case: a reward model of people's ratings of movie review sentences, and VADER, on held-out ratings."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.reward_model import RewardModel, train_reward_model
from text_envs.datasets import Prompts, load_prompts
from text_envs.rewards import VaderSentiment
from text_envs.sources import minilm

from .suites import Experiment
from .trial import Report, derived_seed

GAP = 1.0  # ratings that differ by less say little about which sentence is the better one
VALIDATION = 500  # sentences of the training part that choose when training stops
_RESAMPLES = 2000
_PAIRS, _BOOTSTRAP, _FIT = range(3)


def trial(experiment: Experiment, seed: int, report: Report) -> dict[str, Any]:
    """Return the fields of a row: a proxy's accuracy on all held-out pairs, beside VADER's on the same ones."""
    reviews = load_prompts("movie_reviews").unique()
    test = reviews.split("test")
    fields: dict[str, Any] = {}
    seconds = 0.0
    values = vader = np.array(VaderSentiment()([""] * len(test), list(test.texts)))
    if experiment.agent_kwargs:
        with tempfile.TemporaryDirectory() as scratch:
            began = time.perf_counter()
            reward, fields = _learned(reviews.split("train"), seed, Path(scratch), **experiment.agent_kwargs)
            seconds = time.perf_counter() - began
            report(0.9)
            values = np.array(reward([""] * len(test), list(test.texts)))
    ratings = np.array(test.columns["rating"])
    rng = np.random.default_rng([seed, _BOOTSTRAP])
    return {
        **fields,
        "train_seconds": round(seconds, 3),
        "movies": {
            **held_against(ratings, {"proxy": values, "vader": vader}, GAP, rng),
            "sentences": len(test),
            "correlation": float(np.corrcoef(values, ratings)[0, 1]),
        },
    }


def held_against(
    ratings: NDArray[np.float64], proxies: dict[str, NDArray[np.float64]], gap: float, rng: np.random.Generator
) -> dict[str, Any]:
    """Return the pairwise accuracy of two proxies and their difference, with 95% intervals.

    Over all pairs of sentences whose ratings differ by at least `gap`; equal values count half. The intervals are
    percentiles of a bootstrap over sentences, in which both proxies see the same ones.

    Args:
        ratings: (n,).
        proxies: two of them, (n,) values each.
        gap: see above.
        rng: of the bootstrap.
    """
    counted = (ratings[:, None] - ratings >= gap).astype(np.float32)  # (n, n), True where the row is the better one
    hits = {}
    for name, values in proxies.items():
        difference = values[:, None] - values
        hits[name] = counted * ((difference > 0) + 0.5 * (difference == 0)).astype(np.float32)
    weights = np.ones((1 + _RESAMPLES, len(ratings)), np.float32)  # the first is the sample itself
    draws = rng.integers(len(ratings), size=(_RESAMPLES, len(ratings)))
    for row, draw in zip(weights[1:], draws, strict=True):
        row[:] = np.bincount(draw, minlength=len(ratings))
    pairs = _weighted(counted, weights)
    accuracy = {name: _weighted(hit, weights) / pairs for name, hit in hits.items()}
    ours, theirs = accuracy.values()
    return {
        "pairs": int(pairs[0]),
        **{name: _with_interval(found) for name, found in accuracy.items()},
        "difference": _with_interval(ours - theirs),
    }


def _weighted(matrix: NDArray[np.float32], weights: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return (r,) sums over i, j of w_i w_j matrix_ij."""
    return ((weights @ matrix) * weights).sum(axis=1, dtype=np.float64)


def _with_interval(found: NDArray[np.float64]) -> list[float]:
    """Return the sample's value and the percentiles of the resamples' values."""
    low, high = np.quantile(found[1:], [0.025, 0.975])
    return [float(found[0]), float(low), float(high)]


def _learned(
    reviews: Prompts, seed: int, folder: Path, *, comparisons: int, epochs: int, learning_rate: float
) -> tuple[Callable[..., list[float]], dict[str, Any]]:
    """Return a reward model of the ratings, a sentence encoder with a new head, and what the row says of it."""
    rng = np.random.default_rng([seed, _PAIRS])
    order = rng.permutation(len(reviews))
    fit = train_reward_model(
        _pairs(reviews, order[VALIDATION:], comparisons, rng),
        folder / "model",
        model=minilm(),
        heldout=_pairs(reviews, order[:VALIDATION], VALIDATION, rng),
        epochs=epochs,
        learning_rate=learning_rate,
        seed=derived_seed(seed, _FIT),
        progress_bar=False,
    )
    return RewardModel(fit.folder), {"fit_steps": fit.steps, "comparisons": fit.comparisons}


def _pairs(
    reviews: Prompts, which: Sequence[int] | NDArray[np.int64], count: int, rng: np.random.Generator
) -> list[dict[str, str]]:
    """Return comparisons of random sentences, those rated alike left out; each is drawn about equally often."""
    ratings = reviews.columns["rating"]
    rounds = -(-2 * count // len(which)) + 1
    drawn = np.concatenate([rng.permutation(which) for _ in range(rounds)])
    pairs = [
        sorted(pair, key=lambda i: -ratings[i]) for pair in drawn[: len(drawn) // 2 * 2].reshape(-1, 2).tolist()
    ]
    made = [
        {"prompt": "", "chosen": reviews.texts[better], "rejected": reviews.texts[worse]}
        for better, worse in pairs
        if ratings[better] > ratings[worse]
    ]
    return made[:count]
