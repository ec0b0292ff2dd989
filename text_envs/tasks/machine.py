"""Tasks that are a finite machine: the table that scores their utterances is the one the exact solver reads."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..exact import CLOSED, Automaton
from .base import Samples, Score, Task, Utterances


class MachineTask(Task):
    """A task whose utterances earn the points that a machine collects on its way through them.

    All prompts have `max_prompt_tokens` tokens, and `sample` gives the (n,) column "state": the state in which
    the machine begins to read what is said after each of them. The empty utterance is worth 0.

    Args:
        tokenizer: as for every task.
        following: (S, V) the state after each token, `exact.CLOSED` where the end token is said.
        points: (S, V) what each token earns, or costs.
        out_of: an utterance's score is its points over this; a number, or (S,) by the state, the same for all
            states that lie on one way.
        max_prompt_tokens: P.
        max_new_tokens: T.
    """

    one_machine = True

    def __init__(
        self,
        tokenizer: Any,
        following: NDArray[np.int64],
        points: NDArray[np.float64],
        *,
        out_of: ArrayLike,
        max_prompt_tokens: int,
        max_new_tokens: int,
    ) -> None:
        super().__init__(tokenizer, max_prompt_tokens=max_prompt_tokens, max_new_tokens=max_new_tokens)
        # One more state and token, closed and padding, earn nothing: so rows of any length are read at once.
        self._following = np.pad(following, (0, 1), constant_values=CLOSED)
        self._points = np.pad(points, (0, 1))
        self._out_of = np.broadcast_to(np.asarray(out_of, np.float64), len(following))

    def score(self, said: Utterances) -> Score:
        """Return the points of what was said so far, over what they are out of."""
        state = start = said.columns["state"]
        total = np.zeros(len(said))
        for t in range(self.max_prompt_tokens, int(said.length.max(initial=0))):
            place = state * self._points.shape[1] + said.tokens[:, t]  # in the last row for CLOSED, -1
            total += self._points.take(place)
            state = self._following.take(place)
        return Score(total / self._out_of[start])

    def automaton(self, samples: Samples) -> Automaton:
        """Return the machine itself."""
        gain = self._points[:-1, :-1] / self._out_of[:, None]
        return Automaton(self._following[:-1, :-1], gain, samples.columns["state"], self.max_new_tokens)
