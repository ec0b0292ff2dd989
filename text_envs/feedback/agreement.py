"""How far annotators agree: pure functions of their answers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..rewards.packages import missing
from .records import CHOICES
from .store import Answer


@dataclass(frozen=True)
class Agreement:
    """How far annotators agree.

    Attributes:
        alpha: Krippendorff's, 1 for perfect agreement and 0 for none beyond chance; None: undefined.
        shared: pairs that two annotators or more have compared.
        with_others: pseudonym -> share of the others' answers to the same pairs that were theirs too; None: nobody
            else compared these. Chance is not taken off: of random answers a third agree, or half without ties.
    """

    alpha: float | None
    shared: int
    with_others: Mapping[str, float | None]


def agreement(answers: Iterable[Answer]) -> Agreement:
    """Return how far the annotators of some answers, such as `Store.answers()`, agree.

    Raises:
        ImportError: if the package krippendorff is not installed.
    """
    answers = list(answers)
    counts = count(answers)
    shared = sum(sum(chosen) > 1 for chosen in counts.values())
    table = np.array(list(counts.values()), np.int64).reshape(-1, len(CHOICES))
    return Agreement(alpha(table), shared, with_others(answers, counts))


def count(answers: Iterable[Answer]) -> dict[int, list[int]]:
    """Return how often each choice was made: pair -> [a, b, tie]."""
    counts: defaultdict[int, list[int]] = defaultdict(lambda: [0] * len(CHOICES))
    for answer in answers:
        counts[answer.pair][CHOICES.index(answer.choice)] += 1
    return dict(counts)


def alpha(counts: NDArray[np.int64]) -> float | None:
    """Return Krippendorff's alpha of nominal values.

    Args:
        counts: (pairs, values), how many annotators gave a pair each value.

    Returns:
        At most 1; None where it is undefined: no pair has two answers, or all answers to such pairs are the same.

    Raises:
        ImportError: if the package krippendorff is not installed.

    Source: Krippendorff 2011, "Computing Krippendorff's alpha-reliability".
    """
    try:
        import krippendorff
    except ImportError as error:
        raise missing("Krippendorff's alpha", "krippendorff", "feedback") from error
    counts = counts[counts.sum(axis=1) > 1]
    if np.count_nonzero(counts.sum(axis=0)) < 2:
        return None
    return float(krippendorff.alpha(value_counts=counts, level_of_measurement="nominal"))


def with_others(answers: Iterable[Answer], counts: Mapping[int, list[int]]) -> dict[str, float | None]:
    """Return annotator -> share of the others' answers to the same pairs that were theirs too, None of nothing.

    Args:
        answers: each annotator's, at most one to a pair.
        counts: of these answers, as `count` returns them.
    """
    same: defaultdict[str, int] = defaultdict(int)
    others: defaultdict[str, int] = defaultdict(int)
    for pair, annotator, choice in answers:
        same[annotator] += counts[pair][CHOICES.index(choice)] - 1
        others[annotator] += sum(counts[pair]) - 1
    return {annotator: same[annotator] / others[annotator] if others[annotator] else None for annotator in same}
