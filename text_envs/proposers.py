"""Where candidates come from: the contract of proposers, those that need no model, the checks and the layout.

A language model's samples are a proposer of the `agents` package or of yours: any function that fits `Proposer`.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from .engine import Engine, Opening
from .spaces import first_surrogate
from .streams import RowRandom
from .tasks.base import Task, Utterances, at_least, pad

Proposer = Callable[[list[str], int, list[np.random.Generator]], Sequence[Sequence[str]]]
RANDOM = "random"


class CandidateError(RuntimeError):
    """A proposer raised, or proposed what cannot be said."""


class CandidateLayout(NamedTuple):
    """Where things are in the observation of a candidate environment.

    The L + K * C integers are the context's token ids and then each candidate's, every one of these K + 1 segments
    right-padded with V. A candidate's ids are those that choosing it says: its text's and, where the task has
    one and the budget leaves room, the end token. An absent candidate is all padding, and no other is.

    Attributes:
        context_length: L.
        num_candidates: K.
        candidate_length: C.
    """

    context_length: int
    num_candidates: int
    candidate_length: int

    @property
    def width(self) -> int:
        """L + K * C."""
        return self.context_length + self.num_candidates * self.candidate_length

    def split(self, observations: Any) -> tuple[Any, Any]:
        """Return the contexts (..., L) and the candidates (..., K, C) of observations (..., L + K * C).

        Observations are a numpy array or a torch tensor.
        """
        shape = *observations.shape[:-1], self.num_candidates, self.candidate_length
        context = observations[..., : self.context_length]
        return context, observations[..., self.context_length :].reshape(shape)


@dataclass(frozen=True)
class FixedCandidates:
    """Proposes texts of a list: all in order where they are at most k, else k different ones at random.

    Raises:
        ValueError: if the list is empty.
        TypeError: if it holds anything but texts.
    """

    texts: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.texts:
            raise ValueError("a list of candidates needs at least one text, got none")
        for text in self.texts:
            if not isinstance(text, str):
                raise TypeError(f"a list of candidates holds texts, got {text!r} ({type(text).__name__})")

    def __call__(self, contexts: list[str], k: int, rngs: list[np.random.Generator]) -> list[list[str]]:
        """Return up to `k` of the texts for each context."""
        if not self.draws(k):
            return [list(self.texts) for _ in contexts]
        return [[self.texts[i] for i in rng.choice(len(self.texts), k, replace=False)] for rng in rngs]

    def draws(self, k: int) -> bool:
        """Whether it takes some of its texts, for which it needs generators."""
        return len(self.texts) > k


def random_candidates(task: Task, said: Utterances, k: int, random: RowRandom) -> list[list[str]]:
    """Return `k` utterances for each context, every token uniform over the legal ones.

    With a tokenizer whose ids do not survive as text (random bytes become U+FFFD), a text that no longer fits
    the budget loses its last characters.
    """
    n, budget = len(said) * k, task.max_new_tokens
    rows = np.repeat(np.arange(len(said)), k)
    tokens, start, length = said.tokens[rows], said.start[rows], said.length[rows]
    turn, columns = said.turn[rows], {name: values[rows] for name, values in said.columns.items()}
    draws = random.random(k * budget).reshape(n, budget)
    going = np.arange(n)
    for t in range(budget):
        going = going[length[going] < tokens.shape[1]]
        if not going.size:
            break
        partial = {name: values[going] for name, values in columns.items()}
        legal = task.action_mask(Utterances(tokens[going], start[going], length[going], turn[going], partial))
        if legal is None:
            chosen = (draws[going, t] * task.vocab_size).astype(np.int64)
        else:
            upto = legal.cumsum(axis=1)  # (n, V) legal tokens up to each one
            chosen = (upto <= np.floor(draws[going, t] * upto[:, -1])[:, None]).sum(axis=1)
        tokens[going, length[going]] = chosen
        length[going] += 1
        if task.end_token_id is not None:
            going = going[chosen != task.end_token_id]
    texts = [_fitting(task, ids) for ids in Utterances(tokens, start, length, turn, columns).ids()]
    return [texts[i : i + k] for i in range(0, n, k)]


def _fitting(task: Task, ids: list[int]) -> str:
    text = task.codec.decode(ids)
    while len(task.codec.encode(text)) > task.max_new_tokens:
        text = text[:-1]
    return text


class Proposals(NamedTuple):
    """Candidates of n rows: texts, and their ids (n, K, C)."""

    texts: list[list[str]]
    tokens: NDArray[np.int64]


class CandidateSource:
    """What both wrappers share: where candidates come from, their checks and their layout."""

    def __init__(
        self,
        engine: Engine,
        text_space: spaces.Space,
        propose: Proposer | Iterable[str] | str | None,
        k: int,
        candidate_length: int | None,
    ) -> None:
        self._task = engine.task
        self._text_space = text_space
        if candidate_length is None:
            candidate_length = self._task.max_new_tokens
        self.layout = CandidateLayout(
            engine.context_length, at_least(1, k, "k"), at_least(1, candidate_length, "candidate_length")
        )
        self.space = spaces.Box(0, self._task.vocab_size, (self.layout.width,), np.int64)
        self._propose = _load_proposer(propose)
        if propose is None and type(self._task).candidates is Task.candidates:
            raise ValueError(
                f"{type(self._task).__name__} has no candidates of its own; pass propose=, such as a list of "
                'texts, "random", or a function (contexts, k, rngs) -> a list of texts for each context'
            )

    def propose(self, *batches: tuple[Opening, list[str]]) -> list[Proposals]:
        """Return the candidates of each of some batches of contexts, all asked for at once.

        Raises:
            CandidateError: if the proposer raises, or proposes what cannot be said.
        """
        contexts = [context for _, batch in batches for context in batch]
        texts: list[list[str]] = []
        if contexts:
            try:
                answer = self._ask([opening for opening, _ in batches], list(contexts))
            except Exception as error:
                raise CandidateError(
                    f"{self._name} raised {error!r} on {len(contexts)} contexts, the first {contexts[0]!r:.300}"
                ) from error
            texts = self._checked(answer, contexts)
        tokens = self._laid_out(texts, contexts)
        ends = np.cumsum([len(batch) for _, batch in batches]).tolist()
        return [Proposals(texts[i:j], tokens[i:j]) for i, j in zip([0, *ends], ends, strict=False)]

    def absent(self, n: int) -> NDArray[np.int64]:
        """Return the (n, K, C) ids of no candidates."""
        return np.full((n, *self.layout[1:]), self._task.vocab_size, np.int64)

    def _ask(self, openings: list[Opening], contexts: list[str]) -> Any:
        k = self.layout.num_candidates
        if callable(self._propose):
            if isinstance(self._propose, FixedCandidates) and not self._propose.draws(k):
                return self._propose(contexts, k, [])
            rngs = [rng for opening in openings for rng in opening.random.generators()]
            return self._propose(contexts, k, rngs)
        rows: list[list[str]] = []
        for opening in openings:
            if self._propose is None:
                rows += self._task.candidates(opening.said, k, opening.random) or []
            else:
                rows += random_candidates(self._task, opening.said, k, opening.random)
        return rows

    @property
    def _name(self) -> str:
        if self._propose is None:
            return f"{type(self._task).__name__}.candidates"
        return f"propose {getattr(self._propose, '__qualname__', None) or repr(self._propose)[:100]}"

    def _checked(self, answer: Any, contexts: list[str]) -> list[list[str]]:
        """Return the texts of each context."""
        k = self.layout.num_candidates
        if isinstance(answer, str) or not isinstance(answer, Sequence) or len(answer) != len(contexts):
            raise CandidateError(
                f"{self._name} returned {answer!r:.300} for {len(contexts)} contexts; return a list with one "
                "list of texts per context"
            )
        for texts, context in zip(answer, contexts, strict=True):
            if isinstance(texts, str) or not isinstance(texts, Sequence) or not 1 <= len(texts) <= k:
                raise CandidateError(
                    f"{self._name} returned {texts!r:.300} for the context {context!r:.300}; return a list of 1 to "
                    f"k={k} texts (those fewer than k are masked)"
                )
            for text in texts:
                if not isinstance(text, str):
                    raise self._cannot_say(text, context, f"is a {type(text).__name__}; propose texts")
        return [list(texts) for texts in answer]

    def _laid_out(self, texts: list[list[str]], contexts: list[str]) -> NDArray[np.int64]:
        """Return the ids (n, K, C) of texts; each different text is encoded once."""
        numbers: dict[str, int] = {}
        index = np.full((len(texts), self.layout.num_candidates), -1)
        spoken: list[list[int]] = []
        for i, row in enumerate(texts):
            for j, text in enumerate(row):
                if text not in numbers:
                    numbers[text] = len(spoken)
                    spoken.append(self._ids(text, contexts[i]))
                index[i, j] = numbers[text]
        absent = [self._task.vocab_size] * self.layout.candidate_length  # also gives the table its width
        table, _ = pad([*spoken, absent], self._task.vocab_size)
        return table[index]

    def _ids(self, text: str, context: str) -> list[int]:
        try:
            return self._spoken(text)
        except ValueError as error:
            raise self._cannot_say(text, context, str(error)) from None

    def _spoken(self, text: str) -> list[int]:
        """Return the ids that saying a text says.

        Raises:
            ValueError: if it cannot be said, or not be shown.
        """
        codec, budget, room = self._task.codec, self._task.max_new_tokens, self.layout.candidate_length
        if (place := first_surrogate(text)) is not None:
            raise ValueError(
                f"holds a lone surrogate, {text[place]!r} at {place}, which is half a character; mend it with "
                'text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")'
            )
        if unknown := codec.unknown(text):
            shown = ", ".join(map(repr, unknown[:5]))
            raise ValueError(
                f"has no token for {shown}; leave that out, or give the task a tokenizer that knows it"
            )
        ids = codec.encode(text)
        if len(ids) > budget:
            raise ValueError(
                f"has {len(ids)} tokens, more than max_new_tokens={budget}; shorten it or raise max_new_tokens"
            )
        if text not in self._text_space:
            raise ValueError(f"has {len(text)} characters, too many for {self._text_space}; take white space out")
        end = self._task.end_token_id
        ids = ids if end is None else [*ids, end][:budget]
        if len(ids) > room:
            raise ValueError(
                f"says {len(ids)} tokens, more than candidate_length={room}; shorten it or raise candidate_length"
            )
        if not ids:
            raise ValueError("says nothing, where no end token closes it, and would look absent; leave it out")
        return ids

    def _cannot_say(self, candidate: Any, context: str, why: str) -> CandidateError:
        return CandidateError(f"{self._name}: candidate {candidate!r:.300} for the context {context!r:.300} {why}")


def _load_proposer(propose: Proposer | Iterable[str] | str | None) -> Proposer | str | None:
    """Return a function, RANDOM, or None for the task's own candidates."""
    if propose is None or (isinstance(propose, str) and propose == RANDOM):
        return propose
    if isinstance(propose, str):
        try:
            if ":" not in propose:
                raise ValueError('it is neither "random" nor of the form "module:factory"')
            propose = pkgutil.resolve_name(propose)()
        except (ValueError, ImportError, AttributeError) as error:
            raise ValueError(f"propose={propose!r} names no proposer: {error}") from error
    if callable(propose):
        return propose
    if isinstance(propose, Iterator):
        raise TypeError(
            f"propose={propose!r} can be read only once, and Gymnasium cannot copy it; pass a list or a function"
        )
    if isinstance(propose, Iterable):
        return FixedCandidates(tuple(propose))
    raise TypeError(
        "propose is a function (contexts, k, rngs) -> a list of texts for each context, a list of texts, "
        f'"module:factory", "random" or None, got {propose!r}'
    )
