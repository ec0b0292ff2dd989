"""Simulated annotators: who prefers what, with what noise and which bias, is known exactly.

People's answers are kept in `store.py`; what is learned from comparisons is `agents.reward_model`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..rewards.base import RewardFunction, evaluate

FIRST, SECOND, TIE = 0, 1, 2
_STEEPEST = 1e6  # log-odds for a unit of reward: who sees every difference


@dataclass(frozen=True)
class Annotator:
    """Who compares two texts that are shown one after the other.

    The log-odds that the first is preferred are `scale` for each unit of reward, `length_bias` for each character
    by which it is longer, and `position_bias` for its place.

    Attributes:
        scale: 0 is a coin; the larger, the fewer errors.
        length_bias: positive for a taste for long texts.
        position_bias: positive for a taste for what was shown first.
        lapse: share of the answers that are given without looking, each answer equally likely.
        tie_threshold: log-odds that a difference must overcome not to be called a tie; 0: never a tie.

    Raises:
        ValueError: if a number is out of range.

    Source: Bradley & Terry 1952, "Rank analysis of incomplete block designs"; ties as in Rao & Kupper 1967, "Ties
    in paired-comparison experiments: a generalization of the Bradley-Terry model", with theta =
    exp(tie_threshold).
    """

    scale: float = 1.0
    length_bias: float = 0.0
    position_bias: float = 0.0
    lapse: float = 0.0
    tie_threshold: float = 0.0

    def __post_init__(self) -> None:
        for name in ("scale", "length_bias", "position_bias", "lapse", "tie_threshold"):
            if not math.isfinite(getattr(self, name)):
                raise ValueError(f"{name}={getattr(self, name)}; give a finite number")
        if self.scale < 0 or self.tie_threshold < 0 or not 0 <= self.lapse <= 1:
            raise ValueError(
                f"scale={self.scale} and tie_threshold={self.tie_threshold} are at least 0, lapse={self.lapse} is "
                "a share from 0 to 1"
            )

    def probabilities(self, rewards: ArrayLike, lengths: ArrayLike | None = None) -> NDArray[np.float64]:
        """Return (n, 3), how probable FIRST, SECOND and TIE are.

        Args:
            rewards: (n, 2) of the text shown first and second.
            lengths: (n, 2) characters; needed where there is a length bias.

        Raises:
            ValueError: if the shapes differ, a reward is not finite, or lengths are missing.
        """
        log_odds = self.scale * _difference(rewards, "rewards") + self.position_bias
        if self.length_bias:
            if lengths is None:
                raise ValueError(f"length_bias={self.length_bias} needs the texts' lengths, (n, 2)")
            log_odds = log_odds + self.length_bias * _difference(lengths, "lengths")
        first = _sigmoid(log_odds - self.tie_threshold)
        second = _sigmoid(-log_odds - self.tie_threshold)
        # The rest, but as a product: what is left of 1 would be lost in rounding.
        tie = np.expm1(2 * self.tie_threshold) * first * second
        looked = np.stack([first, second, tie], axis=1)
        blind = np.array([1, 1, 1] if self.tie_threshold else [1, 1, 0], float)
        return (1 - self.lapse) * looked + self.lapse * blind / blind.sum()

    def choose(
        self, rewards: ArrayLike, rng: np.random.Generator, lengths: ArrayLike | None = None
    ) -> NDArray[np.int64]:
        """Return (n,) answers, each FIRST, SECOND or TIE; see `probabilities`."""
        cumulated = self.probabilities(rewards, lengths).cumsum(axis=1)
        drawn = rng.random(len(cumulated)) * cumulated[:, -1]
        return (drawn[:, None] >= cumulated).sum(axis=1)

    def best_accuracy(self, rewards: ArrayLike, lengths: ArrayLike | None = None) -> float:
        """Return the largest expected share of answers, ties left out, that any ranking of the texts agrees with.

        Which text was shown first is unknown to the ranking, and equally likely.

        Args:
            rewards: (n, 2) of the two texts of each comparison, in any order.
            lengths: (n, 2) characters.
        """
        swapped = None if lengths is None else np.asarray(lengths)[:, ::-1]
        as_given = self.probabilities(rewards, lengths)
        turned = self.probabilities(np.asarray(rewards, float)[:, ::-1], swapped)
        decided = as_given[:, :2] + turned[:, 1::-1]  # (n, 2), how often each text wins
        return float(decided.max(axis=1).sum() / decided.sum())


def scale_of_noise(rewards: ArrayLike, noise: float) -> float:
    """Return the scale at which this share of answers, over pairs that differ in reward, goes against the reward.

    Args:
        rewards: (n, 2) of the compared texts.
        noise: from 0 to below 0.5.

    Raises:
        ValueError: if it is not, or no two rewards differ.
    """
    gaps = np.abs(_difference(rewards, "rewards"))
    gaps = gaps[gaps > 0]
    if not 0 <= noise < 0.5 or not gaps.size:
        raise ValueError(
            f"noise={noise} over {gaps.size} pairs that differ in reward; give a share from 0 to below 0.5, and at "
            "least one such pair"
        )
    low, high = 0.0, _STEEPEST / float(gaps.max())
    for _ in range(200):  # bisection; it ends where floats do
        middle = (low + high) / 2
        low, high = (middle, high) if _sigmoid(-middle * gaps).mean() > noise else (low, middle)
    return high


def simulate(
    prompts: Sequence[str],
    pairs: Sequence[tuple[str, str]],
    reward: RewardFunction,
    annotator: Annotator,
    rng: np.random.Generator,
) -> list[dict[str, Any]]:
    """Return an annotator's comparisons of completions, as `agents.preferences` and TRL read them.

    Args:
        prompts: n.
        pairs: n, two completions each; they are shown in a random order.
        reward: what the annotator goes by; see `text_envs.rewards.base`.
        annotator: who answers.
        rng: of the order and the answers.

    Returns:
        n dicts of `prompt`, `chosen`, `rejected` and `tie`; of a tie, the texts as they were shown.
    """
    turned = rng.random(len(pairs)) < 0.5
    shown = [(b, a) if turn else (a, b) for (a, b), turn in zip(pairs, turned, strict=True)]
    rewards = np.stack([evaluate(reward, list(prompts), list(side), {})[0] for side in zip(*shown, strict=True)], 1)
    lengths = np.array([[len(first), len(second)] for first, second in shown])
    answers = annotator.choose(rewards, rng, lengths)
    return [
        {
            "prompt": prompt,
            "chosen": second if answer == SECOND else first,
            "rejected": first if answer == SECOND else second,
            "tie": bool(answer == TIE),
        }
        for prompt, (first, second), answer in zip(prompts, shown, answers, strict=True)
    ]


def _difference(values: ArrayLike, name: str) -> NDArray[np.float64]:
    """Return (n,), by how much the first of each pair exceeds the second."""
    found = np.asarray(values, float)
    if found.ndim != 2 or found.shape[1] != 2 or not np.isfinite(found).all():
        raise ValueError(f"{name} are finite and of shape (n, 2), got shape {found.shape}: {values!r:.200}")
    return found[:, 0] - found[:, 1]


def _sigmoid(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.exp(-np.logaddexp(0, -x))
