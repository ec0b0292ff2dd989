"""What our on-policy algorithms share: rollouts with the cache, a reference policy, and steps of the optimiser."""

from __future__ import annotations

import math
from typing import Any

import torch
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.type_aliases import Schedule
from stable_baselines3.common.vec_env import VecEnv

from .algorithm import TextAlgorithm
from .backbone import ModelSource
from .kl import ReferencePolicy
from .policies import TransformerPolicy


class OnPolicyTextAlgorithm(TextAlgorithm):
    """A mixin before an on-policy algorithm of SB3; its constructor sets `reference`."""

    policy: Any  # a TransformerPolicy; SB3 declares its own actor-critic
    reference: str | ModelSource | TransformerPolicy | None
    max_grad_norm: float

    def _setup_model(self) -> None:
        super()._setup_model()  # type: ignore[safe-super]  # SB3's algorithm comes next
        self.reference_policy: ReferencePolicy | None = None
        if self.reference is not None:
            self.reference_policy = ReferencePolicy(self.policy, self.reference)
            if not self.reference_policy.shares_base:
                self.reference = self.reference_policy.frozen.backbone.config
        self._remember_architecture()

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "reference_policy"]

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        state_dicts, variables = super()._get_torch_save_params()
        if self.reference_policy is not None and not self.reference_policy.shares_base:
            state_dicts = [*state_dicts, "reference_policy"]
        return state_dicts, variables

    def collect_rollouts(
        self,
        env: VecEnv,
        callback: BaseCallback,
        rollout_buffer: RolloutBuffer,
        n_rollout_steps: int,
    ) -> bool:
        """Collect `n_rollout_steps` of every row with the key-value cache."""
        self._progress_of_rollout = 1.0 - self.num_timesteps / self._total_timesteps
        with self.policy.cached():
            return super().collect_rollouts(env, callback, rollout_buffer, n_rollout_steps)  # type: ignore[misc]

    def _begin_update(self) -> None:
        """Set dropout and the learning rate.

        Schedules are read where the rollout began. Stock reads them where it ended, so that a falling learning
        rate is 0 in the last update, and in every update of a `learn` no longer than a rollout.
        """
        self._current_progress_remaining = self._progress_of_rollout
        self.policy.set_training_mode(True)
        self._update_learning_rate(self.policy.optimizer)

    def _now(self, schedule: float | Schedule) -> float:
        """Return a hyperparameter at the current progress."""
        return schedule(self._current_progress_remaining) if callable(schedule) else schedule

    def _descend(self, loss: torch.Tensor) -> None:
        """Make one step of the optimiser."""
        self.policy.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.policy.parameters(), self.max_grad_norm)
        self.policy.optimizer.step()


def means(losses: list[Any]) -> Any:
    """Return a NamedTuple of the means of each term over some losses."""
    return type(losses[0])(*(torch.stack(term).mean().item() for term in zip(*losses, strict=True)))


def check_sizes(**sizes: int) -> None:
    """Raise unless every size is at least 1."""
    for name, value in sizes.items():
        if value < 1:
            raise ValueError(f"{name}={value}; give at least 1")


def check_kl(
    reference: object, kl_coef: float, kl_target: float | None = None, kl_horizon: float = math.inf
) -> None:
    """Raise unless the arguments on the KL go together."""
    if not (math.isfinite(kl_coef) and kl_coef >= 0):
        raise ValueError(f"kl_coef={kl_coef} is a price for each nat; give a finite number, at least 0")
    if kl_target is not None and not (kl_target > 0 and kl_coef > 0 and kl_horizon > 0):
        raise ValueError(
            f"kl_target={kl_target} steers kl_coef={kl_coef} over kl_horizon={kl_horizon} episodes by factors; "
            "give positive numbers for all three"
        )
    if kl_coef and reference is None:
        raise ValueError(f"kl_coef={kl_coef} needs a reference; pass reference='initial' or a model")
