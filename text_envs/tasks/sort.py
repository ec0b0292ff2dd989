"""Sort: say in order what you were shown."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .copy import Copy


class Sort(Copy):
    """Put a random string in alphabetical order.

    Shown: `length` symbols, uniform and independent. Said: exactly `length` symbols; there is no end action.
    Earns: the fraction of positions that agree with the prompt's symbols in the order of the alphabet, which is
    that of their ids, each as often as it was shown; missing positions are wrong. As in Copy, random symbols
    earn 1 / vocab_size and the best is 1.

    Source: the sorting task of Graves, Wayne & Danihelka 2014, "Neural Turing Machines", arXiv:1410.5401, by
    the symbols themselves instead of priorities.
    """

    def wanted(self, shown: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the symbols in order."""
        return np.sort(shown, axis=1)
