"""The best of n samples by the environment's own reward: measured, and imitated (expert iteration)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from gymnasium.vector import VectorEnv
from stable_baselines3.common.type_aliases import Schedule
from stable_baselines3.common.utils import LinearSchedule
from stable_baselines3.common.vec_env import VecEnv

from .buffers import GroupEpisode, GroupRolloutBuffer, check_rewards
from .cloning import CloningAlgorithm
from .demonstrations import Demonstration, EpisodeRecorder
from .masks import ask_masks, restricts
from .on_policy import GroupAlgorithm, check_groups, check_sizes, seed_groups
from .policies import TransformerPolicy


class BestEpisode(NamedTuple):
    """The best of n episodes of one prompt.

    Attributes:
        episode: its tokens; the prompt is `episode.ids[: episode.position[0] + 1]`.
        returns: (n,) of all n, in the order of their rows; `returns.max()` is the best one's.
    """

    episode: Demonstration
    returns: np.ndarray


def best_of(groups: Sequence[Sequence[GroupEpisode]]) -> list[Demonstration]:
    """Return the episode of largest return of each group, the first of equals; groups of equals tell nothing."""
    best = []
    for group in groups:
        returns = np.array([episode.rewards.sum() for episode in group])
        if returns.max() > returns.min():
            chosen = group[int(returns.argmax())]
            best.append(Demonstration(chosen.ids, chosen.position, chosen.actions, chosen.masks))
    return best


class BestOfN(GroupAlgorithm, CloningAlgorithm):
    """Sampling n completions of each prompt and keeping the best.

    `learn` imitates the best again and again: reward-ranked fine-tuning. `predict` samples the policy as it is.
    `best_episodes` and `best_returns` measure the best of n, of a policy that learned or of one that did not.

    A group is n neighbouring rows of the environment, which are seeded alike: their episodes of one number share a
    prompt. A group whose returns are all equal has no best and is left out.

    Args:
        policy: "TransformerPolicy" or a subclass of it.
        env: an id, a Gymnasium environment or vector environment, or an SB3 VecEnv.
        n: episodes of a prompt; the environment's rows are a multiple of it.
        learning_rate: as in SB3.
        n_steps: steps of every row between updates.
        batch_size: tokens of a minibatch, which is whole episodes.
        n_epochs: passes over the best episodes.
        max_grad_norm: gradients are clipped to it.
        max_group_age: rollouts that an episode may wait for the rest of its group, see `GRPO`.
        micro_batch_size: tokens of one forward and backward, see `GRPO`.
        policy_kwargs: as in SB3; `{"model": other.policy.backbone.merged()}` begins with another agent's weights.
        stats_window_size, tensorboard_log, verbose, seed, device: as in SB3.

    Raises:
        ValueError: if the rows of the environment are no multiple of `n`, or a number is out of range.

    Source: Dong et al. 2023, arXiv:2304.06767.
    """

    rollout_buffer: GroupRolloutBuffer  # type: ignore[assignment]

    def __init__(
        self,
        policy: str | type[TransformerPolicy],
        env: Any,
        n: int = 8,
        learning_rate: float | Schedule = LinearSchedule(1e-3, 0.0, 1.0),  # noqa: B008 - it has no state
        n_steps: int = 128,
        batch_size: int = 64,
        n_epochs: int = 4,
        max_grad_norm: float = 0.5,
        stats_window_size: int = 100,
        tensorboard_log: str | None = None,
        policy_kwargs: dict[str, Any] | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: torch.device | str = "auto",
        _init_setup_model: bool = True,
        *,
        max_group_age: int = 1,
        micro_batch_size: int | None = None,
    ) -> None:
        check_sizes(n_steps=n_steps, n_epochs=n_epochs, batch_size=batch_size, micro_batch_size=micro_batch_size)
        check_sizes(max_group_age=max_group_age)
        _check_n(n)
        super().__init__(
            policy,  # type: ignore[arg-type]
            env,
            learning_rate=learning_rate,
            n_steps=n_steps,
            gamma=1.0,
            gae_lambda=1.0,
            ent_coef=0.0,
            vf_coef=0.0,
            max_grad_norm=max_grad_norm,
            use_sde=False,
            sde_sample_freq=-1,
            rollout_buffer_class=GroupRolloutBuffer,
            stats_window_size=stats_window_size,
            tensorboard_log=tensorboard_log,
            policy_kwargs=policy_kwargs,
            verbose=verbose,
            seed=seed,
            device=device,
            _init_setup_model=False,
        )
        self.group_size, self.batch_size, self.n_epochs, self.reference = n, batch_size, n_epochs, None
        self.micro_batch_size, self.max_group_age = micro_batch_size, max_group_age
        self.rng = np.random.default_rng(seed)
        if _init_setup_model:
            self._setup_model()

    def _setup_model(self) -> None:
        self.group_size = vars(self).pop("n", self.group_size)  # as `load` was told
        super()._setup_model()

    def _buffer_options(self) -> dict[str, Any]:
        return {**super()._buffer_options(), "group_size": self.group_size, "advantage": "dr_grpo"}

    def _check_options(self) -> None:
        check_sizes(n_epochs=self.n_epochs, batch_size=self.batch_size, micro_batch_size=self.micro_batch_size)
        check_sizes(max_group_age=self.max_group_age)
        _check_n(self.n)

    @property
    def n(self) -> int:
        """Episodes of a prompt."""
        return self.group_size

    def train(self) -> None:
        """Update the policy with `n_epochs` passes over the best of each complete group."""
        groups = self.rollout_buffer.groups
        best = best_of(groups)
        self._log_groups()
        if groups:
            self.logger.record("train/fraction_with_a_best", len(best) / len(groups))
            returns = np.array([[episode.rewards.sum() for episode in group] for group in groups])
            self.logger.record("rollout/best_return", float(returns.max(axis=1).mean()))
        if best:  # else episodes are longer than the rollout, or all are equally good
            self._imitate(best)

    def best_episodes(self, prompts: int = 128, env: VecEnv | VectorEnv | None = None) -> list[BestEpisode]:
        """Sample n episodes of each of some fresh prompts and return the best of each.

        Args:
            prompts: at least 1.
            env: where to play, its rows a multiple of n; None: where the agent learns, whose running episodes end.

        Raises:
            ValueError: if the rows of the environment are no multiple of `n`.
            RuntimeError: if there is no environment.
        """
        check_sizes(prompts=prompts)
        if env is None and self.env is None:
            raise RuntimeError("there is no environment to play in; pass env=, or load the agent with one")
        played: Any = self.env if env is None else self._wrap_env(env)
        check_groups(played.num_envs, self.n)
        if env is None:
            self._last_obs = None  # `learn` has to reset it
        numbers = -(-prompts // (played.num_envs // self.n))  # episodes of each row
        rows = self._play(played, numbers)
        groups = [rows[first : first + self.n] for first in range(0, len(rows), self.n)]
        best = []
        for number in range(numbers):
            for group in groups:
                returns = np.array([row[number][1] for row in group])
                best.append(BestEpisode(group[int(returns.argmax())][number][0], returns))
        return best[:prompts]

    def best_returns(self, prompts: int = 128, env: VecEnv | VectorEnv | None = None) -> np.ndarray:
        """Return (prompts,) what the best of n samples of each prompt earns; see `best_episodes`."""
        return np.array([best.returns.max() for best in self.best_episodes(prompts, env)])

    def _play(self, env: VecEnv, numbers: int) -> list[list[tuple[Demonstration, float]]]:
        """Return the first `numbers` episodes of each row, and their returns; groups share their prompts."""
        seed_groups(env, self.n, self.rng)
        obs: Any = env.reset()
        recorder = EpisodeRecorder(env.num_envs, int(env.action_space.n))  # type: ignore[attr-defined]
        rows: list[list[tuple[Demonstration, float]]] = [[] for _ in range(env.num_envs)]
        running, masked = np.zeros(env.num_envs), restricts(env)
        with self.policy.cached():
            while min(map(len, rows)) < numbers:
                legal = ask_masks(env) if masked else None
                actions, _ = self.policy.predict(obs, deterministic=False, action_masks=legal)
                following, rewards, dones, _ = env.step(actions)
                check_rewards(rewards)
                running += rewards
                for row, episode in recorder.add(obs, actions, dones, legal):
                    rows[row].append((episode, float(running[row])))
                running[dones] = 0.0
                obs = following
        return rows


def _check_n(n: int) -> None:
    """Raise unless there is something to choose from."""
    if n < 2:
        raise ValueError(f"n={n}; the best of n needs at least 2 to choose from")
