"""The batched environments: Gymnasium's VectorEnv over the engine, with autoreset, infos and time limit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.error import InvalidAction, ResetNeeded
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from .attributes import METADATA, TaskAttributes, check_render_mode
from .engine import Engine, Opening, Outcome, Rows
from .streams import as_seed
from .tasks.base import Task, at_least
from .token_env import not_a_token, token_context
from .utterance_env import not_a_text, text_of, utterance_of

Step = tuple[Any, NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]


class TokenVectorEnv(TaskAttributes, VectorEnv):
    """B episodes of a text task, one token per step in each: what a SyncVectorEnv of TokenEnv does, faster.

    Observations are (B, L) int64, actions (B,) integers, rewards (B,) float64; see `TokenEnv` for their
    meaning. Infos are those of `gymnasium.vector.SyncVectorEnv`, masks `_key` included.

    Args:
        task: the task.
        num_envs: B.
        dense: pay the score's differences token by token; the return is the same.
        reward_delay: pay the dense reward every n tokens, whatever `dense` says, the remainder at the end.
        reward_scale: factor on every reward.
        reward_noise: standard deviation of noise on the reward of a closed utterance.
        distractors: irrelevant random tokens before each prompt.
        autoreset_mode: SAME_STEP (the ended row's last observation and info are in `final_obs` and
            `final_info`), NEXT_STEP, or DISABLED (pass `options={"reset_mask": mask}` to `reset`).
        max_episode_steps: truncate an episode after that many steps; None: never.
        render_mode: None, "ansi" or "human".
    """

    def __init__(
        self,
        task: Task,
        num_envs: int = 1,
        *,
        dense: bool = False,
        reward_delay: int | None = None,
        reward_scale: float = 1.0,
        reward_noise: float = 0.0,
        distractors: int = 0,
        autoreset_mode: AutoresetMode | str = AutoresetMode.SAME_STEP,
        max_episode_steps: int | None = None,
        render_mode: str | None = None,
    ) -> None:
        if max_episode_steps is not None:
            at_least(1, max_episode_steps, "max_episode_steps")
        self.task = task
        self.render_mode = check_render_mode(render_mode)
        self.autoreset_mode = AutoresetMode(autoreset_mode)
        self.metadata = {**METADATA, "autoreset_mode": self.autoreset_mode}
        self._engine = Engine(
            task,
            num_envs,
            dense=dense,
            reward_delay=reward_delay,
            reward_scale=reward_scale,
            reward_noise=reward_noise,
            distractors=distractors,
        )
        self.num_envs = self._engine.num_rows
        self.single_observation_space, self.single_action_space = self._spaces()
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._max_episode_steps = max_episode_steps
        self._elapsed = np.zeros(num_envs, np.int64)  # steps of each episode, counted under a time limit
        self._over = np.zeros(num_envs, np.bool_)  # rows that wait for a reset
        self._seeded = np.zeros(num_envs, np.bool_)
        self._begun = False

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[Any, dict[str, Any]]:
        """Begin an episode on all rows, or on those of `options["reset_mask"]`.

        Args:
            seed: row i gets seed + i, or its own of B seeds; a row with None goes on with its next episode.
            options: {"reset_mask": (B,) bool} resets those rows only.

        Raises:
            ResetNeeded: if the mask leaves rows out at the first reset, or after a step that failed.
            ValueError: if the number of seeds or the mask's shape is wrong, the mask is empty or a seed negative.
            TypeError: if the mask is not a boolean array, or a seed not an integer.
        """
        rows = self._reset_rows((options or {}).get("reset_mask"))
        chosen = range(self.num_envs) if rows is None else rows
        self._seed(seed, chosen)
        self._engine.begin(rows)
        where = slice(None) if rows is None else rows
        self._over[where] = False
        self._elapsed[where] = 0
        self._begun = True
        infos: dict[str, Any] = {}
        self._add_legal(infos, np.isin(np.arange(self.num_envs), chosen))
        self._show()
        return self._observe(), infos

    def step(self, actions: Any) -> Step:
        """Take one action in each row.

        Args:
            actions: (B,) of the action space; those of rows that are being reset (NEXT_STEP) are ignored.

        Raises:
            InvalidAction: if the actions are not in the action space.
            ResetNeeded: before the first reset, after a step that failed, or under DISABLED when a row's episode
                has ended.
        """
        if not self._begun:
            raise ResetNeeded("no episode is running: call reset() before the first step")
        waiting = self._over.any()
        if waiting and self.autoreset_mode is AutoresetMode.DISABLED:
            raise ResetNeeded(
                f"the episodes of rows {np.flatnonzero(self._over).tolist()} have ended; reset them with "
                'options={"reset_mask": mask}, or pass autoreset_mode="SameStep"'
            )
        live = np.flatnonzero(~self._over) if waiting else None
        outcome = self._act(actions, live)
        if live is None:
            reward, terminated = outcome.reward, outcome.terminated
        else:
            reward, terminated = np.zeros(self.num_envs), np.zeros(self.num_envs, np.bool_)
            reward[live], terminated[live] = outcome.reward, outcome.terminated
            self._engine.begin(np.flatnonzero(self._over))
        truncated = self._count_steps()
        over = terminated | truncated
        infos: dict[str, Any] = {}
        if self.autoreset_mode is not AutoresetMode.SAME_STEP:
            self._add_outcome(infos, outcome)
            self._add_legal(infos, ~terminated)
            self._over = over
        elif not over.any():
            self._add_outcome(infos, outcome)
            self._add_legal(infos, ~terminated)
        else:
            self._reset_same_step(infos, outcome, terminated, over)
        self._show()
        return self._observe(), reward, terminated, truncated, infos

    def action_masks(self) -> NDArray[np.bool_]:
        """Return (B, V), True where an action is legal now, in a fresh array."""
        return self._engine.action_masks()

    def demonstrate(self) -> list[list[int]]:
        """Return each row's token ids of a best utterance, or of the reference, from where the open one began.

        Raises:
            NotImplementedError: if the task knows neither.
            TooLarge: if it has too many states.
            ResetNeeded: before the first reset.
        """
        if not self._begun:
            raise ResetNeeded("no episode is running: call reset() before demonstrate()")
        return self.task.demonstrate(self._engine.said())

    def render(self) -> tuple[str, ...] | None:  # type: ignore[override]
        """Return every row's episode so far as text ("ansi"), or print them ("human")."""
        if self.render_mode == "ansi":
            return tuple(map(self._engine.render, range(self.num_envs)))
        self._show()
        return None

    # What UtteranceVectorEnv does differently.

    def _spaces(self) -> tuple[spaces.Space, spaces.Space]:
        return token_context(self.task, self._engine.context_length), spaces.Discrete(self.task.vocab_size)

    def _act(self, actions: Any, rows: Rows | None) -> Outcome:
        tokens = np.asarray(actions)
        if tokens.shape != (self.num_envs,) or tokens.dtype.kind not in "iu":
            raise InvalidAction(
                f"actions have shape {tokens.shape} and dtype {tokens.dtype}; pass {self.num_envs} integers, "
                f"one per row, shape ({self.num_envs},)"
            )
        if rows is not None:
            tokens = tokens[rows]
        if tokens.size and not (0 <= tokens.min() and tokens.max() < self.vocab_size):
            at = int(np.flatnonzero((tokens < 0) | (tokens >= self.vocab_size))[0])
            row = at if rows is None else rows[at]
            raise InvalidAction(f"row {row}: {not_a_token(int(tokens[at]), self.vocab_size)}")
        return self._engine.say(tokens, rows)

    def _observe(self) -> Any:
        return self._engine.tokens.copy()

    def _observe_rows(self, rows: Rows | None) -> list[Any]:
        return list(self._engine.tokens.copy() if rows is None else self._engine.tokens[rows])

    # Reset.

    def _reset_rows(self, mask: Any) -> Rows | None:
        """Return the rows of a reset mask, None for all."""
        if mask is None:
            return None
        if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_:
            raise TypeError(f"options['reset_mask'] is a numpy array of dtype bool, got {mask!r}")
        if mask.shape != (self.num_envs,) or not mask.any():
            raise ValueError(
                f"options['reset_mask'] has shape ({self.num_envs},) and at least one True, got {mask!r}"
            )
        if not self._begun and not mask.all():
            raise ResetNeeded(f"the first reset begins all rows, got the mask {mask!r}; leave it out")
        return np.flatnonzero(mask)

    def _seed(self, seed: int | Sequence[int | None] | None, rows: Iterable[int]) -> None:
        """Seed those of the rows that get a seed, and those that never had one."""
        seeds: Sequence[int | None]
        if seed is None:
            seeds = [None] * self.num_envs
        elif np.ndim(seed) == 0:  # type: ignore[arg-type]
            first = as_seed(seed)
            super().reset(seed=first)
            seeds = range(first, first + self.num_envs)
        else:
            seeds = [None if one is None else as_seed(one) for one in seed]  # type: ignore[union-attr]
        if len(seeds) != self.num_envs:
            raise ValueError(f"pass one seed, or one per row: got {len(seeds)} seeds for {self.num_envs} rows")
        given = {row: seeds[row] for row in rows if seeds[row] is not None}
        for row in rows:
            if row not in given and not self._seeded[row]:
                given[row] = int(self.np_random.integers(np.iinfo(np.int64).max))
        if given:
            at = np.fromiter(given, np.intp)
            self._engine.seed(given.values(), at)  # type: ignore[arg-type]
            self._seeded[at] = True

    def _reset_same_step(
        self, infos: dict[str, Any], outcome: Outcome, terminated: NDArray[np.bool_], over: NDArray[np.bool_]
    ) -> None:
        """Put the ended rows' last observations and infos aside, and begin their next episodes."""
        rows = None if over.all() else np.flatnonzero(over)
        final_obs = np.full(self.num_envs, None, object)
        final_obs[over] = _objects(self._observe_rows(rows))
        final_info: dict[str, Any] = {}
        self._add_outcome(final_info, outcome, over)
        self._add_legal(final_info, over & ~terminated)
        infos["final_obs"], infos["_final_obs"] = final_obs, over.copy()
        infos["final_info"], infos["_final_info"] = final_info, over
        self._add_outcome(infos, outcome, ~over)
        self._engine.begin(rows)
        self._elapsed[over] = 0
        self._add_legal(infos, np.ones(self.num_envs, np.bool_))

    # Infos, as SyncVectorEnv would build them from the rows' own.

    def _add_outcome(self, infos: dict[str, Any], outcome: Outcome, of: NDArray[np.bool_] | None = None) -> None:
        """Add what closing rows report; `of` (B,) picks some of the rows."""
        self._add(infos, {"reward_clean": outcome.clean}, outcome.closed, of)
        self._add(infos, outcome.details, outcome.scored, of)

    def _add_legal(self, infos: dict[str, Any], rows: NDArray[np.bool_]) -> None:
        if self._engine.restricts and rows.any():
            infos["action_mask"] = self._engine.action_masks() & rows[:, None]
            infos["_action_mask"] = rows.copy()

    def _add(
        self, infos: dict[str, Any], values: Mapping[str, Any], rows: Rows, of: NDArray[np.bool_] | None
    ) -> None:
        """Spread per-row values over (B, ...) arrays, each with its mask."""
        keep = np.ones(len(rows), np.bool_) if of is None else of[rows]
        rows = rows[keep]
        if not rows.size:
            return
        for name, value in values.items():
            has = np.zeros(self.num_envs, np.bool_)
            has[rows] = True
            if isinstance(value, Mapping):
                nested: dict[str, Any] = {}
                self._add(nested, {k: _pick(v, keep) for k, v in value.items()}, rows, None)
                infos[name] = nested
            else:
                column = value if isinstance(value, np.ndarray) else _objects(value)
                empty = None if column.dtype == object else np.zeros((), column.dtype)
                infos[name] = np.full((self.num_envs, *column.shape[1:]), empty, column.dtype)
                infos[name][rows] = column[keep]
            infos[f"_{name}"] = has

    def _count_steps(self) -> NDArray[np.bool_]:
        """Count a step of every row that acted; return (B,) where the time limit is reached."""
        if self._max_episode_steps is None:
            return np.zeros(self.num_envs, np.bool_)
        self._elapsed = np.where(self._over, 0, self._elapsed + 1)
        return self._elapsed >= self._max_episode_steps

    def _show(self) -> None:
        if self.render_mode == "human":
            print("\n".join(map(self._engine.render, range(self.num_envs))))


