"""Behaviour cloning: the likelihood of demonstrated tokens, maximised over whole packed episodes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import Schedule
from stable_baselines3.common.utils import LinearSchedule
from stable_baselines3.common.vec_env import VecEnv

from .demonstrations import (
    CloningBatch,
    Demonstration,
    DemonstrationBuffer,
    Pairs,
    cloning_batches,
    demonstrations_of_pairs,
    in_order,
)
from .losses import CloningLoss, cloning_loss
from .masks import ask_masks, restricts
from .on_policy import OnPolicyTextAlgorithm, check_sizes, means
from .policies import TransformerPolicy
from .updates import memory_advice


class Step(NamedTuple):
    """A step of B rows; `observations` are (B, L), the other arrays (B,)."""

    actions: np.ndarray
    observations: np.ndarray
    rewards: np.ndarray
    dones: np.ndarray
    infos: list[dict[str, Any]]


class CloningAlgorithm(OnPolicyTextAlgorithm, OnPolicyAlgorithm):
    """What algorithms that imitate episodes share: the update."""

    _has_critic = False
    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {"TransformerPolicy": TransformerPolicy}
    policy: TransformerPolicy  # type: ignore[assignment]
    batch_size: int
    n_epochs: int
    rng: np.random.Generator

    @memory_advice()
    def _imitate(self, episodes: Sequence[Demonstration]) -> None:
        """Update the policy with `n_epochs` passes over some episodes, and log it."""
        update = self._begin_update()
        losses: list[CloningLoss] = []
        for _ in range(self.n_epochs):
            for batch in cloning_batches(episodes, self.batch_size, self.rng, self.device, self.micro_batch_size):
                losses.append(update.backward(batch, self.loss))
                update.step(losses[-1].total)
            self._n_updates += 1
        update.check()
        self.trained_tokens += update.tokens
        mean = means(losses)
        self.logger.record("train/loss", mean.total)
        self.logger.record("train/entropy_loss", -mean.entropy)
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")

    def loss(self, batch: CloningBatch) -> CloningLoss:
        """Return the loss of a minibatch, or of a part of one."""
        _, log_prob, entropy = self.policy.evaluate_packed(
            batch.packs, batch.actions, entropy_gradient=False, masks=batch.masks
        )
        return cloning_loss(log_prob, entropy)

    def _setup_model(self) -> None:
        super()._setup_model()
        self._n_updates = 0


class BehaviourCloning(CloningAlgorithm):
    """Maximum likelihood of demonstrated tokens.

    `learn` counts demonstrated tokens as timesteps. Either the environment demonstrates (its method `demonstrate`),
    every episode is new and `rollout/ep_rew_mean` is what the demonstrations earn; or pairs are given, and gone
    through again and again. `train/heldout_loss` is the mean negative log-likelihood, in nats a token, of episodes
    that are never trained on.

    Args:
        policy: "TransformerPolicy" or a subclass of it.
        env: an id, a Gymnasium environment or vector environment, or an SB3 VecEnv.
        learning_rate: as in SB3.
        n_steps: demonstrated tokens between logs, for every row of the environment.
        batch_size: tokens of a minibatch, which is whole episodes.
        n_epochs: passes over those tokens.
        max_grad_norm: gradients are clipped to it.
        demonstrations: (prompt ids, completion ids) pairs, end tokens included. None: the environment's own.
            Checkpoints do not hold them: hand them to `load` again before learning on.
        heldout: episodes to set aside: every tenth of each row, or at most a tenth of the pairs.
        micro_batch_size: tokens of one forward and backward, see `GRPO`.
        stats_window_size, tensorboard_log, policy_kwargs, verbose, seed, device: as in SB3.

    Raises:
        ValueError: if a number is out of range, or a pair does not fit the environment.

    Source: Pomerleau 1991, "Efficient training of artificial neural networks for autonomous navigation".
    """

    rollout_buffer: DemonstrationBuffer  # type: ignore[assignment]

    def __init__(
        self,
        policy: str | type[TransformerPolicy],
        env: Any,
        learning_rate: float | Schedule = LinearSchedule(1e-3, 0.0, 1.0),  # noqa: B008 - it has no state
        n_steps: int = 128,
        batch_size: int = 256,
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
        demonstrations: Pairs | None = None,
        heldout: int = 64,
        micro_batch_size: int | None = None,
    ) -> None:
        check_sizes(n_steps=n_steps, n_epochs=n_epochs, batch_size=batch_size, micro_batch_size=micro_batch_size)
        _check_heldout(heldout)
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
            rollout_buffer_class=DemonstrationBuffer,  # type: ignore[arg-type]
            stats_window_size=stats_window_size,
            tensorboard_log=tensorboard_log,
            policy_kwargs=policy_kwargs,
            verbose=verbose,
            seed=seed,
            device=device,
            _init_setup_model=False,
        )
        self.batch_size, self.n_epochs, self.reference = batch_size, n_epochs, None
        self.micro_batch_size, self.heldout = micro_batch_size, heldout
        self.rng = np.random.default_rng(seed)
        self.demonstrations = None if demonstrations is None else list(demonstrations)
        self.has_pairs = demonstrations is not None  # saved, where the pairs themselves are not
        if _init_setup_model:
            self._setup_model()

    def _setup_model(self) -> None:
        self.heldout = self.rollout_buffer_kwargs.pop("heldout", self.heldout)  # of the first checkpoints
        super()._setup_model()
        if self.demonstrations is not None:
            self.has_pairs = True
            space: Any = self.observation_space
            vocab_size = self.policy.backbone.vocab_size
            pairs = demonstrations_of_pairs(self.demonstrations, vocab_size, space.shape[0])
            self.rollout_buffer.give(pairs)

    def _buffer_options(self) -> dict[str, Any]:
        return {**super()._buffer_options(), "heldout": self.heldout}

    def _check_options(self) -> None:
        check_sizes(n_epochs=self.n_epochs, batch_size=self.batch_size, micro_batch_size=self.micro_batch_size)
        _check_heldout(self.heldout)

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "demonstrations"]

    def _setup_learn(  # type: ignore[override]
        self,
        total_timesteps: int,
        callback: Any = None,
        reset_num_timesteps: bool = True,
        *args: Any,
        **kwargs: Any,
    ) -> tuple[int, BaseCallback]:
        if self.has_pairs and not self.rollout_buffer.given:
            raise ValueError(
                "this model was cloned from pairs, which its checkpoint does not hold; "
                "load it with load(path, env=env, demonstrations=pairs)"
            )
        if reset_num_timesteps or self._last_obs is None:  # SB3 resets the environment
            self.rollout_buffer.drop_unfinished()
        return super()._setup_learn(total_timesteps, callback, reset_num_timesteps, *args, **kwargs)

    def collect_rollouts(
        self,
        env: VecEnv,
        callback: BaseCallback,
        rollout_buffer: RolloutBuffer,
        n_rollout_steps: int,
    ) -> bool:
        """Collect `n_rollout_steps` demonstrated tokens for every row."""
        self._progress_of_rollout = 1.0 - self.num_timesteps / self._total_timesteps
        self.rollout_buffer.reset()
        callback.on_rollout_start()
        if self.has_pairs:
            self.rollout_buffer.draw(n_rollout_steps * env.num_envs)
        masked = not self.has_pairs and restricts(env)
        for _ in range(n_rollout_steps):
            # by SB3's names, for callbacks read them
            step = self._nothing(env) if self.has_pairs else self._demonstrated_step(env, masked)
            actions, new_obs, rewards, dones, infos = step
            self.num_timesteps += env.num_envs
            callback.update_locals(locals())
            if not callback.on_step():
                return False
            self._update_info_buffer(infos, dones)
        callback.on_rollout_end()
        return True

    def train(self) -> None:
        """Update the policy with `n_epochs` passes over what was demonstrated."""
        if self.rollout_buffer.episodes:  # else they are longer than the rollout: the next one completes some
            self._imitate(self.rollout_buffer.episodes)
        if self.rollout_buffer.heldout:
            self.logger.record("train/heldout_loss", self.heldout_loss())

    @memory_advice()
    @torch.no_grad()
    def heldout_loss(self) -> float:
        """Return the mean negative log-likelihood of the held-out tokens so far, in nats.

        Raises:
            ValueError: if nothing is held out yet.
        """
        episodes = self.rollout_buffer.heldout
        if not episodes:
            raise ValueError("nothing is held out yet; learn for longer, or give heldout > 0 and 10 pairs or more")
        self.policy.set_training_mode(False)
        batches = in_order(episodes, max(self.batch_size, 4096), self.device)
        total = torch.stack([self.policy.packed_log_probs(*b).double().sum() for b in batches])
        return -total.sum().item() / sum(len(e.actions) for e in episodes)

    def _demonstrated_step(self, env: VecEnv, masked: bool) -> Step:
        """Let the environment say a token in every row."""
        assert isinstance(self._last_obs, np.ndarray)
        actions = self.rollout_buffer.demonstrator.actions(env)
        legal = ask_masks(env) if masked else None
        following, rewards, dones, infos = env.step(actions)
        self.rollout_buffer.add(self._last_obs, actions, dones, legal)
        self._last_obs, self._last_episode_starts = following, dones  # type: ignore[assignment]
        return Step(actions, following, rewards, dones, infos)  # type: ignore[arg-type]

    def _nothing(self, env: VecEnv) -> Step:
        """Return a step that the environment took no part in."""
        assert isinstance(self._last_obs, np.ndarray)
        n = env.num_envs
        actions, rewards, dones = np.zeros(n, np.int64), np.zeros(n, np.float32), np.zeros(n, bool)
        return Step(actions, self._last_obs, rewards, dones, [{} for _ in range(n)])


def _check_heldout(heldout: int) -> None:
    """Raise unless it is a number of episodes."""
    if heldout < 0:
        raise ValueError(f"heldout={heldout}; give the number of episodes to set aside, or 0")
