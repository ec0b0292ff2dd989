"""The one engine: the episodes of B rows in numpy arrays, and what happens when a row says something.

Autoreset, infos and spaces do not live here but in `vector_env.py`, `token_env.py` and `utterance_env.py`,
which are different faces of this class.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from gymnasium.error import ResetNeeded
from numpy.typing import NDArray

from .columns import Columns, take
from .streams import RowRandom, Stream, row_keys, seed_to_word
from .tasks.base import Samples, Score, Task, Utterances, a_bool, at_least, finite, pad

Rows = NDArray[np.intp]
_NO_ROWS: Rows = np.empty(0, np.intp)
_NO_VALUES = np.empty(0)
_HALF_DONE = "the last step failed: call reset() for all rows, because some may have moved on without the others"


class Outcome(NamedTuple):
    """What came of one step of n acting rows, k of which closed their utterance.

    Attributes:
        reward: (n,) float64, as paid: with delay, noise and scale.
        terminated: (n,) bool.
        closed: (k,) engine rows that closed.
        clean: (k,) float64, their scores: the noise-free, unscaled rewards of the utterances.
        scored: (m,) the closed rows that a task scored (all but those closed by a masked action).
        details: the task's per-row values for `info`, m each; dicts may nest.
    """

    reward: NDArray[np.float64]
    terminated: NDArray[np.bool_]
    closed: Rows
    clean: NDArray[np.float64]
    scored: Rows
    details: Mapping[str, Any]


class Opening(NamedTuple):
    """What a proposer of utterances may know of n rows whose next utterance opens.

    Attributes:
        said: the contexts as the task sees them.
        random: the numbers of their seeds, episodes and turns.
    """

    said: Utterances
    random: RowRandom


class Illegal(str):
    """An empty text that earns the invalid reward, whatever the tokenizer: for a choice that is masked."""


class Engine:
    """B episodes of one task.

    Methods take `rows`, the engine rows that act, as an index array; None means all B, in order, and is the
    fast path. Where one raises half-way, as when a reward fails, only a `begin` of all rows makes the engine
    usable again.

    Args:
        task: what is shown, what is earned.
        num_rows: B.
        dense: pay each token the difference of the partial utterance's score. The differences telescope, so
            returns are those of the sparse task.
        reward_delay: pay the dense reward every n tokens, whatever `dense` says, and the remainder when the
            utterance closes.
        reward_scale: factor on every reward.
        reward_noise: standard deviation of normal noise, drawn once per closed utterance from its row's
            seed, its episode and its tokens.
        distractors: D, random tokens before each prompt, neither end nor special tokens; no task sees them.

    Attributes:
        tokens: (B, L) int64, contexts, right-padded with V.
        length: (B,) tokens in each context.
        context_length: L, the task's and D.

    Raises:
        TypeError: if `dense` is no bool, or a size or a factor no number.
        ValueError: if a number is out of range; a reward times nan or infinity has no value.
    """

    def __init__(
        self,
        task: Task,
        num_rows: int,
        *,
        dense: bool = False,
        reward_delay: int | None = None,
        reward_scale: float = 1.0,
        reward_noise: float = 0.0,
        distractors: int = 0,
    ) -> None:
        self._scale = finite(reward_scale, "reward_scale")
        self._noise = finite(reward_noise, "reward_noise")
        if self._noise < 0:
            raise ValueError(f"reward_noise is a standard deviation, at least 0, got {reward_noise}")
        finite(task.invalid_reward, f"{type(task).__name__}.invalid_reward")
        self.task = task
        self.num_rows = at_least(1, num_rows, "num_envs")
        if reward_delay is not None:
            at_least(1, reward_delay, "reward_delay")
        every_token = 1 if a_bool(dense, "dense") else None
        self._pay_every = reward_delay or every_token  # tokens; None: only when an utterance closes
        self._replies = type(task).reply is not Task.reply
        self._restricts = task.restricts

        self._distractors = at_least(0, distractors, "distractors")
        self._irrelevant = _ordinary_tokens(task) if distractors else np.empty(0, np.int64)
        self.context_length = task.context_length + distractors
        shape = num_rows, self.context_length
        self.tokens = np.full(shape, task.vocab_size, np.int64)
        self.length = np.zeros(num_rows, np.int64)
        self._all: Rows = np.arange(num_rows)
        self._offset = self._all * self.context_length  # of each row in the flat tokens
        self._prompt = np.zeros(num_rows, np.int64)  # tokens of the prompt
        self._start = np.zeros(num_rows, np.int64)  # where the current utterance starts
        self._limit = np.zeros(num_rows, np.int64)  # the length at which the budget closes it
        self._replied = np.zeros(shape if self._replies else (num_rows, 0), np.bool_)  # tokens that the task said
        self._turn = np.zeros(num_rows, np.int64)
        self._paid = np.zeros(num_rows)  # of the current utterance, before scale and noise
        self._columns = Columns(num_rows, type(task).__name__)
        self._legal = np.ones((num_rows, task.vocab_size), np.bool_) if self._restricts else None
        self._key = np.zeros(num_rows, np.uint64)  # of the row's seed
        self._episode = np.full(num_rows, -1, np.int64)
        self._half_done = False  # set while rows change, so it stays set where something raises

    def seed(self, seeds: Iterable[int], rows: Rows | None = None) -> None:
        """Give rows new seeds; their next episode is number 0."""
        where = slice(None) if rows is None else rows
        self._key[where] = row_keys([seed_to_word(seed) for seed in seeds])
        self._episode[where] = -1

    def begin(self, rows: Rows | None = None) -> None:
        """Begin the next episode on rows.

        Raises:
            ResetNeeded: if the last step failed and these are not all rows.
            ValueError: if the task's prompts do not fit its context.
        """
        if self._half_done and rows is not None and len(rows) < self.num_rows:
            raise ResetNeeded(_HALF_DONE)
        self._half_done = True
        where = slice(None) if rows is None else rows
        self._episode[where] += 1
        samples = self.task.sample(RowRandom.of_keys(self._key[where], self._episode[where], Stream.PROMPT))
        before = self._distractors
        length = self._checked_lengths(samples) + before
        self.tokens[where] = self.task.vocab_size
        self.tokens[where, before : before + samples.tokens.shape[1]] = samples.tokens
        if before:
            random = RowRandom.of_keys(self._key[where], self._episode[where], Stream.DISTRACTORS)
            self.tokens[where, :before] = self._irrelevant[random.integers(len(self._irrelevant), before)]
        self.length[where] = self._prompt[where] = length
        self._replied[where] = False
        self._turn[where] = 0
        self._columns.keep(samples.columns, where)
        self._open(where)
        self._restrict(rows)
        self._half_done = False

    def say(self, actions: NDArray[np.int64], rows: Rows | None = None) -> Outcome:
        """Append one token to each row.

        Args:
            actions: (n,) ids in 0..V-1.
            rows: (n,) the rows that say them.

        Raises:
            ResetNeeded: if the last step failed.
        """
        if self._half_done:
            raise ResetNeeded(_HALF_DONE)
        self._half_done = True
        closed, masked = self._append(actions, rows)
        outcome = self._settle(closed, masked, rows)
        self._half_done = False
        return outcome

    def utter(self, texts: Sequence[str], rows: Rows | None = None) -> Outcome:
        """Append a whole utterance to each row and close it.

        An utterance is its text's tokens, then the end token where the task has one; the budget closes a
        longer one early, and a task without an end token sees by `Utterances.closed` that a shorter one has closed.
        A text that has no tokens, or is `Illegal`, is no more legal than a masked action: nothing is appended and
        it earns the invalid reward.

        Raises:
            ResetNeeded: if the last step failed.
        """
        if self._half_done:
            raise ResetNeeded(_HALF_DONE)
        acting = self._all if rows is None else rows
        encoded = [self._encode(text) for text in texts]
        masked = np.array([ids is None for ids in encoded], np.bool_)
        end = [] if self.task.end_token_id is None else [self.task.end_token_id]
        budget = self.task.max_new_tokens  # cut here already, so that one long text does not widen all rows
        said = [[] if ids is None else [*ids[:budget], *end][:budget] for ids in encoded]
        tokens, lengths = pad(said, self.task.vocab_size)
        self._half_done = True
        if self._legal is None:
            self._append_whole(tokens, lengths, acting)
        else:
            masked = self._append_while_legal(tokens, lengths, acting, masked)
        outcome = self._settle(np.ones(len(acting), np.bool_), masked, rows)
        self._half_done = False
        return outcome

    def said(self, rows: Rows | None = None, closed: NDArray[np.bool_] | bool = False) -> Utterances:
        """Return what the task sees of rows: the contexts without distractors, and where the utterance starts.

        Args:
            rows: (n,) the rows; None: all.
            closed: (n,) where the utterance has closed; False: nowhere.
        """
        where = slice(None) if rows is None else rows
        tokens, start, length = self.tokens[where], self._start[where], self.length[where]
        if before := self._distractors:
            tokens, start, length = tokens[:, before:], start - before, length - before
        return Utterances(tokens, start, length, self._turn[where], self._columns.of(where), closed)

    def action_masks(self) -> NDArray[np.bool_]:
        """Return (B, V), True where an action is legal, in a fresh array."""
        if self._legal is None:
            return np.ones((self.num_rows, self.task.vocab_size), np.bool_)
        return self._legal.copy()

    @property
    def restricts(self) -> bool:
        """Whether the task ever masks an action."""
        return self._restricts

    def opening(self, rows: Rows) -> Opening:
        """Return what is known of rows between two utterances."""
        random = RowRandom.of_keys(self._key[rows], self._episode[rows], Stream.CANDIDATES).fold(self._turn[rows])
        return Opening(self.said(rows), random)

    def context(self, row: int) -> str:
        """Return a row's context as text."""
        return self.task.codec.decode(self.tokens[row, : self.length[row]])

    def render(self, row: int) -> str:
        """Return a row's distractors, its prompt, and who said what since, a line each."""
        decode, tokens = self.task.codec.decode, self.tokens[row]
        before, shown, length = self._distractors, int(self._prompt[row]), int(self.length[row])
        lines = [f"before: {decode(tokens[:before])}"] if before else []
        lines.append(f"prompt: {decode(tokens[before:shown])}")
        turns = np.flatnonzero(np.diff(self._replied[row, shown:length])) + shown + 1
        for start, end in zip([shown, *turns], [*turns, length], strict=True):
            name = " reply" if self._replied[row, start : start + 1].any() else "  said"
            lines.append(f"{name}: {decode(tokens[start:end])}")
        return "\n".join(lines)

    def _flat(self) -> NDArray[np.int64]:
        """Return a view; never kept, because a copied or unpickled engine would keep one of other tokens."""
        return self.tokens.reshape(-1)

    def _append(
        self, actions: NDArray[np.int64], rows: Rows | None
    ) -> tuple[NDArray[np.bool_], NDArray[np.bool_] | None]:
        """Append one token to each row.

        Returns:
            (n,) where the utterance closed; (n,) where the action was masked, None if the task masks none.
        """
        if rows is None:  # without the views of slice(None), which cost a batch of one a tenth of its time
            self._flat()[self._offset + self.length] = actions
            self.length += 1
            closed = self.length == self._limit
        else:
            length = self.length[rows]
            self._flat()[self._offset[rows] + length] = actions
            self.length[rows] = length + 1
            closed = length + 1 == self._limit[rows]
        if self.task.end_token_id is not None:
            closed |= actions == self.task.end_token_id
        if self._legal is None:
            return closed, None
        acting = self._all if rows is None else rows
        masked = ~self._legal[acting, actions]
        return closed | masked, masked

    def _encode(self, text: str) -> list[int] | None:
        """Return the tokens of a text, None where it has none or is `Illegal`."""
        if isinstance(text, Illegal):
            return None
        try:
            return self.task.codec.encode(text)
        except ValueError:
            if self.task.codec.unknown(text):
                return None
            raise

    def _append_whole(self, tokens: NDArray[np.int64], lengths: NDArray[np.int64], acting: Rows) -> None:
        """Append (n, U) tokens of (n,) lengths, up to the end token or the budget."""
        length = self.length[acting]
        at = np.arange(tokens.shape[1])
        if self.task.end_token_id is not None and len(at):
            ends = tokens == self.task.end_token_id
            lengths = np.minimum(lengths, np.where(ends.any(axis=1), ends.argmax(axis=1) + 1, len(at)))
        lengths = np.minimum(lengths, self._limit[acting] - length)
        spoken = at < lengths[:, None]
        places = (self._offset[acting] + length)[:, None] + at
        self._flat()[places[spoken]] = tokens[spoken]
        self.length[acting] = length + lengths

    def _append_while_legal(
        self, tokens: NDArray[np.int64], lengths: NDArray[np.int64], acting: Rows, unknown: NDArray[np.bool_]
    ) -> NDArray[np.bool_]:
        """Append tokens one by one where a task restricts them; return (n,) where one was masked or unknown."""
        masked, closed = unknown.copy(), unknown.copy()
        for t in range(tokens.shape[1]):
            going = np.flatnonzero(~closed & (t < lengths))
            if not going.size:
                break
            closed[going], bad = self._append(tokens[going, t], acting[going])
            assert bad is not None
            masked[going] |= bad
            self._restrict(acting[going[~closed[going]]])
        return masked

    def _settle(self, closed: NDArray[np.bool_], masked: NDArray[np.bool_] | None, rows: Rows | None) -> Outcome:
        """Score and pay what is due, let the task reply to closed utterances, and open the next ones.

        Args:
            closed: (n,) where the utterance closed.
            masked: (n,) where an action outside the mask closed it; None: nowhere.
            rows: (n,) the rows that acted.
        """
        ends = closed.nonzero()[0]
        due = self._due(closed, ends, rows)
        if due is not None and not due.size:
            self._restrict(rows)
            reward, terminated = np.zeros(len(closed)), np.zeros(len(closed), np.bool_)
            return Outcome(reward, terminated, _NO_ROWS, _NO_VALUES, _NO_ROWS, {})
        due_rows = rows if due is None else due if rows is None else rows[due]
        due_masked = masked if masked is None or due is None else masked[due]
        value, scored, details = self._score(due_rows, closed if due is None else closed[due], due_masked)
        where = slice(None) if due_rows is None else due_rows
        reward = value - self._paid[where]
        self._paid[where] = value
        if due is not None:
            reward, payment = np.zeros(len(closed)), reward
            reward[due] = payment

        end_rows = ends if rows is None else rows[ends]
        if self._noise and ends.size:
            reward[ends] += self._noise * self._draw_noise(end_rows)
        if self._scale != 1.0:
            with np.errstate(over="ignore", invalid="ignore"):  # told below
                reward *= self._scale
        if (self._noise or self._scale != 1.0) and not np.isfinite(reward).all():
            raise ValueError(
                f"a reward is no finite number after reward_scale={self._scale} and reward_noise={self._noise}; "
                "make them smaller"
            )
        terminated = closed.copy()
        if self._replies and ends.size:
            terminated[ends] = self._answer(end_rows)
        if self._legal is not None:
            self._restrict(np.flatnonzero(~terminated) if rows is None else rows[~terminated])
        if due is not ends:  # partial utterances were scored too: report only those that closed
            value = value[ends if due is None else np.searchsorted(due, ends)]
            keep = np.flatnonzero(np.isin(scored, end_rows)) if details else _NO_ROWS
            scored, details = scored[keep], take(details, keep)
        return Outcome(reward, terminated, end_rows, value, scored, details)

    def _due(self, closed: NDArray[np.bool_], ends: Rows, rows: Rows | None) -> Rows | None:
        """Return which of the n acting rows are paid now; None: all."""
        if self._pay_every is None or not closed.size:
            return None if 0 < ends.size == closed.size else ends
        if self._pay_every == 1:
            return None
        where = slice(None) if rows is None else rows
        said = self.length[where] - self._start[where]
        return np.flatnonzero(closed | (said % self._pay_every == 0))

    def _score(
        self, rows: Rows | None, closed: NDArray[np.bool_], masked: NDArray[np.bool_] | None
    ) -> tuple[NDArray[np.float64], Rows, Mapping[str, Any]]:
        """Return the (n,) values of rows' utterances, the rows a task scored, and its details on them."""
        acting = self._all if rows is None else rows
        if masked is None or not masked.any():
            score = self.task.score(self.said(rows, closed))
            return self._checked_values(score, acting), acting, score.details
        value = np.full(len(acting), self.task.invalid_reward, np.float64)
        scored = acting[~masked]
        details: Mapping[str, Any] = {}
        if scored.size:
            value[~masked], _, details = self._score(scored, closed[~masked], None)
        return value, scored, details

    def _checked_values(self, score: Score, acting: Rows) -> NDArray[np.float64]:
        """Return the (n,) values of what a task returned as the score of rows.

        Raises:
            TypeError: if it is no `Score`, or holds anything but numbers.
            ValueError: if it has not one finite number per row.
        """
        if not isinstance(score, Score):
            raise TypeError(f"{self._scorer} returned {score!r:.300}; return Score(value), one number per row")
        given = np.asarray(score.value)
        if given.dtype.kind not in "biuf":
            raise TypeError(
                f"{self._scorer} returned values of dtype {given.dtype}, {given!r:.300}; return numbers, float64"
            )
        value = given.astype(np.float64, copy=False)
        if value.shape != acting.shape:
            raise ValueError(
                f"{self._scorer} returned values of shape {value.shape} for {len(acting)} utterances; return one "
                f"value each, shape ({len(acting)},)"
            )
        if np.count_nonzero(np.isfinite(value)) < value.size:  # of one row twice as fast as `all`
            at = int(np.argmin(np.isfinite(value)))
            row = int(acting[at])
            raise ValueError(
                f"{self._scorer} returned {value[at]} for row {row}, whose context is {self.context(row)!r:.300}; "
                "return a finite number"
            )
        return value

    @property
    def _scorer(self) -> str:
        """What messages call the task's score."""
        return f"{type(self.task).__name__}.score"

    def _open(self, where: Any) -> None:
        """Open the next utterance at the end of the contexts."""
        length = self.length[where]
        self._start[where] = length
        self._limit[where] = np.minimum(length + self.task.max_new_tokens, self.context_length)
        self._paid[where] = 0.0

    def _answer(self, rows: Rows) -> NDArray[np.bool_]:
        """Append the task's replies to closed utterances; return (k,) where the episode ends."""
        random = RowRandom.of_keys(self._key[rows], self._episode[rows], Stream.REPLY).fold(self._turn[rows])
        replies = self.task.reply(self.said(rows, np.ones(len(rows), np.bool_)), random)
        self._turn[rows] += 1
        if replies is None:
            return np.ones(len(rows), np.bool_)
        length = self.length[rows]
        room = self.context_length - length
        if (replies.lengths > room).any():
            worst = int(np.argmax(replies.lengths - room))
            raise ValueError(
                f"a reply of {replies.lengths[worst]} tokens does not fit the {room[worst]} left of the context; "
                f"give {type(self.task).__name__} a context_length above {self.task.context_length}"
            )
        at = np.arange(replies.tokens.shape[1])
        spoken = at < replies.lengths[:, None]  # (k, R)
        places = (self._offset[rows] + length)[:, None] + at
        self._flat()[places[spoken]] = replies.tokens[spoken]
        self._replied.reshape(-1)[places[spoken]] = True
        self.length[rows] = length + replies.lengths
        over = replies.over | (self.length[rows] == self.context_length)
        self._open(rows[~over])
        return over

    def _restrict(self, rows: Rows | None) -> None:
        """Ask the task which actions are legal now on rows.

        Raises:
            ValueError: if a row has none.
        """
        if self._legal is None or (rows is not None and not rows.size):
            return
        where = slice(None) if rows is None else rows
        legal = self.task.action_mask(self.said(rows))
        self._legal[where] = True if legal is None else legal
        stuck = ~self._legal[where].any(axis=1)
        if stuck.any():
            row = int(np.flatnonzero(stuck)[0])
            raise ValueError(
                f"{type(self.task).__name__}.action_mask leaves no legal action after "
                f"{self.context(row if rows is None else int(rows[row]))!r}; end the episode there or allow one"
            )

    def _draw_noise(self, rows: Rows) -> NDArray[np.float64]:
        """Return (k,) standard normals from the seeds, the episodes and all that was said."""
        random = RowRandom.of_keys(self._key[rows], self._episode[rows], Stream.NOISE)
        for column in self.tokens[rows].T:
            random = random.fold(column)
        return random.normal(1)[:, 0]

    def _checked_lengths(self, samples: Samples) -> NDArray[np.int64] | int:
        room, width = self.task.max_prompt_tokens, samples.tokens.shape[1]
        longest = width if samples.lengths is None else samples.lengths.max()
        shortest = width if samples.lengths is None else samples.lengths.min()
        if width > room or longest > width or shortest < 1:
            raise ValueError(
                f"{type(self.task).__name__}.sample returned prompts of {shortest} to {longest} tokens in an "
                f"array of width {width}; a prompt has 1 to max_prompt_tokens={room} tokens"
            )
        return width if samples.lengths is None else samples.lengths


def _ordinary_tokens(task: Task) -> NDArray[np.int64]:
    """Return the ids that are neither end nor special tokens."""
    special = [*getattr(task.tokenizer, "all_special_ids", []), task.end_token_id]
    return np.array([i for i in range(task.vocab_size) if i not in special], np.int64)
