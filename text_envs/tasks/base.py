"""What a task is: the contract between a task and the engine, in arrays with one row per episode.

A task has no state of its own: everything about an episode is in its tokens, its turn and the columns that
`sample` returned, so that one task serves any number of rows.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from numbers import Real
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from .. import exact
from ..streams import RowRandom, Stream
from ..tokenizer import as_tokenizer


@dataclass(frozen=True, slots=True)
class Samples:
    """Prompts of n new episodes.

    Attributes:
        tokens: (n, P) token ids, right-padded with V where `lengths` differ.
        lengths: (n,) tokens of each prompt, at least 1; None: all P.
        columns: what else the task will want to know of each row, (n, ...) each, such as a reference.
    """

    tokens: NDArray[np.int64]
    lengths: NDArray[np.int64] | None = None
    columns: Mapping[str, NDArray[Any]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Utterances:
    """What n rows have said; the arrays are to be read, not written.

    Attributes:
        tokens: (n, L) contexts, right-padded with V.
        start: (n,) index of the utterance's first token.
        length: (n,) index after its last one: the context's length.
        turn: (n,) utterances closed before this one.
        columns: the rows of `Samples.columns`.
        closed: (n,) True where nothing more is said, as `score` and `reply` see it; False: nowhere. Without an end
            token, a text (utterance level) may close before the budget does.
    """

    tokens: NDArray[np.int64]
    start: NDArray[np.int64]
    length: NDArray[np.int64]
    turn: NDArray[np.int64]
    columns: Mapping[str, NDArray[Any]]
    closed: NDArray[np.bool_] | bool = False

    def __len__(self) -> int:
        """Return n."""
        return len(self.length)

    def ids(self) -> list[list[int]]:
        """Return the token ids of each utterance, its end token included."""
        rows = zip(self.tokens, self.start, self.length, strict=True)
        return [row[start:end].tolist() for row, start, end in rows]


@dataclass(frozen=True, slots=True)
class Score:
    """What n utterances are worth.

    Attributes:
        value: (n,) float64.
        details: per-row values for `info` when the utterance closes, n each; dicts may nest.
    """

    value: NDArray[np.float64]
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Replies:
    """The task's answers to n closed utterances.

    Attributes:
        tokens: (n, R) ids to append to the contexts, right-padded with V.
        lengths: (n,) tokens of each reply, 0 for none.
        over: (n,) bool, True where the episode ends.
    """

    tokens: NDArray[np.int64]
    lengths: NDArray[np.int64]
    over: NDArray[np.bool_]


SAMPLED_PROMPTS = 1000  # for exact values, where there are too many to solve each
SOLVED_AT_ONCE = 32  # prompts, for demonstrations


class Task(ABC):
    """Where prompts come from and what an utterance earns.

    A subclass says in its docstring what is shown, what is said, what it earns, whether an end action exists
    and whether the budget counts it, and its closed forms. Keyword arguments of its constructor are the
    environment's; each has a default, and none is a sink.

    Args:
        tokenizer: turns tokens to text and back; its end token closes an utterance.
        max_prompt_tokens: P, room for the prompt.
        max_new_tokens: T, the budget of one utterance, its end token included; reaching it closes the
            utterance.
        context_length: L, room for the whole episode; P + T where there is one turn.

    Attributes:
        tokenizer: as it was given, so that agents find the object they know.
        codec: the same behind the protocol of `text_envs.tokenizer.Tokenizer`.
        vocab_size: V, the number of actions; V itself pads observations.
        end_token_id: the action that closes an utterance, None where there is none.
        invalid_reward: what an utterance earns that a masked action closed.
        turns: the most utterances of an episode, None where only the context bounds them.
        one_machine: whether only `start` of `automaton` depends on the prompts, so that it is solved once for all.
        family: "diagnostic", "multi-turn", "real text", "other suite" or your own word.
    """

    invalid_reward: float = 0.0
    turns: int | None = 1
    one_machine: bool = False
    family: str = "your own"

    def __init__(
        self,
        tokenizer: Any,
        *,
        max_prompt_tokens: int,
        max_new_tokens: int,
        context_length: int | None = None,
    ) -> None:
        self.tokenizer = tokenizer
        self.codec = as_tokenizer(tokenizer)
        self.vocab_size = self.codec.vocab_size
        self.end_token_id = self.codec.end_token_id
        self.max_prompt_tokens = at_least(1, max_prompt_tokens, "max_prompt_tokens")
        self.max_new_tokens = at_least(1, max_new_tokens, "max_new_tokens")
        least = max_prompt_tokens + max_new_tokens
        self.context_length = at_least(least, least if context_length is None else context_length, "context_length")

    @abstractmethod
    def sample(self, random: RowRandom) -> Samples:
        """Return the prompts of len(random) new episodes, drawn from `random` only."""

    @abstractmethod
    def score(self, said: Utterances) -> Score:
        """Return what utterances are worth, complete or (under `dense`) partial.

        Every row is scored on its own: neither its neighbours nor their number may change its value.
        """

    def reply(self, said: Utterances, random: RowRandom) -> Replies | None:
        """Return what follows closed utterances; None, the default, ends the episodes."""
        return None

    def action_mask(self, said: Utterances) -> NDArray[np.bool_] | None:
        """Return (n, V), True where an action is legal now, in a fresh array; None, the default: all are."""
        return None

    @property
    def restricts(self) -> bool:
        """Whether `action_mask` is to be asked; a task that masks only by a keyword says so here, and is faster."""
        return type(self).action_mask is not Task.action_mask

    def candidates(self, said: Utterances, k: int, random: RowRandom) -> list[list[str]] | None:
        """Return up to `k` utterances to choose among, for each context where one opens (`level="candidate"`).

        None, the default: the task has no candidates of its own.
        """
        return None

    def automaton(self, samples: Samples) -> exact.Automaton:
        """Return the machine that scores the utterances after some prompts: the task as the exact solver sees it.

        Raises:
            NotImplementedError: if the task is not finite, or has more than one turn.
            TooLarge: if it has too many states.
        """
        raise self._not_finite()

    def cases(self) -> tuple[Samples, Literal["enumerated", "symmetry", "sampled"], NDArray[np.float64] | None]:
        """Return prompts whose mean value is the task's.

        Returns:
            The prompts; whether they are all there are, stand for all by symmetry, or are a sample (the
            default); and their (n,) probabilities, None where they are equally likely.
        """
        return self.sample(RowRandom(np.arange(SAMPLED_PROMPTS), 0, Stream.PROMPT)), "sampled", None

    @cached_property
    def values(self) -> exact.Values:
        """The exact ends of the task's scale, solved when first asked for.

        Raises:
            NotImplementedError: if the task is not finite.
            TooLarge: if it has too many states.
        """
        if type(self).automaton is Task.automaton:
            raise self._not_finite()
        samples, method, weights = self.cases()
        return exact.values(self.automaton(samples), method, weights)

    def demonstrate(self, said: Utterances) -> list[list[int]]:
        """Return the token ids of a best utterance, or of the reference, at each context where one opens.

        Raises:
            NotImplementedError: if the task knows neither.
            TooLarge: if it has too many states.
        """
        if self.one_machine:
            return exact.best_utterances(self.automaton(self._prompts_of(said, slice(None))), self._best_actions)
        found: list[list[int]] = []
        for rows in np.split(np.arange(len(said)), range(SOLVED_AT_ONCE, len(said), SOLVED_AT_ONCE)):
            found += exact.best_utterances(self.automaton(self._prompts_of(said, rows)))
        return found

    @cached_property
    def _best_actions(self) -> NDArray[np.int32]:
        """The best token at each position in each state of the machine that all prompts share."""
        return exact.best_actions(self.automaton(self.cases()[0]))

    def _prompts_of(self, said: Utterances, rows: Any) -> Samples:
        """Return the prompts that rows of contexts begin with."""
        columns = {name: values[rows] for name, values in said.columns.items()}
        return Samples(said.tokens[rows, : self.max_prompt_tokens], said.start[rows], columns)

    def whole(self, text: str) -> list[int]:
        """Return the token ids of a text said to its end, or to the budget's.

        Raises:
            ValueError: if a part of the text has no token.
        """
        ids = self.codec.encode(text)
        return [*ids, *([] if self.end_token_id is None else [self.end_token_id])][: self.max_new_tokens]

    def optimal_return(self) -> float:
        """Return the largest expected clean return of an episode, over prompts; see `values`."""
        return self.values.optimal

    def random_return(self) -> float:
        """Return the expected clean return of actions uniform over the legal ones; see `values`."""
        return self.values.random

    def _not_finite(self) -> NotImplementedError:
        return NotImplementedError(
            f"{type(self).__name__} has no exact values: no finite machine scores its utterances. "
            "Compare mean returns with a reference agent's instead, such as the best of n samples"
        )


def at_least(least: int, value: int, name: str) -> int:
    """Return `value`.

    Raises:
        TypeError: if it is not an integer.
        ValueError: if it is smaller than `least`.
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"{name} is an integer, got {value!r} ({type(value).__name__})")
    if value < least:
        raise ValueError(f"{name} is at least {least}, got {value}")
    return int(value)


def a_bool(value: bool, name: str) -> bool:
    """Return `value`.

    Raises:
        TypeError: if it is not True or False: every text is truthy, "no" and "false" too.
    """
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{name} is True or False, got {value!r} ({type(value).__name__})")
    return bool(value)


def count(hits: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return how many of each row's (n, m) hits are True, exact; a product is twice as fast as a sum here."""
    return hits @ np.ones(hits.shape[1])


def pad(rows: Sequence[Sequence[int]], padding: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return ragged rows of ids as (n, R) tokens, right-padded, and their (n,) lengths."""
    lengths = np.array([len(row) for row in rows], np.int64)
    tokens = np.full((len(rows), lengths.max(initial=0)), padding, np.int64)
    for row, ids in zip(tokens, rows, strict=True):
        row[: len(ids)] = ids
    return tokens, lengths


def finite(value: float, name: str) -> float:
    """Return `value` as a float.

    Raises:
        TypeError: if it is not a real number.
        ValueError: if it is nan, or infinite as a float.
    """
    if not isinstance(value, Real):
        raise TypeError(f"{name} is a number, got {value!r} ({type(value).__name__})")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ValueError(f"{name} is a finite number, got {value}")
    return number
