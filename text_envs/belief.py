"""Exact values of guessing games: dynamic programming over beliefs, the sets of secrets that may still be true.

A game is a table of answers: what each guess is answered under each secret. What a game's utterances look like
does not live here but in `tasks/game.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .exact import TooLarge

Found = TypeVar("Found")

WIN = 0  # the answer to the guess that names the secret
MAX_WORK = 1_000_000_000  # answers looked at; about ten seconds on one core
OVERHEAD = 2_000  # of a belief, in answers looked at
Belief = NDArray[np.intp]  # numbers of secrets, ascending


class Solver:
    """The best way to find a secret in a limited number of turns, and what it earns.

    All secrets are equally likely. Finding the secret with t turns left, this one included, earns t / turns. In
    units of 1 / turns, summed over the secrets of a belief b, the best is

        W(b, t) = max_g ( t [g names one of b] + sum_a W({s in b: answers[s, g] = a}, t - 1) ),

    the sum over all answers a but WIN, and W(b, 0) = 0. The sums are integers, so the values are exact. Beliefs
    are solved when they are reached, and a guess is looked into only if its bound exceeds the best so far: of
    secrets that no answer separates one can be found a turn, and no guess has more answers than the one that
    has most.

    Args:
        answers: (S, G) the answer to each guess under each secret, 0 (WIN) where it names the secret, else a
            positive integer.
        turns: guesses before the game is over, at least 1.

    Raises:
        ValueError: if a secret cannot be named, or a guess names two.

    Source: Bellman 1957, "Dynamic Programming"; Knuth 1976, "The computer as Master Mind", for beliefs as sets.
    """

    def __init__(self, answers: ArrayLike, turns: int) -> None:
        table = np.asarray(answers)
        named = (table == WIN).sum(axis=1)
        if not named.all():
            raise ValueError(f"no guess names secret {int(np.argmin(named))}; give each secret a guess of its own")
        if ((table == WIN).sum(axis=0) > 1).any():
            guess = int(np.argmax((table == WIN).sum(axis=0)))
            raise ValueError(f"guess {guess} names more than one secret; a guess wins under one secret only")
        codes, numbers = np.unique(table, return_inverse=True)
        self._answers = numbers.reshape(table.shape)
        self._count = len(codes)  # A, answers that occur
        self._naming = np.argmax(table == WIN, axis=1)  # (S,) the guess that names each secret
        self._columns = np.arange(table.shape[1]) * self._count
        self.turns = turns
        self.everything: Belief = np.arange(len(table))
        self._known: dict[tuple[bytes, int], tuple[int, int]] = {}  # belief, turns left -> worth, guess
        self._work = 0
        self._limits = self._make_limits()

    def value(self) -> float:
        """Return the largest expected return.

        Raises:
            TooLarge: with the number of beliefs, if there are too many.
        """
        self._work = 0
        return self._search(self.worth, self.everything, self.turns) / (len(self.everything) * self.turns)

    @property
    def states(self) -> int:
        """Beliefs that have been solved so far; those of one or two secrets need no search and do not count."""
        return len(self._known)

    def worth(self, belief: Belief, left: int) -> int:
        """Return W(belief, left): the best return in units of 1 / turns, summed over the belief's secrets."""
        if left <= 1 or len(belief) <= 2:  # name them one after the other
            return sum(range(left, max(left - len(belief), 0), -1))
        return self._solve(belief, left)[0]

    def best(self, belief: Belief, left: int) -> int:
        """Return a guess that earns W(belief, left); the belief has at least one secret.

        Raises:
            TooLarge: with the number of beliefs, if there are too many.
        """
        self._work = 0
        if left <= 1 or len(belief) <= 2:
            return int(self._naming[belief[0]])
        return self._search(self._solve, belief, left)[1]

    def quick(self, belief: Belief, left: int) -> int:
        """Return the guess with the largest bound: a strong one, found without search.

        Where guesses have many answers, it is the one that gets the most different answers: the "most parts"
        strategy of Kooi 2005, "Yet another Mastermind strategy".
        """
        if left <= 1 or len(belief) <= 2:
            return int(self._naming[belief[0]])
        return int(np.argmax(self._bounds(belief, left)))

    def quick_value(self) -> float:
        """Return the expected return of `quick`."""
        worth, open_ = 0, [(self.everything, self.turns)]
        while open_:
            belief, left = open_.pop()
            if left <= 1 or len(belief) <= 2:
                worth += self.worth(belief, left)
                continue
            guess = self.quick(belief, left)
            worth += left * int((self._answers[belief, guess] == WIN).any())
            open_ += [(part, left - 1) for part in self.parts(belief, guess)]
        return worth / (len(self.everything) * self.turns)

    def parts(self, belief: Belief, guess: int) -> list[Belief]:
        """Return what may still be true after each answer to a guess but WIN, without the impossible."""
        answers = self._answers[belief, guess]
        return [belief[answers == answer] for answer in np.unique(answers) if answer != WIN]

    def _solve(self, belief: Belief, left: int) -> tuple[int, int]:
        key = belief.tobytes(), left
        if key not in self._known:
            self._count_work(len(belief))
            bounds, limits = self._bounds(belief, left), self._limits[left - 1]
            best, choice = -1, -1
            for guess in np.argsort(-bounds, kind="stable"):
                worth = int(bounds[guess])
                if worth <= best:
                    break
                for part in self.parts(belief, guess):
                    worth += self.worth(part, left - 1) - int(limits[len(part)])
                    if worth <= best:
                        break
                else:
                    best, choice = worth, int(guess)
            self._known[key] = best, choice
        return self._known[key]

    def _search(self, search: Callable[[Belief, int], Found], belief: Belief, left: int) -> Found:
        """Return what a search finds, if it does not go deeper than Python does."""
        try:
            return search(belief, left)
        except RecursionError:
            raise self._too_large() from None

    def _count_work(self, secrets: int) -> None:
        self._work += (secrets + self._count) * len(self._columns) + OVERHEAD
        if self._work > MAX_WORK:
            raise self._too_large()

    def _too_large(self) -> TooLarge:
        return TooLarge(
            f"the exact solution is not found after {self.states:,} beliefs (sets of secrets that may still be "
            f"true) of a game of {len(self.everything):,} secrets, {len(self._columns):,} guesses and "
            f"{self.turns:,} turns; make it smaller, or compare with the task's reference_return()"
        )

    def _bounds(self, belief: Belief, left: int) -> NDArray[np.int64]:
        """Return (G,) upper bounds of what each guess earns, as if W of all that follows met its limit."""
        counts = self._answer_counts(belief)
        return left * counts[:, WIN] + self._limits[left - 1][counts[:, WIN + 1 :]].sum(axis=1)

    def _answer_counts(self, belief: Belief) -> NDArray[np.int64]:
        """Return (G, A), under how many of a belief's secrets each guess gets each answer."""
        size = len(self._columns) * self._count
        cells = self._answers[belief] + self._columns
        return np.bincount(cells.reshape(-1), minlength=size).reshape(-1, self._count)

    def _make_limits(self) -> NDArray[np.int64]:
        """Return (turns + 1, S + 1) upper bounds of W for each number of turns left and of secrets.

        The increments of each row are made to descend, so the best way to divide secrets among answers is to
        hand each answer its largest increment first.
        """
        secrets = len(self.everything)
        counts = self._answer_counts(self.everything)
        parts = (counts[:, WIN + 1 :] > 0).sum(axis=1)
        names = counts[:, WIN] > 0
        naming, asking = parts[names].max(), parts[~names].max(initial=0)
        limits = np.zeros((self.turns + 1, secrets + 1), np.int64)
        for left in range(1, self.turns + 1):
            gains = np.diff(limits[left - 1])
            named, asked = np.zeros((2, secrets), np.int64)
            rest = np.repeat(gains, naming)[: secrets - 1]
            named[0], named[1 : 1 + len(rest)] = left, rest
            rest = np.repeat(gains, asking)[:secrets]
            asked[: len(rest)] = rest
            together = np.maximum(np.cumsum(named), np.cumsum(asked))
            limits[left, 1:] = np.cumsum(-np.sort(-np.diff(together, prepend=0)))
        return limits


def random_value(chances: ArrayLike, turns: int) -> float:
    """Return the expected return of guesses that do not depend on the answers.

    Args:
        chances: (S,) the probability that a guess names each secret; the secrets are equally likely.
        turns: guesses before the game is over. Finding the secret at turn k earns 1 - (k - 1) / turns.
    """
    chance = np.asarray(chances, np.float64)[:, None]
    before = np.arange(turns)  # wrong guesses
    return float((chance * (1 - chance) ** before @ (1 - before / turns)).mean())
