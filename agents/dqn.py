"""DQN on token environments: SB3's algorithm with cached acting, whole-episode replay and packed updates."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import stable_baselines3
import torch
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import RolloutReturn, Schedule

from .algorithm import TextAlgorithm
from .buffers import EpisodeReplayBuffer, ReplayBatch
from .losses import dqn_loss, q_targets
from .policies import TransformerQPolicy


class DQN(TextAlgorithm, stable_baselines3.DQN):
    """Deep Q-learning, Mnih et al. 2015, with double Q-learning, van Hasselt et al. 2016, arXiv:1509.06461.

    The arguments are SB3's, in SB3's order; `batch_size` counts transitions. What differs: a batch is whole
    episodes, exploration is drawn for each row, gamma is 1.

    Args:
        policy: "TransformerQPolicy" or a subclass of it.
        env: an id, a Gymnasium environment or vector environment, or an SB3 VecEnv.
        n_steps: length of the returns; at least the episode's length gives whole-episode returns.
        double_q: choose the next action with the online network and value it with the target network.
        learning_rate, buffer_size, learning_starts, batch_size, tau, gamma, train_freq, gradient_steps,
            target_update_interval, exploration_* and the rest: as in SB3.
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {"TransformerQPolicy": TransformerQPolicy}
    policy: TransformerQPolicy  # type: ignore[assignment]
    replay_buffer: EpisodeReplayBuffer

    def __init__(
        self,
        policy: str | type[TransformerQPolicy],
        env: Any,
        learning_rate: float | Schedule = 5e-4,
        buffer_size: int = 1_000_000,
        learning_starts: int = 1000,
        batch_size: int = 128,
        tau: float = 1.0,
        gamma: float = 1.0,
        train_freq: int | tuple[int, str] = 8,
        gradient_steps: int = 8,
        replay_buffer_class: type[EpisodeReplayBuffer] = EpisodeReplayBuffer,
        replay_buffer_kwargs: dict[str, Any] | None = None,
        optimize_memory_usage: bool = False,
        n_steps: int = 1,
        target_update_interval: int = 1000,
        exploration_fraction: float = 0.3,
        exploration_initial_eps: float = 1.0,
        exploration_final_eps: float = 0.02,
        max_grad_norm: float = 10,
        stats_window_size: int = 100,
        tensorboard_log: str | None = None,
        policy_kwargs: dict[str, Any] | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: torch.device | str = "auto",
        _init_setup_model: bool = True,
        *,
        double_q: bool = True,
    ) -> None:
        for name, value in (("n_steps", n_steps), ("batch_size", batch_size), ("buffer_size", buffer_size)):
            if value < 1:
                raise ValueError(f"{name}={value}; give at least 1")
        if not isinstance(train_freq, tuple) and train_freq < 1:
            raise ValueError(f"train_freq={train_freq}; give at least 1 step")
        super().__init__(
            policy,  # type: ignore[arg-type]
            env,
            learning_rate=learning_rate,
            buffer_size=buffer_size,
            learning_starts=learning_starts,
            batch_size=batch_size,
            tau=tau,
            gamma=gamma,
            train_freq=train_freq,
            gradient_steps=gradient_steps,
            replay_buffer_class=replay_buffer_class,
            replay_buffer_kwargs={
                "seed": seed,
                "gamma": gamma,
                "n_steps": n_steps,
                **(replay_buffer_kwargs or {}),
            },
            optimize_memory_usage=optimize_memory_usage,
            target_update_interval=target_update_interval,
            exploration_fraction=exploration_fraction,
            exploration_initial_eps=exploration_initial_eps,
            exploration_final_eps=exploration_final_eps,
            max_grad_norm=max_grad_norm,
            stats_window_size=stats_window_size,
            tensorboard_log=tensorboard_log,
            policy_kwargs=policy_kwargs,
            verbose=verbose,
            seed=seed,
            device=device,
            _init_setup_model=False,
        )
        self.double_q = double_q
        self.rng = np.random.default_rng(seed)
        if _init_setup_model:
            self._setup_model()

    def _setup_model(self) -> None:
        super()._setup_model()
        self._remember_architecture()

    def _setup_learn(  # type: ignore[override]
        self,
        total_timesteps: int,
        callback: Any = None,
        reset_num_timesteps: bool = True,
        *args: Any,
        **kwargs: Any,
    ) -> tuple[int, BaseCallback]:
        if reset_num_timesteps or self._last_obs is None:  # SB3 resets the environment
            self.replay_buffer.drop_unfinished()
        return super()._setup_learn(total_timesteps, callback, reset_num_timesteps, *args, **kwargs)

    def load_replay_buffer(self, path: Any, truncate_last_traj: bool = True) -> None:
        """Load what `save_replay_buffer` wrote; unfinished episodes of its environment are dropped."""
        super().load_replay_buffer(path, truncate_last_traj)
        self.replay_buffer.n_envs = self.n_envs
        self.replay_buffer.drop_unfinished()

    def predict(  # type: ignore[override]
        self,
        observation: np.ndarray,
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, Any]:
        """Return actions: greedy, or epsilon-greedy drawn for each row with the current exploration rate."""
        actions, state = self.policy.predict(observation, state, episode_start, deterministic=True)
        if not deterministic:
            explore = self.rng.random(actions.shape) < self.exploration_rate
            actions = np.where(
                explore, self.rng.integers(self.policy.backbone.vocab_size, size=actions.shape), actions
            )
        return actions, state

    def collect_rollouts(self, *args: Any, **kwargs: Any) -> RolloutReturn:
        """Collect transitions with the key-value cache."""
        with self.policy.cached():
            return super().collect_rollouts(*args, **kwargs)

    def train(self, gradient_steps: int, batch_size: int = 100) -> None:
        """Make gradient steps on sampled episodes."""
        if not self.replay_buffer.episodes:
            return
        self.policy.set_training_mode(True)
        self._update_learning_rate(self.policy.optimizer)
        losses = []
        for _ in range(gradient_steps):
            loss = self.loss(self.replay_buffer.sample(batch_size))
            losses.append(loss.detach())
            self.policy.optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.policy.q_net.parameters(), self.max_grad_norm)
            self.policy.optimizer.step()
        self._n_updates += gradient_steps
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        self.logger.record("train/loss", torch.stack(losses).mean().item())

    def loss(self, batch: ReplayBatch) -> torch.Tensor:
        """Return the Huber loss of a batch: one forward of each network serves states and next states."""
        states, following = _split(self.policy.q_net.evaluate_packed(batch.packs), batch.n_states)
        with torch.no_grad():
            _, following_target = _split(self.policy.q_net_target.evaluate_packed(batch.packs), batch.n_states)
        targets = q_targets(
            batch.rewards,
            batch.discounts,
            following_target,
            following.detach() if self.double_q else None,
        )
        return dqn_loss(states, batch.actions, targets)


def _split(q_values: torch.Tensor, n_states: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return Q-values (N, V) of states and (N, V) of next states, which alternate pack by pack."""
    parts = q_values.split([n for n in n_states for _ in range(2)])
    return torch.cat(parts[::2]), torch.cat(parts[1::2])
