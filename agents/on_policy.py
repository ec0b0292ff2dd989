"""What our on-policy algorithms share: rollouts with the cache, a reference policy, and steps of the optimiser."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.type_aliases import Schedule
from stable_baselines3.common.vec_env import VecEnv

from .buffers import EpisodeRolloutBuffer, GroupRolloutBuffer
from .masks import ask_masks, restricts
from .policies import token_sizes
from .reference import ReferenceAlgorithm
from .transfer import to_device
from .updates import Update, memory_advice


class OnPolicyTextAlgorithm(ReferenceAlgorithm):
    """A mixin before an on-policy algorithm of SB3; its constructor sets `reference`."""

    env: VecEnv
    n_steps: int
    batch_size: int
    max_grad_norm: float
    rollout_buffer_kwargs: dict[str, Any]
    micro_batch_size: int | None = None
    _has_critic: ClassVar[bool] = True  # False: the policy's values are never computed

    def _setup_model(self) -> None:
        if not isinstance(self.action_space, spaces.Discrete):  # the buffer, made first, would stumble over it
            token_sizes(self.observation_space, self.action_space)
        given = self.rollout_buffer_kwargs
        self.rollout_buffer_kwargs = {**given, **self._buffer_options()}
        super()._setup_model()
        self.rollout_buffer_kwargs = given
        self.policy.has_critic = self._has_critic

    def _buffer_options(self) -> dict[str, Any]:
        """Return what of the algorithm's options the rollout buffer has to know, beside those of SB3."""
        return {"seed": self.seed}

    def predict(  # type: ignore[override]
        self,
        observation: np.ndarray,
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = False,
        action_masks: np.ndarray | None = None,
    ) -> tuple[np.ndarray, Any]:
        """Return actions, as in SB3; legal ones where `action_masks` (B, V) are given, as in sb3-contrib.

        Without them it warns, once, where the environment restricts actions.
        """
        self._warn_of_masks(action_masks)
        return self.policy.predict(observation, state, episode_start, deterministic, action_masks)

    @memory_advice()
    def collect_rollouts(
        self,
        env: VecEnv,
        callback: BaseCallback,
        rollout_buffer: RolloutBuffer,
        n_rollout_steps: int,
    ) -> bool:
        """Collect `n_rollout_steps` of every row with the key-value cache, of legal actions only."""
        self._progress_of_rollout = 1.0 - self.num_timesteps / self._total_timesteps
        self.rollout_buffer.max_tokens = self.micro_batch_size  # type: ignore[attr-defined]
        ask = self._ask_masks if restricts(env) else None
        with self.policy.cached(), self.policy.masked(ask):
            finished = super().collect_rollouts(env, callback, rollout_buffer, n_rollout_steps)  # type: ignore[misc]
        self._after_rollout(finished)
        return finished

    def _after_rollout(self, finished: bool) -> None:
        """Prepare the rollout for the update; `finished` is False where a callback broke it off."""
        if not finished:
            self._last_obs = None  # the step it was broken off in was not kept, so new episodes begin

    @torch.no_grad()
    def _rescore(self) -> None:
        """Make the old log-probabilities the update's own: in reduced precision the cache's differ from them."""
        if self.policy.spec.dtype is None:
            return
        buffer: EpisodeRolloutBuffer = self.rollout_buffer  # type: ignore[attr-defined]
        log_probs = buffer.log_probs.reshape(-1)
        for batch in buffer.in_order(max(self.batch_size, 64)):
            own = self.policy.packed_log_probs(batch.packs, batch.actions, batch.masks)
            log_probs[batch.transition.cpu().numpy()] = own.cpu().numpy()

    def _ask_masks(self) -> torch.Tensor:
        """Return the masks (B, V) of the step that is being chosen; the buffer keeps them for the update."""
        legal = ask_masks(self.env)
        self.rollout_buffer.remember_masks(legal)  # type: ignore[attr-defined]
        return to_device(legal, self.device)

    def _begin_update(self) -> Update:
        """Set dropout and the learning rate and return what makes the steps.

        Schedules are read where the rollout began. Stock reads them where it ended, so that a falling learning
        rate is 0 in the last update, and in every update of a `learn` no longer than a rollout.
        """
        self._current_progress_remaining = self._progress_of_rollout
        self.policy.set_training_mode(True)
        self._update_learning_rate(self.policy.optimizer)
        self.rollout_buffer.max_tokens = self.micro_batch_size  # type: ignore[attr-defined]
        return Update(self.policy.optimizer, self.max_grad_norm, self.micro_batch_size is not None)

    def _now(self, schedule: float | Schedule) -> float:
        """Return a hyperparameter at the current progress."""
        return schedule(self._current_progress_remaining) if callable(schedule) else schedule


