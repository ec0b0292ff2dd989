"""Comparisons of completions: read, checked, split; how well scores agree with them. No model, no training."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Source = str | Path | Iterable[Mapping[str, Any]]
_TEXTS = ("prompt", "chosen", "rejected")
_BINS = 10
_RESAMPLES = 2000


class Comparison(NamedTuple):
    """Two completions of a prompt; of a tie, neither was preferred."""

    prompt: str
    chosen: str
    rejected: str
    tie: bool = False


@dataclass(frozen=True)
class Agreement:
    """How well scores foretell comparisons.

    Attributes:
        comparisons: how many, ties left out.
        accuracy: share whose chosen completion scores higher; equal scores count half.
        low: lower end of its 95% interval: percentiles of a bootstrap over prompts, or, where all have the same,
            over comparisons. Where all are right, or all wrong, no draw differs, and it is that of Clopper &
            Pearson 1934 for as many prompts.
        high: the upper end.
        calibration_error: mean difference of confidence and accuracy over the bins, weighted by their size: the
            expected calibration error of Guo et al. 2017, arXiv:1706.04599.
        reliability: (mean confidence, accuracy, comparisons) of each bin of confidence that is not empty.
    """

    comparisons: int
    accuracy: float
    low: float
    high: float
    calibration_error: float
    reliability: list[tuple[float, float, int]]


def read_comparisons(source: Source) -> list[Comparison]:
    """Return comparisons in the format of TRL's reward trainer, in plain text.

    Args:
        source: the path of a .jsonl file, or mappings: `prompt`, `chosen`, `rejected` and perhaps `tie`, true where
            neither was preferred. Other fields are ignored.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if a line is no comparison, or there is none; the message names the line.
    """
    if isinstance(source, str | Path):
        path = Path(source).expanduser()
        if not path.is_file():
            raise FileNotFoundError(
                f"{str(source)[:200]!r} is no file; give the path of a .jsonl file of comparisons"
            )
        found = [_comparison(record, where) for where, record in _lines(path)]
        where = str(path)
    else:
        found = [_comparison(record, f"comparison {number}") for number, record in enumerate(source)]
        where = "the source"
    if not found:
        raise ValueError(f"{where} holds no comparison; give at least one")
    return found


def split(comparisons: Sequence[Comparison], fraction: float) -> tuple[list[Comparison], list[Comparison]]:
    """Return the comparisons to train on and those to hold out, which share no prompt.

    A hash of the prompt decides, so that a prompt stays on its side when comparisons are added.

    Raises:
        ValueError: if the fraction is not between 0 and 1, or a side is empty.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"heldout_fraction={fraction}; give a number between 0 and 1")
    sides: tuple[list[Comparison], list[Comparison]] = ([], [])
    for comparison in comparisons:
        sides[_share(comparison.prompt) < fraction].append(comparison)
    if not all(sides):
        prompts = len({comparison.prompt for comparison in comparisons})
        raise ValueError(
            f"{len(comparisons)} comparisons of {prompts} prompts cannot be split: a prompt is on one side only, "
            f"and heldout_fraction={fraction} leaves a side empty; give comparisons of more prompts, another "
            "fraction, or the held-out comparisons yourself (heldout=, --heldout)"
        )
    return sides


def agreement(
    log_odds: NDArray[np.floating], prompts: Sequence[str], rng: np.random.Generator, bins: int = _BINS
) -> Agreement:
    """Return how well scores foretell comparisons that are no ties.

    Args:
        log_odds: (n,) that the chosen completion is preferred.
        prompts: n.
        rng: of the bootstrap.
        bins: of equal width, of the confidence from 0.5 to 1.

    Raises:
        ValueError: if there is no comparison, or a number is not finite.
    """
    log_odds = np.asarray(log_odds, float)
    if not len(log_odds) or not np.isfinite(log_odds).all():
        raise ValueError(f"{len(log_odds)} log-odds {log_odds[:5]}; give at least one, all finite")
    right = (log_odds > 0) + 0.5 * (log_odds == 0)
    confidence = 1 / (1 + np.exp(-np.abs(log_odds)))
    where = np.minimum(((confidence - 0.5) * 2 * bins).astype(int), bins - 1)
    table = [
        (float(confidence[where == b].mean()), float(right[where == b].mean()), int((where == b).sum()))
        for b in np.unique(where)
    ]
    error = sum(count * abs(sure - hit) for sure, hit, count in table) / len(right)
    low, high = _interval(right, prompts, rng)
    return Agreement(len(right), float(right.mean()), low, high, error, table)


def _interval(right: NDArray[np.float64], prompts: Sequence[str], rng: np.random.Generator) -> tuple[float, float]:
    """Return the percentile interval of the mean: a prompt's comparisons are drawn together."""
    _, group = np.unique(np.asarray(prompts, object), return_inverse=True)
    if group.max() == 0:
        group = np.arange(len(right))
    hits, sizes = np.bincount(group, right), np.bincount(group)
    if right.min() == right.max() != 0.5:
        beyond = 1 - 0.025 ** (1 / len(sizes))
        return (1 - beyond, 1.0) if right.min() else (0.0, beyond)
    drawn = [rng.integers(len(sizes), size=len(sizes)) for _ in range(_RESAMPLES)]
    low, high = np.quantile([hits[d].sum() / sizes[d].sum() for d in drawn], [0.025, 0.975])
    return float(low), float(high)


def _lines(path: Path) -> Iterator[tuple[str, Any]]:
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            where = f"{path}:{number}"
            if not line.strip():
                continue
            try:
                yield where, json.loads(line)
            except (ValueError, RecursionError) as error:
                raise ValueError(f"{where} is no JSON in UTF-8 ({error}): {line[:80]!r}") from error


def _comparison(record: Any, where: str) -> Comparison:
    """Return a checked comparison.

    Raises:
        ValueError: if it is none.
    """
    if not isinstance(record, Mapping):
        raise ValueError(f'{where} is {record!r:.80}; expected {{"prompt": ..., "chosen": ..., "rejected": ...}}')
    for name in _TEXTS:
        text = record.get(name)
        if not isinstance(text, str):
            given = f"{name!r} is {text!r:.80}" if name in record else f"there is no {name!r}"
            raise ValueError(f"{where}: {given}; give plain text (chats: put through their template)")
        if any("\ud800" <= character <= "\udfff" for character in text):
            raise ValueError(f"{where}: {name!r} holds half a character (a lone surrogate): {text[:80]!r}")
    tie = False if record.get("tie") is None else record["tie"]  # null: some write it where others leave it out
    if not isinstance(tie, bool):
        raise ValueError(f"{where}: 'tie' is {tie!r:.80}; give true or false, or leave it out")
    return Comparison(record["prompt"], record["chosen"], record["rejected"], tie)


def _share(prompt: str) -> float:
    return int.from_bytes(hashlib.sha256(prompt.encode()).digest()[:8], "big") / 2**64
