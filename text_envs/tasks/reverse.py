"""Reverse: say backwards what you were shown."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .copy import Copy


class Reverse(Copy):
    """Repeat a random string backwards.

    Shown: `length` symbols, uniform and independent. Said: exactly `length` symbols; there is no end action.
    Earns: the fraction of positions that agree with the reversed prompt; missing positions are wrong. As in
    Copy, random symbols earn 1 / vocab_size and the best is 1.

    Source: the reversal task of Grefenstette et al. 2015, "Learning to transduce with unbounded memory",
    arXiv:1506.02516.
    """

    def wanted(self, shown: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the symbols backwards."""
        return shown[:, ::-1]