class GroupAlgorithm(OnPolicyTextAlgorithm):
    """A mixin before one that compares the episodes of a prompt: neighbouring rows, seeded alike, are a group.

    Where episodes differ in length, the rows of a group drift apart, and an episode waits for the rest of its group
    while the policy that said it grows old. Once one has waited for more than `max_group_age` rollouts (of at least
    a context's length), all rows begin afresh, and what was not complete is dropped. Rows whose episodes are of one
    length never wait.
    """

    _has_critic = False
    group_size: int
    max_group_age: int
    rng: np.random.Generator
    rollout_buffer: GroupRolloutBuffer

    def _setup_model(self) -> None:
        check_groups(self.n_envs, self.group_size)
        super()._setup_model()

    def _setup_learn(  # type: ignore[override]
        self,
        total_timesteps: int,
        callback: Any = None,
        reset_num_timesteps: bool = True,
        *args: Any,
        **kwargs: Any,
    ) -> tuple[int, BaseCallback]:
        if reset_num_timesteps or self._last_obs is None:  # SB3 resets the environment
            self.rollout_buffer.drop_unfinished()
            seed_groups(self.env, self.group_size, self.rng)
        return super()._setup_learn(total_timesteps, callback, reset_num_timesteps, *args, **kwargs)

    def _after_rollout(self, finished: bool) -> None:
        """Collect the groups that are complete."""
        super()._after_rollout(finished)
        if finished:
            self._collect_groups()

    def _collect_groups(self) -> None:
        buffer = self.rollout_buffer
        buffer.collect_groups()
        if buffer.longest_wait > self.max_group_age * max(self.n_steps, buffer.obs_shape[0]):
            self._begin_afresh()

    def _log_groups(self) -> None:
        buffer = self.rollout_buffer
        self.logger.record("train/groups", len(buffer.groups))
        if buffer.ages:
            self.logger.record("train/group_age", float(np.mean(buffer.ages)))

    def _begin_afresh(self) -> None:
        """Reset all rows, those of a group side by side."""
        self.rollout_buffer.drop_unfinished()
        seed_groups(self.env, self.group_size, self.rng)
        self._last_obs = self.env.reset()  # type: ignore[assignment]
        self._last_episode_starts = np.ones(self.n_envs, bool)


def check_groups(rows: int, group_size: int) -> None:
    """Raise unless the rows of an environment are whole groups."""
    if rows % group_size:
        raise ValueError(
            f"{rows} rows cannot be divided into groups of {group_size}; make the environment with "
            f"num_envs={group_size * max(1, round(rows / group_size))}"
        )


def seed_groups(env: VecEnv, group_size: int, rng: np.random.Generator) -> None:
    """Give every `group_size` neighbouring rows one seed for their next reset, so that they share their prompts."""
    first = int(rng.integers(2**31 - env.num_envs))
    env.unwrapped._seeds = [first + row // group_size for row in range(env.num_envs)]


def means(losses: list[Any]) -> Any:
    """Return a NamedTuple of the means of each term over some losses."""
    return type(losses[0])(*(torch.stack(term).mean().item() for term in zip(*losses, strict=True)))


def check_sizes(**sizes: int | None) -> None:
    """Raise unless every size that is given is at least 1."""
    for name, value in sizes.items():
        if value is not None and value < 1:
            raise ValueError(f"{name}={value}; give at least 1")
