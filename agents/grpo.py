"""GRPO and RLOO on token environments: no value function, the baseline is the other episodes of a prompt."""

from __future__ import annotations

from typing import Any, ClassVar, get_args

import numpy as np
import torch
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import Schedule
from stable_baselines3.common.utils import LinearSchedule

from .algorithm import check_buffer, check_buffer_options
from .buffers import GroupBatch, GroupRolloutBuffer
from .kl import check_kl
from .losses import Advantage, GRPOLoss, grpo_loss
from .on_policy import GroupAlgorithm, check_sizes, means
from .policies import TransformerPolicy
from .reference import ReferenceSource
from .updates import memory_advice


class GRPO(GroupAlgorithm, OnPolicyAlgorithm):
    """Group relative policy optimisation, Shao et al. 2024, arXiv:2402.03300, and its relatives.

    A group is `group_size` neighbouring rows of the environment, which are seeded alike: their episodes of one
    number share a prompt. A rollout is `n_steps` of every row; the groups that are complete are trained on, the
    others wait. An episode may so begin under one policy and end under the next; every token keeps the
    log-probability it was sampled with. Where the environment restricts actions, only legal ones are sampled.

    Args:
        policy: "TransformerPolicy" or a subclass of it.
        env: an id, a Gymnasium environment or vector environment, or an SB3 VecEnv.
        learning_rate: as in SB3.
        n_steps: steps of every row between updates.
        batch_size: tokens of a minibatch, which is whole episodes.
        n_epochs: passes over the complete groups.
        group_size: episodes of a prompt; the environment's rows are a multiple of it.
        advantage: "grpo", "rloo" or "dr_grpo", see `agents.losses.group_advantages`.
        clip_range: of the probability ratio.
        ent_coef: of the entropy bonus.
        max_grad_norm: gradients are clipped to it.
        reference: None, "initial", a model or a policy, see `ReferencePolicy`.
        kl_coef: weight of the KL to the reference in the loss (GRPO's beta).
        max_group_age: rollouts (of at least a context's length) that an episode may wait for the rest of its group.
            Rows whose episodes differ in length drift apart; then all begin afresh, and what is not complete is
            dropped. The log's `train/group_age` is how many rollouts ago the groups were begun, in the mean.
        micro_batch_size: tokens of one forward and backward, padding among them; a minibatch's gradient is summed
            over them. None takes a minibatch at once. Less memory, the same gradient.
        rollout_buffer_class, rollout_buffer_kwargs, stats_window_size, tensorboard_log, policy_kwargs, verbose,
            seed, device: as in SB3.

    Raises:
        ValueError: if the rows of the environment are no multiple of `group_size`, or a number is out of range.
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {"TransformerPolicy": TransformerPolicy}
    policy: TransformerPolicy  # type: ignore[assignment]
    rollout_buffer: GroupRolloutBuffer  # type: ignore[assignment]

    def __init__(
        self,
        policy: str | type[TransformerPolicy],
        env: Any,
        learning_rate: float | Schedule = LinearSchedule(1e-3, 0.0, 1.0),  # noqa: B008 - it has no state
        n_steps: int = 128,
        batch_size: int = 256,
        n_epochs: int = 4,
        group_size: int = 8,
        advantage: Advantage = "grpo",
        clip_range: float | Schedule = 0.2,
        ent_coef: float = 0.0,
        max_grad_norm: float = 0.5,
        rollout_buffer_class: type[GroupRolloutBuffer] = GroupRolloutBuffer,
        rollout_buffer_kwargs: dict[str, Any] | None = None,
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
        max_group_age: int = 1,
        micro_batch_size: int | None = None,
    ) -> None:
        check_buffer("rollout_buffer_class", rollout_buffer_class, GroupRolloutBuffer)
        check_buffer_options("rollout_buffer_kwargs", rollout_buffer_kwargs, "seed", "group_size", "advantage")
        check_kl(reference, kl_coef)
        check_sizes(n_steps=n_steps, n_epochs=n_epochs, batch_size=batch_size, micro_batch_size=micro_batch_size)
        check_sizes(max_group_age=max_group_age)
        _check_groups(group_size, advantage)
        super().__init__(
            policy,  # type: ignore[arg-type]
            env,
            learning_rate=learning_rate,
            n_steps=n_steps,
            gamma=1.0,
            gae_lambda=1.0,
            ent_coef=ent_coef,
            vf_coef=0.0,
            max_grad_norm=max_grad_norm,
            use_sde=False,
            sde_sample_freq=-1,
            rollout_buffer_class=rollout_buffer_class,
            rollout_buffer_kwargs=rollout_buffer_kwargs,
            stats_window_size=stats_window_size,
            tensorboard_log=tensorboard_log,
            policy_kwargs=policy_kwargs,
            verbose=verbose,
            seed=seed,
            device=device,
            _init_setup_model=False,
        )
        self.batch_size, self.n_epochs = batch_size, n_epochs
        self.group_size, self.advantage, self.clip_range = group_size, advantage, clip_range
        self.reference, self.kl_coef = reference, kl_coef
        self.micro_batch_size, self.max_group_age = micro_batch_size, max_group_age
        self.rng = np.random.default_rng(seed)
        if _init_setup_model:
            self._setup_model()

    def _setup_model(self) -> None:
        self.advantage = self.rollout_buffer_kwargs.pop("advantage", self.advantage)  # of the first checkpoints
        super()._setup_model()
        self._n_updates = 0

    def _buffer_options(self) -> dict[str, Any]:
        return {**super()._buffer_options(), "group_size": self.group_size, "advantage": self.advantage}

    def _check_options(self) -> None:
        check_kl(self.reference, self.kl_coef)
        check_sizes(n_epochs=self.n_epochs, batch_size=self.batch_size, micro_batch_size=self.micro_batch_size)
        check_sizes(max_group_age=self.max_group_age)
        _check_groups(self.group_size, self.advantage)

    def _collect_groups(self) -> None:
        self._rescore()
        super()._collect_groups()

    @memory_advice()
    def train(self) -> None:
        """Update the policy with `n_epochs` passes over the complete groups."""
        self._log_groups()
        if not self.rollout_buffer.groups:  # episodes longer than the rollout: the next one completes some
            return
        update = self._begin_update()
        clip_range = self._now(self.clip_range)
        if self.reference_policy is not None:  # it stays as it is through all passes
            self.rollout_buffer.ask_reference(self.reference_policy.log_prob, max(self.batch_size, 64))
        losses: list[GRPOLoss] = []
        for _ in range(self.n_epochs):
            for batch in self.rollout_buffer.get(self.batch_size):
                losses.append(update.backward(batch, lambda part: self.loss(part, clip_range)))
                update.step(losses[-1].total)
            self._n_updates += 1
        update.check()
        self.trained_tokens += update.tokens
        mean = means(losses)
        self.logger.record("train/entropy_loss", -mean.entropy)
        self.logger.record("train/policy_gradient_loss", mean.policy)
        self.logger.record("train/kl_to_reference", mean.kl)
        self.logger.record("train/approx_kl", mean.approx_kl)
        self.logger.record("train/clip_fraction", mean.clip_fraction)
        self.logger.record("train/loss", mean.total)
        self.logger.record("train/clip_range", clip_range)
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")

    def loss(self, batch: GroupBatch, clip_range: float) -> GRPOLoss:
        """Return the loss of a minibatch, or of a part of one."""
        _, log_prob, entropy = self.policy.evaluate_packed(
            batch.packs, batch.actions, entropy_gradient=self.ent_coef != 0, masks=batch.masks
        )
        return grpo_loss(
            log_prob,
            batch.old_log_prob,
            batch.reference_log_prob,
            batch.advantages,
            entropy,
            clip_range=clip_range,
            kl_coef=self.kl_coef,
            ent_coef=self.ent_coef,
        )


def _check_groups(group_size: int, advantage: str) -> None:
    """Raise unless a group can be compared, in a way that is known."""
    if group_size < 2:
        raise ValueError(f"group_size={group_size}; a group needs at least 2 episodes to compare")
    if advantage not in get_args(Advantage):
        raise ValueError(f"advantage={advantage!r}; choose from {', '.join(get_args(Advantage))}")