class UtteranceVectorEnv(TokenVectorEnv):
    """B episodes of a text task, one utterance per step in each.

    Observations and actions are tuples of B texts; the task's reward is called once a step, for all rows. See
    `UtteranceEnv` for the meaning of an utterance and `TokenVectorEnv` for the arguments.

    Attributes:
        ended_tokens: (n, L) last contexts of the rows whose episodes the last SAME_STEP reset ended.
        cut: what is known of those of them that were truncated, whose next utterance was open.
    """

    ended_tokens: NDArray[np.int64]
    cut: Opening

    def _spaces(self) -> tuple[spaces.Space, spaces.Space]:
        return text_of(self.task, self._engine.context_length), utterance_of(self.task)

    def _act(self, actions: Any, rows: Rows | None) -> Outcome:
        if isinstance(actions, str) or len(actions) != self.num_envs:
            raise InvalidAction(f"pass {self.num_envs} texts, one per row, got {actions!r}")
        chosen = range(self.num_envs) if rows is None else rows
        texts = [actions[row] for row in chosen]
        for row, text in zip(chosen, texts, strict=True):
            if text not in self.single_action_space:
                raise InvalidAction(f"row {row}: {not_a_text(text, self.single_action_space)}")
        return self._engine.utter(texts, rows)

    def _observe(self) -> tuple[str, ...]:
        return tuple(map(self._engine.context, range(self.num_envs)))

    def _reset_same_step(
        self, infos: dict[str, Any], outcome: Outcome, terminated: NDArray[np.bool_], over: NDArray[np.bool_]
    ) -> None:
        self.ended_tokens = self._engine.tokens[over]
        self.cut = self._engine.opening(np.flatnonzero(over & ~terminated))
        super()._reset_same_step(infos, outcome, terminated, over)

    def _observe_rows(self, rows: Rows | None) -> list[str]:
        return [self._engine.context(row) for row in (range(self.num_envs) if rows is None else rows)]


def _objects(values: Sequence[Any]) -> NDArray[Any]:
    """Return a one-dimensional array of Python objects, even where the objects are arrays themselves."""
    return np.fromiter(values, object, len(values))


def _pick(values: Any, keep: NDArray[np.bool_]) -> Any:
    """Return the kept rows of per-row values; dicts nest."""
    if isinstance(values, Mapping):
        return {name: _pick(value, keep) for name, value in values.items()}
    return (values if isinstance(values, np.ndarray) else _objects(values))[keep]
