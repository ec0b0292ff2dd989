"""Choose among proposed utterances: an utterance-level environment as Discrete(K), alone and in a batch.

Where candidates come from and how they are laid out does not live here but in `proposers.py`.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.error import InvalidAction, ResetNeeded
from gymnasium.utils import RecordConstructorArgs
from gymnasium.vector import VectorEnv, VectorWrapper
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from .attributes import TaskAttributes
from .engine import Engine, Illegal, Opening, Rows
from .proposers import CandidateLayout, CandidateSource, Proposals, Proposer
from .tasks.base import pad
from .utterance_env import UtteranceEnv
from .vector_env import Step, UtteranceVectorEnv

_NOT_RUNNING = "no episode is running: call reset() before the first step, after the last, and after a failed one"


class CandidateActions(gym.Wrapper, RecordConstructorArgs):
    """An utterance-level environment whose action is which of K proposed utterances to say.

    Observation: one `Box(0, V, (L + K * C,), int64)`, the context's ids and each candidate's; see
    `CandidateLayout` and the attribute `candidate_layout`. Action: `Discrete(K)`. Rewards and ends are those of
    the environment.

    Where fewer than K are proposed, the others are absent: `action_masks()` and `info["action_mask"]` (K,) are
    False there, and an absent one closes the utterance with the task's invalid reward. A text may be
    proposed twice. When the episode has terminated, no candidate is left.

    `optimal_return()`, `random_return()` and `normalize()` are those of token level. The optimum is over all
    utterances, so a bound on what candidates allow; random play draws uniform legal tokens, not candidates, so that
    a uniform choice among good ones is normalised to more than 0.

    Args:
        env: an `UtteranceEnv`, or one in wrappers that leave its texts alone, such as TimeLimit.
        propose: what proposes utterances: a function (contexts, k, rngs) that returns a list of 1 to k texts for
            each context, called once a step; `rngs` are numpy generators, one per context, from the row's seed,
            episode and turn. Or "module:factory" of such a function, a list of texts (see `FixedCandidates`),
            "random" (uniform legal tokens), or None for the task's own. Gymnasium copies an environment's
            keywords: give a proposer that holds a model a `__deepcopy__` that returns itself.
        k: K, candidates of a step.
        candidate_length: C, tokens of a candidate's segment; None: the budget of one utterance.

    Raises:
        TypeError: if the environment is of another level, or `propose` is none of these.
        ValueError: if a size is below 1, the task has no candidates of its own, or a name leads to no
            proposer.

    Example:
        >>> env = gym.make("text_envs/Sentiment-v0", level="utterance")
        >>> env = CandidateActions(env, ["good film", "bad film", "a film"], k=3)
        >>> observation, info = env.reset(seed=1)
        >>> context, candidates = env.candidate_layout.split(observation)
    """

    restricts = True  # an absent candidate is masked

    def __init__(
        self,
        env: gym.Env[str, str],
        propose: Proposer | Iterable[str] | str | None = None,
        k: int = 4,
        *,
        candidate_length: int | None = None,
    ) -> None:
        RecordConstructorArgs.__init__(
            self, _disable_deepcopy=True, propose=propose, k=k, candidate_length=candidate_length
        )
        gym.Wrapper.__init__(self, env)
        if not isinstance(env.unwrapped, UtteranceEnv):
            raise TypeError(f'env is an environment made with level="utterance", got {env}')
        self._engine = env.unwrapped._engine
        self._source = CandidateSource(self._engine, env.action_space, propose, k, candidate_length)
        self.candidate_layout = self._source.layout
        self.observation_space = self._source.space
        self.action_space = spaces.Discrete(self.candidate_layout.num_candidates)
        self.candidates: list[str] = []  # the texts that the next action chooses among
        self._tokens = self._source.absent(1)  # (1, K, C), their ids

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.int64], dict[str, Any]]:
        """Begin an episode and propose its first candidates.

        Raises:
            CandidateError: if the proposer raises, or proposes what cannot be said.
        """
        context, info = self.env.reset(seed=seed, options=options)
        return self._observe([context], info)

    def step(self, action: np.int64 | int) -> tuple[NDArray[np.int64], Any, bool, bool, dict[str, Any]]:
        """Say one of the candidates.

        Raises:
            InvalidAction: if the action is not an integer in 0..K-1.
            ResetNeeded: if no episode is running, or the last step failed.
            CandidateError: if the proposer raises, or proposes what cannot be said.
        """
        if not self.candidates:
            raise ResetNeeded(_NOT_RUNNING)
        try:
            chosen = -1 if isinstance(action, bool) else operator.index(action)
        except TypeError:
            chosen = -1
        if not 0 <= chosen < self.candidate_layout.num_candidates:
            raise InvalidAction(_not_a_candidate(action, self.candidate_layout))
        context, reward, terminated, truncated, info = self.env.step(_text(self.candidates, chosen))
        observation, info = self._observe([] if terminated else [context], info)
        return observation, reward, terminated, truncated, info

    def action_masks(self) -> NDArray[np.bool_]:
        """Return (K,), True where there is a candidate, in a fresh array."""
        return np.arange(self.candidate_layout.num_candidates) < len(self.candidates)

    def demonstrate(self) -> int:
        """Return the action that says a best utterance, or the reference.

        Raises:
            NotImplementedError: if the task knows neither, or it is not among the candidates.
            TooLarge: if the task has too many states.
            ResetNeeded: if no episode is running.
        """
        if not self.candidates:
            raise ResetNeeded(_NOT_RUNNING)
        return int(_demonstrated(self._engine, np.zeros(1, np.intp), self._tokens)[0])

    def _observe(self, contexts: list[str], info: dict[str, Any]) -> tuple[NDArray[np.int64], dict[str, Any]]:
        """Propose for the one context there is, or none; return the observation and the row's info."""
        self.candidates = []  # and so it stays where the proposer fails
        rows = np.arange(len(contexts))
        (proposals,) = self._source.propose((self._engine.opening(rows), contexts))
        tokens = self._source.absent(1)
        tokens[rows] = proposals.tokens
        self._tokens = tokens
        info.pop("action_mask", None)  # it was of tokens
        if contexts:
            self.candidates = proposals.texts[0]
            info["action_mask"] = self.action_masks()
        return _observations(self._engine.tokens, tokens)[0], info


