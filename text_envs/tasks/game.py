"""Game: find a secret by guesses, each answered by what it reveals."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..belief import WIN, Belief, Solver, random_value
from ..exact import TooLarge, Values
from ..streams import RowRandom
from .base import Replies, Samples, Score, Task, Utterances, at_least

ASK = "?"  # the prompt, and the reply to what is no guess
MAX_GUESSES = 100_000
MAX_TABLE = 20_000_000  # secrets times guesses


class Game(Task):
    """Find a secret in a number of turns.

    Shown: "?". Said: a guess of exactly T tokens; there is no end action. Tokens that cannot continue a guess are
    masked. Replied: what the guess reveals, a fixed function of guess and secret; "?" to what is no guess. Earns:
    1 - (k - 1) / turns for naming the secret at turn k, which ends the episode; all else, masked tokens included,
    earns 0 and uses up its turn. A partial guess scores 0, so `dense` reveals nothing. Secrets are uniform.

    Exact: the optimum by dynamic programming over beliefs (`text_envs.belief`), the random return by the chance
    of each guess under uniform legal tokens.

    Args:
        tokenizer: has a token for "?".
        guesses: (G, T) the ids of each guess, all different, in lexicographic order. The last of them name the
            secrets.
        secrets: S, number of secrets.
        replies: (A, R) the ids of each answer, R at least 1; see `answer`.
        turns: guesses before the episode ends.

    Attributes:
        secrets: S.
        guesses: (G, T), as given.
        turns: as given.
    """

    family = "multi-turn"
    turns: int

    def __init__(self, tokenizer: Any, *, guesses: ArrayLike, secrets: int, replies: ArrayLike, turns: int) -> None:
        self.guesses = np.asarray(guesses, np.int64)
        self.secrets = secrets
        self.turns = at_least(1, turns, "turns")
        answers = np.asarray(replies, np.int64)
        super().__init__(
            tokenizer,
            max_prompt_tokens=1,
            max_new_tokens=self.guesses.shape[1],
            context_length=1 + turns * (self.guesses.shape[1] + answers.shape[1]),
        )
        self._ask = self.codec.encode(ASK)[0]
        no_guess = np.full((1, answers.shape[1]), self.vocab_size)
        no_guess[0, 0] = self._ask
        self._replies = np.concatenate([answers, no_guess])  # row -1 is the reply to what is no guess
        self._steps = list(_prefixes(self.guesses, self.vocab_size))
        self._legal = [step[:-1, :-1] >= 0 for step in self._steps]

    @abstractmethod
    def answer(self, secret: NDArray[np.int64], guess: NDArray[np.int64]) -> NDArray[np.integer]:
        """Return (n,) answers, rows of `replies`, to (n,) guesses under (n,) secrets; WIN, 0, names the secret."""

    def sample(self, random: RowRandom) -> Samples:
        """Return "?" for every row, and a uniform secret in a column."""
        prompt = np.full((len(random), 1), self._ask)
        return Samples(prompt, columns={"secret": random.integers(self.secrets, 1)[:, 0]})

    def score(self, said: Utterances) -> Score:
        """Return 1 - turn / turns, the turn counted from 0, where the secret is named."""
        return Score(np.where(self._answers(said) == WIN, 1.0 - said.turn / self.turns, 0.0))

    def reply(self, said: Utterances, random: RowRandom) -> Replies:
        """Return the answers to guesses; the game is over when the secret is named or the turns are used up."""
        answers = self._answers(said)
        lengths = np.where(answers < 0, 1, self._replies.shape[1])
        over = (answers == WIN) | (said.turn == self.turns - 1)
        return Replies(self._replies[answers], lengths, over)

    def action_mask(self, said: Utterances) -> NDArray[np.bool_]:
        """Return where a token continues what was said towards a guess."""
        spoken = said.length - said.start
        mask = np.zeros((len(said), self.vocab_size), np.bool_)
        prefix = np.zeros(len(said), np.int64)
        for t, legal in enumerate(self._legal):
            if t:
                prefix = self._follow(t - 1, prefix, said)
            now = spoken == t
            mask[now] = legal[prefix[now]]
        return mask

    def candidates(self, said: Utterances, k: int, random: RowRandom) -> list[list[str]]:
        """Return all guesses in their order if there are at most `k`, else those among `k` uniform draws."""
        count = len(self.guesses)
        if count <= k:
            return [list(self._texts) for _ in range(len(said))]
        drawn = random.integers(count, k).tolist()
        return [[self._texts[guess] for guess in dict.fromkeys(row)] for row in drawn]

    @cached_property
    def _texts(self) -> list[str]:
        """The guesses as text."""
        return list(map(self.codec.decode, self.guesses))

    @cached_property
    def solver(self) -> Solver:
        """The game's beliefs: the best guess after any answers, and what it is worth.

        Raises:
            TooLarge: if the table of answers is too large.
        """
        cells = self.secrets * len(self.guesses)
        if cells > MAX_TABLE:
            raise TooLarge(
                f"{self.secrets:,} secrets x {len(self.guesses):,} guesses = {cells:.1e} answers, more than "
                f"{MAX_TABLE:.0e}; make the game smaller"
            )
        every = np.arange(len(self.guesses))
        return Solver(
            [self.answer(np.full_like(every, secret), every) for secret in range(self.secrets)], self.turns
        )

    @cached_property
    def values(self) -> Values:
        """The exact ends of the game's scale.

        Raises:
            TooLarge: if there are too many beliefs; `reference_return` is cheaper.
        """
        return Values(
            optimal=self.solver.value(),
            random=self.random_return(),
            prompts=self.secrets,
            states=self.solver.states,
            method="enumerated",
        )

    def random_return(self) -> float:
        """Return the expected clean return of tokens uniform over the legal ones, of a game of any size."""
        return random_value(_chances(self._legal)[-self.secrets :], self.turns)

    def demonstrate(self, said: Utterances) -> list[list[int]]:
        """Return the ids of a best guess at each context, found from what was said and replied in it.

        Raises:
            TooLarge: if there are too many beliefs.
        """
        best: dict[tuple[bytes, int], list[int]] = {}
        keys = []
        for tokens, start, turn in zip(said.tokens, said.start, said.turn, strict=True):
            key = tokens[1:start].tobytes(), int(turn)
            if key not in best:
                guess = self.solver.best(self._belief(tokens[1:start]), self.turns - key[1])
                best[key] = self.guesses[guess].tolist()
            keys.append(key)
        return [best[key] for key in keys]

    def reference_return(self) -> float:
        """Return the exact expected return of a strong and cheap strategy; see `belief.Solver.quick`.

        Raises:
            TooLarge: if the table of answers is too large.
        """
        return self.solver.quick_value()

    def _belief(self, context: NDArray[np.int64]) -> Belief:
        """Return the secrets that agree with all answers in a context; whatever is no guess says nothing."""
        possible, at = self.solver.everything, 0
        length, width = self.guesses.shape[1], self._replies.shape[1]
        while at + length < len(context):
            guess = 0
            for step, token in zip(self._steps, context[at:], strict=False):
                guess = step[guess, token]
            if guess < 0:
                at += 1
                continue
            at += length + width
            answers = self._replies[self.answer(possible, np.full_like(possible, guess))]
            possible = possible[(answers == context[at - width : at]).all(axis=1)]
        return possible

    def _answers(self, said: Utterances) -> NDArray[np.int64]:
        """Return (n,) answers, -1 where what was said is no guess."""
        guess = np.zeros(len(said), np.int64)
        for t in range(len(self._steps)):
            guess = self._follow(t, guess, said)
        return np.where(guess < 0, -1, self.answer(said.columns["secret"], np.maximum(guess, 0)))

    def _follow(self, t: int, prefix: NDArray[np.int64], said: Utterances) -> NDArray[np.int64]:
        """Return (n,) prefixes after token t of the utterances."""
        return self._steps[t][prefix, said.tokens[np.arange(len(said)), said.start + t]]


def _prefixes(guesses: NDArray[np.int64], vocab_size: int) -> Iterator[NDArray[np.int64]]:
    """Yield for each position the (prefixes + 1, V + 1) table of the next position's prefix, -1 for none.

    Prefixes are numbered in lexicographic order, so those of full length are the guesses' numbers. The last row
    and column lead to -1: from there, and by the padding V, nothing goes on.
    """
    prefix = np.zeros(len(guesses), np.int64)
    for tokens in guesses.T:
        edges, following = np.unique(prefix * vocab_size + tokens, return_inverse=True)
        step = np.full((prefix[-1] + 2, vocab_size + 1), -1)
        step[np.divmod(edges, vocab_size)] = np.arange(len(edges))
        yield step
        prefix = following


def _chances(masks: list[NDArray[np.bool_]]) -> NDArray[np.float64]:
    """Return (G,) the probability of each guess if each token is uniform over the legal ones."""
    chance = np.ones(1)
    for legal in masks:
        chance = (chance / legal.sum(axis=1))[np.nonzero(legal)[0]]
    return chance
