"""PPO on token environments: SB3's algorithm with cached rollouts, packed updates and KL to a reference."""

from __future__ import annotations

import warnings
from typing import Any, ClassVar

import numpy as np
import stable_baselines3
import torch
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import Schedule
from stable_baselines3.common.utils import LinearSchedule, explained_variance

from .algorithm import check_buffer, check_buffer_options
from .buffers import EpisodeRolloutBuffer, RolloutBatch
from .kl import KLCoefficient, check_kl, finished_sums
from .losses import PPOLoss, normalize_advantages, ppo_loss, whiten_rewards
from .on_policy import OnPolicyTextAlgorithm, check_sizes, means
from .policies import TransformerPolicy
from .reference import ReferenceSource
from .updates import memory_advice


class PPO(OnPolicyTextAlgorithm, stable_baselines3.PPO):  # type: ignore[misc]  # our policy for SB3's
    """Proximal policy optimisation, Schulman et al. 2017, arXiv:1707.06347.

    The arguments are SB3's, in SB3's order; `n_steps` and `batch_size` count transitions. What differs: a
    minibatch is whole fragments of episodes, advantages are normalised over the rollout and small ones scaled up by
    no more than `advantage_floor` allows, gamma is 1, the learning rate falls to 0. Where the environment restricts
    actions (sb3-contrib's `action_masks()`), only legal ones are sampled, and log-probabilities, entropies and KL
    are those of the legal actions.

    Args:
        policy: "TransformerPolicy" or a subclass of it.
        env: an id, a Gymnasium environment or vector environment, or an SB3 VecEnv.
        reference: None, "initial", a model or a policy, see `ReferencePolicy`.
        kl_coef: reward charged for each nat of log-ratio to the reference.
        kl_target: nats per episode that the coefficient is steered to, as measured on the episodes that ended in a
            rollout; None keeps it fixed.
        kl_horizon: episodes over which it follows.
        micro_batch_size: tokens of one forward and backward, padding among them; a minibatch's gradient is summed
            over them. None takes a minibatch at once. Less memory, the same gradient.
        whiten_rewards: give the rewards of each rollout unit variance about their mean, after the charge for the
            KL; see `agents.losses.whiten_rewards`. The value of a state that a time limit cut is one of them.
        advantage_floor: advantages are divided by their standard deviation, or by this share of the largest one of
            any rollout so far where that is more: what is left when a task is solved is noise, and a policy that
            learns from it at full scale forgets what it could. 0: by the standard deviation always.
        learning_rate, n_steps, batch_size, n_epochs, gamma, gae_lambda, clip_range, clip_range_vf,
            normalize_advantage, ent_coef, vf_coef, max_grad_norm, target_kl and the rest: as in SB3.
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {"TransformerPolicy": TransformerPolicy}
    policy: TransformerPolicy  # type: ignore[assignment]
    rollout_buffer: EpisodeRolloutBuffer
    advantage_floor: float = 0.0  # of checkpoints that were saved before there was one
    _largest_deviation = 0.0  # of the advantages of a rollout, so far

    def __init__(
        self,
        policy: str | type[TransformerPolicy],
        env: Any,
        learning_rate: float | Schedule = LinearSchedule(1e-3, 0.0, 1.0),  # noqa: B008 - it has no state
        n_steps: int = 128,
        batch_size: int = 256,
        n_epochs: int = 4,
        gamma: float = 1.0,
        gae_lambda: float = 0.95,
        clip_range: float | Schedule = 0.2,
        clip_range_vf: float | Schedule | None = None,
        normalize_advantage: bool = True,
        ent_coef: float = 0.0,
        vf_coef: float = 0.5,
        max_grad_norm: float = 0.5,
        use_sde: bool = False,
        sde_sample_freq: int = -1,
        rollout_buffer_class: type[EpisodeRolloutBuffer] = EpisodeRolloutBuffer,
        rollout_buffer_kwargs: dict[str, Any] | None = None,
        target_kl: float | None = None,
        stats_window_size: int = 100,
        tensorboard_log: str | None = None,
        policy_kwargs: dict[str, Any] | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: torch.device | str = "auto",
        _init_setup_model: bool = True,
        *,
        reference: ReferenceSource | None = None,
        kl_coef: float = 0.0,
        kl_target: float | None = None,
        kl_horizon: float = 1000.0,
        whiten_rewards: bool = False,
        advantage_floor: float = 0.1,
        micro_batch_size: int | None = None,
    ) -> None:
        check_buffer("rollout_buffer_class", rollout_buffer_class, EpisodeRolloutBuffer)
        check_buffer_options("rollout_buffer_kwargs", rollout_buffer_kwargs, "seed")
        check_kl(reference, kl_coef, kl_target, kl_horizon)
        check_sizes(n_epochs=n_epochs, batch_size=batch_size, micro_batch_size=micro_batch_size)
        _check_floor(advantage_floor)
        with warnings.catch_warnings():
            # SB3 asks that n_steps * n_envs be a multiple of batch_size; whole fragments never divide evenly.
            warnings.filterwarnings("ignore", message="You have specified a mini-batch size")
            super().__init__(
                policy,  # type: ignore[arg-type]
                env,
                learning_rate=learning_rate,
                n_steps=n_steps,
                batch_size=batch_size,
                n_epochs=n_epochs,
                gamma=gamma,
                gae_lambda=gae_lambda,
                clip_range=clip_range,
                clip_range_vf=clip_range_vf,
                normalize_advantage=normalize_advantage,
                ent_coef=ent_coef,
                vf_coef=vf_coef,
                max_grad_norm=max_grad_norm,
                use_sde=use_sde,
                sde_sample_freq=sde_sample_freq,
                rollout_buffer_class=rollout_buffer_class,
                rollout_buffer_kwargs=rollout_buffer_kwargs,
                target_kl=target_kl,
                stats_window_size=stats_window_size,
                tensorboard_log=tensorboard_log,
                policy_kwargs=policy_kwargs,
                verbose=verbose,
                seed=seed,
                device=device,
                _init_setup_model=False,
            )
        self.reference = reference
        self.micro_batch_size = micro_batch_size
        self.kl = KLCoefficient(kl_coef, kl_target, kl_horizon)
        self._running_log_ratio = np.zeros(0)  # (B,) nats of the episodes that go on, whole ones are averaged
        self.whiten_rewards, self.advantage_floor = whiten_rewards, advantage_floor
        if _init_setup_model:
            self._setup_model()

    def _setup_model(self) -> None:
        for name, field in (("kl_coef", "value"), ("kl_target", "target"), ("kl_horizon", "horizon")):
            if name in vars(self):  # as `load` was told
                setattr(self.kl, field, vars(self).pop(name))
        super()._setup_model()

    def _check_options(self) -> None:
        check_kl(self.reference, self.kl.value, self.kl.target, self.kl.horizon)
        check_sizes(n_epochs=self.n_epochs, batch_size=self.batch_size, micro_batch_size=self.micro_batch_size)
        _check_floor(self.advantage_floor)

    def _after_rollout(self, finished: bool) -> None:
        """Charge for the KL and whiten rewards."""
        super()._after_rollout(finished)
        if not finished:
            return
        self._rescore()
        self._charge()
        if self.whiten_rewards:
            self.rollout_buffer.rewards = whiten_rewards(self.rollout_buffer.rewards)
            self.rollout_buffer.recompute_returns_and_advantage()

    @torch.no_grad()
    def _charge(self) -> None:
        """Charge the rollout's rewards for the KL to the reference."""
        if self.reference_policy is None:
            return
        buffer = self.rollout_buffer
        log_ratio = np.zeros(buffer.log_probs.size, np.float32)
        log_probs = buffer.log_probs.reshape(-1)
        for batch in buffer.in_order(max(self.batch_size, 64)):
            where = batch.transition.cpu().numpy()
            theirs = self.reference_policy.log_prob(batch.packs, batch.actions, batch.masks)
            log_ratio[where] = log_probs[where] - theirs.cpu().numpy()
        if not np.isfinite(log_ratio).all():
            raise ValueError(
                "the reference gives a sampled token probability 0, which makes the KL infinite; smooth it, or "
                "let the environment's action masks forbid what the reference never says"
            )
        self.logger.record("rollout/kl_per_token", float(log_ratio.mean()))
        self.logger.record("train/kl_coef", self.kl.value)
        buffer.rewards -= self.kl.value * log_ratio.reshape(buffer.rewards.shape)
        self._steer(log_ratio.reshape(buffer.rewards.shape))
        buffer.recompute_returns_and_advantage()

    def _steer(self, log_ratio: np.ndarray) -> None:
        """Let the coefficient follow the KL of the episodes that ended, of the rollout's log-ratios (T, B)."""
        if len(self._running_log_ratio) != self.n_envs:
            self._running_log_ratio = np.zeros(self.n_envs)
        starts, ends = self.rollout_buffer.boundaries()
        finished, self._running_log_ratio = finished_sums(log_ratio, starts, ends, self._running_log_ratio)
        if len(finished):
            kl = float(finished.mean())
            self.logger.record("rollout/kl_per_episode", kl)
            self.kl.update(kl, len(finished))

    @memory_advice()
    def train(self) -> None:
        """Update the policy with `n_epochs` passes over the rollout."""
        update = self._begin_update()
        clip_range = self._now(self.clip_range)
        clip_range_vf = None if self.clip_range_vf is None else self._now(self.clip_range_vf)
        self._normalize_advantages()
        losses: list[PPOLoss] = []
        stopped = False
        for _ in range(self.n_epochs):
            for batch in self.rollout_buffer.get(self.batch_size):
                loss = update.backward(batch, lambda part: self.loss(part, clip_range, clip_range_vf))
                losses.append(loss)
                stopped = self.target_kl is not None and loss.approx_kl.item() > 1.5 * self.target_kl
                if stopped:
                    break
                update.step(loss.total)
            self._n_updates += 1
            if stopped:
                break
        update.check()
        self.trained_tokens += update.tokens
        self._log_update(losses, clip_range, clip_range_vf)

    def loss(self, batch: RolloutBatch, clip_range: float, clip_range_vf: float | None) -> PPOLoss:
        """Return the loss of a minibatch, or of a part of one."""
        values, log_prob, entropy = self.policy.evaluate_packed(
            batch.packs, batch.actions, entropy_gradient=self.ent_coef != 0, masks=batch.masks
        )
        return ppo_loss(
            log_prob,
            batch.old_log_prob,
            batch.advantages,
            values,
            batch.old_values,
            batch.returns,
            entropy,
            clip_range=clip_range,
            clip_range_vf=clip_range_vf,
            ent_coef=self.ent_coef,
            vf_coef=self.vf_coef,
        )

    def _normalize_advantages(self) -> None:
        """Normalise over the rollout: within one episode's minibatch a terminal reward would lose its sign."""
        advantages = self.rollout_buffer.advantages
        if self.normalize_advantage and advantages.size > 1:
            self._largest_deviation = max(self._largest_deviation, float(advantages.std(ddof=1)))
            least = self.advantage_floor * self._largest_deviation
            self.rollout_buffer.advantages = normalize_advantages(advantages, least)

    def _log_update(self, losses: list[PPOLoss], clip_range: float, clip_range_vf: float | None) -> None:
        mean, buffer = means(losses), self.rollout_buffer
        self.logger.record("train/entropy_loss", -mean.entropy)
        self.logger.record("train/policy_gradient_loss", mean.policy)
        self.logger.record("train/value_loss", mean.value)
        self.logger.record("train/approx_kl", mean.approx_kl)
        self.logger.record("train/clip_fraction", mean.clip_fraction)
        self.logger.record("train/loss", losses[-1].total.item())
        explained = explained_variance(buffer.values.flatten(), buffer.returns.flatten())
        self.logger.record("train/explained_variance", explained)
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        self.logger.record("train/clip_range", clip_range)
        if clip_range_vf is not None:
            self.logger.record("train/clip_range_vf", clip_range_vf)


def _check_floor(floor: float) -> None:
    if not 0 <= floor <= 1:
        raise ValueError(f"advantage_floor={floor} is a share of a standard deviation, from 0 to 1")