class CandidateVectorActions(TaskAttributes, VectorWrapper):
    """B episodes of an utterance-level environment whose actions are which of K proposed utterances to say.

    Does what a `SyncVectorEnv` of `CandidateActions` does, and calls `propose` once a step for all contexts that
    need candidates: those of all rows but the terminated ones, and the last contexts of truncated episodes. See
    `CandidateActions` for observations, actions, arguments and errors, and for `optimal_return()`,
    `random_return()` and `normalize()`, which are those of token level.

    Args:
        env: an `UtteranceVectorEnv`, or one in wrappers that leave its texts alone.
        propose: what proposes utterances.
        k: K, candidates of a step.
        candidate_length: C, tokens of a candidate's segment; None: the budget of one utterance.

    Example:
        >>> env = gym.make_vec("text_envs/Sentiment-v0", num_envs=8, level="utterance")
        >>> env = CandidateVectorActions(env, "random", k=4)
    """

    restricts = True  # an absent candidate is masked

    def __init__(
        self,
        env: VectorEnv,
        propose: Proposer | Iterable[str] | str | None = None,
        k: int = 4,
        *,
        candidate_length: int | None = None,
    ) -> None:
        super().__init__(env)
        inner = env.unwrapped
        if not isinstance(inner, UtteranceVectorEnv):
            raise TypeError(
                f'env is a batch made by make_vec with level="utterance", got {env}; for SyncVectorEnv and '
                "AsyncVectorEnv, put each single environment in CandidateActions"
            )
        self.task = inner.task
        self._inner = inner
        self._engine = inner._engine
        self._source = CandidateSource(self._engine, inner.single_action_space, propose, k, candidate_length)
        self.candidate_layout = self._source.layout
        self.single_observation_space = self._source.space
        self.single_action_space = spaces.Discrete(self.candidate_layout.num_candidates)
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self.candidates: list[list[str]] = []  # of each row; none before the first reset and after a failure
        self._tokens = self._source.absent(self.num_envs)  # (B, K, C), their ids

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.int64], dict[str, Any]]:
        """Begin an episode on all rows, or on those of `options["reset_mask"]`, and propose their candidates.

        Raises:
            CandidateError: if the proposer raises, or proposes what cannot be said.
            ResetNeeded: if the mask leaves rows out at the first reset, or after a step that failed.
        """
        mask = (options or {}).get("reset_mask")
        if mask is not None and not np.all(mask) and not self.candidates:
            raise ResetNeeded(f"{_NOT_RUNNING}; for all rows, got the mask {mask!r}")
        contexts, infos = self.env.reset(seed=seed, options=options)  # type: ignore[arg-type]  # a seed per row
        begun = np.ones(self.num_envs, np.bool_) if mask is None else mask
        self._propose(contexts, begun, kept=~begun)
        _drop_masks(infos)
        _add_masks(infos, self.action_masks(), begun)
        return _observations(self._engine.tokens, self._tokens), infos

    def step(self, actions: Any) -> Step:
        """Say one of its candidates in each row.

        Args:
            actions: (B,) integers in 0..K-1; those of rows that are being reset (NEXT_STEP) are ignored.

        Raises:
            InvalidAction: if the actions are not in the action space.
            ResetNeeded: before the first reset, after a step that failed, or under DISABLED when a row's episode
                has ended.
            CandidateError: if the proposer raises, or proposes what cannot be said.
        """
        if not self.candidates:
            raise ResetNeeded(_NOT_RUNNING)
        contexts, rewards, terminated, truncated, infos = self.env.step(self._chosen(actions))
        _drop_masks(infos)
        nowhere = np.zeros(self.num_envs, np.bool_)
        if "final_obs" not in infos:
            proposed = ~terminated
            self._propose(contexts, proposed, kept=nowhere)
        else:
            proposed = ~nowhere
            cut = truncated & ~terminated
            last = self._inner.cut, infos["final_obs"][cut].tolist()
            (finals,) = self._propose(contexts, proposed, last, kept=nowhere)
            self._show_finals(infos, cut, finals.tokens)
        _add_masks(infos, self.action_masks(), proposed)
        return _observations(self._engine.tokens, self._tokens), rewards, terminated, truncated, infos

    def action_masks(self) -> NDArray[np.bool_]:
        """Return (B, K), True where there is a candidate, in a fresh array."""
        return self._tokens[:, :, 0] != self.vocab_size

    def demonstrate(self) -> NDArray[np.int64]:
        """Return (B,) the actions that say best utterances, or references; 0 where no episode is running.

        Raises:
            NotImplementedError: if the task knows neither, or one is not among the candidates.
            TooLarge: if the task has too many states.
            ResetNeeded: before the first reset, and after a step that failed.
        """
        if not self.candidates:
            raise ResetNeeded(_NOT_RUNNING)
        rows = np.flatnonzero(self.action_masks().any(axis=1))
        actions = np.zeros(self.num_envs, np.int64)
        actions[rows] = _demonstrated(self._engine, rows, self._tokens[rows])
        return actions

    def _chosen(self, actions: Any) -> tuple[str, ...]:
        """Return the text that each row says."""
        chosen = np.asarray(actions)
        if chosen.shape != (self.num_envs,) or chosen.dtype.kind not in "iu":
            raise InvalidAction(
                f"actions have shape {chosen.shape} and dtype {chosen.dtype}; pass {self.num_envs} integers, "
                f"one per row, shape ({self.num_envs},)"
            )
        live = ~self._inner._over
        wrong = np.flatnonzero(live & ((chosen < 0) | (chosen >= self.candidate_layout.num_candidates)))
        if wrong.size:
            row = int(wrong[0])
            raise InvalidAction(f"row {row}: {_not_a_candidate(int(chosen[row]), self.candidate_layout)}")
        rows = zip(self.candidates, chosen.tolist(), live, strict=True)
        return tuple(_text(texts, choice) if lives else "" for texts, choice, lives in rows)

    def _propose(
        self,
        contexts: Sequence[str],
        proposed: NDArray[np.bool_],
        *last: tuple[Opening, list[str]],
        kept: NDArray[np.bool_],
    ) -> list[Proposals]:
        """Give rows new candidates, keep some others' and leave the rest without.

        Args:
            contexts: (B,) texts.
            proposed: (B,) rows that get new ones.
            last: contexts of episodes that have ended, to be proposed for in the same call.
            kept: (B,) rows that keep theirs.

        Returns:
            The candidates of `last`.
        """
        old, self.candidates = self.candidates, []  # and so they stay where the proposer fails
        rows = np.flatnonzero(proposed)
        fresh, *finals = self._source.propose(
            (self._engine.opening(rows), [contexts[row] for row in rows.tolist()]), *last
        )
        self._tokens[~kept] = self.vocab_size
        self._tokens[rows] = fresh.tokens
        texts = [old[row] if keep else [] for row, keep in enumerate(kept)]
        for row, candidates in zip(rows.tolist(), fresh.texts, strict=True):
            texts[row] = candidates
        self.candidates = texts
        return finals

    def _show_finals(self, infos: dict[str, Any], cut: NDArray[np.bool_], tokens: NDArray[np.int64]) -> None:
        """Put candidates in the ended episodes' last observations: `tokens` in those of the rows `cut`."""
        ended = infos["_final_obs"]
        shown = self._source.absent(self.num_envs)
        shown[cut] = tokens
        final_obs = np.full(self.num_envs, None, object)
        last = _observations(self._inner.ended_tokens, shown[ended])
        final_obs[ended] = np.fromiter(last, object, len(last))
        infos["final_obs"] = final_obs
        _drop_masks(infos["final_info"])
        _add_masks(infos["final_info"], shown[:, :, 0] != self.vocab_size, cut)


