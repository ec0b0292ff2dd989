"""What the distance to a reference policy costs."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass
class KLCoefficient:
    """What a nat of log-ratio costs in reward: fixed, or steered towards a target.

    Attributes:
        value: the coefficient now.
        target: nats per episode to hold; None keeps `value` fixed.
        horizon: episodes over which the coefficient follows; smaller follows faster.
        observed: nats per episode, of those that ended in the last rollout in which some did.

    Source: Ziegler et al. 2019, section 2.2, arXiv:1909.08593.
    """

    value: float
    target: float | None = None
    horizon: float = 1000.0
    observed: float = 0.0

    def update(self, kl: float, episodes: int) -> None:
        """Follow the KL (nats per episode) seen over some episodes."""
        self.observed = kl
        if self.target is not None:
            error = min(max(kl / self.target - 1, -0.2), 0.2)
            self.value *= 1 + error * min(1.0, episodes / self.horizon)


def finished_sums(
    terms: NDArray[np.floating], starts: NDArray[np.bool_], ends: NDArray[np.bool_], carried: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return (k,) sums over the episodes that ended, and (B,) sums so far of those that go on.

    Args:
        terms: (T, B), one of each step.
        starts: (T, B), True where the step is its episode's first.
        ends: (T, B), True where it is the last.
        carried: (B,) sums so far, from before the first step.
    """
    finished = []
    for term, start, end in zip(terms, starts, ends, strict=True):
        carried = np.where(start, 0.0, carried) + term
        finished.append(carried[end])
    return np.concatenate(finished), carried


def check_kl(
    reference: object, kl_coef: float, kl_target: float | None = None, kl_horizon: float = math.inf
) -> None:
    """Raise unless the arguments on the KL go together."""
    if not (math.isfinite(kl_coef) and kl_coef >= 0):
        raise ValueError(f"kl_coef={kl_coef} is a price for each nat; give a finite number, at least 0")
    if kl_target is not None and not (kl_target > 0 and kl_coef > 0 and kl_horizon > 0):
        raise ValueError(
            f"kl_target={kl_target} steers kl_coef={kl_coef} over kl_horizon={kl_horizon} episodes by factors; "
            "give positive numbers for all three"
        )
    if kl_coef and reference is None:
        raise ValueError(f"kl_coef={kl_coef} needs a reference; pass reference='initial' or a model")