def _demonstrated(engine: Engine, rows: Rows, candidates: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return (n,) which of the (n, K, C) candidates of n rows is what the task demonstrates there.

    Raises:
        NotImplementedError: if none is.
    """
    task, (_, k, length) = engine.task, candidates.shape
    wanted = task.demonstrate(engine.said(rows))
    best, _ = pad([*wanted, [task.vocab_size] * length], task.vocab_size)  # the last row gives it the width
    shown = np.pad(candidates, ((0, 0), (0, 0), (0, best.shape[1] - length)), constant_values=task.vocab_size)
    same = (shown == best[:-1, None]).all(axis=2)  # (n, K)
    if not same.any(axis=1).all():
        at = int(np.argmin(same.any(axis=1)))
        raise NotImplementedError(
            f"none of the {k} candidates of row {rows[at]} is what {type(task).__name__} demonstrates, "
            f"{task.codec.decode(wanted[at])!r:.300}; raise k, or propose it"
        )
    return same.argmax(axis=1)


def _text(candidates: list[str], choice: int) -> str:
    return candidates[choice] if choice < len(candidates) else Illegal()


def _observations(contexts: NDArray[np.int64], candidates: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return (n, L + K * C) of (n, L) and (n, K, C), a fresh array."""
    return np.concatenate([contexts, candidates.reshape(len(candidates), -1)], axis=1)


def _not_a_candidate(action: Any, layout: CandidateLayout) -> str:
    return (
        f"action {action!r} is not an integer in 0..{layout.num_candidates - 1}; an action is the index of a "
        "candidate"
    )


def _drop_masks(infos: dict[str, Any]) -> None:
    """Drop the masks of tokens."""
    infos.pop("action_mask", None)
    infos.pop("_action_mask", None)


def _add_masks(infos: dict[str, Any], legal: NDArray[np.bool_], rows: NDArray[np.bool_]) -> None:
    """Add the masks of candidates, as SyncVectorEnv would build them from those of `rows`."""
    if rows.any():
        infos["action_mask"] = legal & rows[:, None]
        infos["_action_mask"] = rows.copy()
