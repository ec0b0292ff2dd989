"""What our PPO and DQN share: which environments they take, and how they are saved and loaded."""

from __future__ import annotations

import struct
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Self

from gymnasium.vector import VectorEnv
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import VecEnv

from .checkpoint import CheckpointError, check_checkpoint, write_whole
from .vec_env import VectorEnvAdapter


class TextAlgorithm(BaseAlgorithm):
    """A mixin before an SB3 algorithm."""

    @staticmethod
    def _wrap_env(env: Any, verbose: int = 0, monitor_wrapper: bool = True) -> VecEnv:
        if isinstance(env, VectorEnv):
            env = VectorEnvAdapter(env)
        return BaseAlgorithm._wrap_env(env, verbose, monitor_wrapper)

    def _remember_architecture(self) -> None:
        """Let the model's config stand for the model in what is saved: the weights lie in the state dict."""
        self.policy_kwargs = {**self.policy_kwargs, "model": self.policy.backbone.config}  # type: ignore[union-attr]

    def save(self, path: Any, exclude: Any = None, include: Any = None) -> None:
        """Write a checkpoint: the whole file, or the old one stays."""
        if not isinstance(path, str | Path):
            super().save(path, exclude, include)
            return
        save = super().save
        write_whole(path, lambda temporary: save(temporary, exclude, include))

    @classmethod
    def load(cls, path: Any, env: Any = None, device: Any = "auto", **kwargs: Any) -> Self:  # type: ignore[override]
        """Load a checkpoint, see `stable_baselines3.common.base_class.BaseAlgorithm.load`.

        Raises:
            CheckpointError: if the file is truncated, damaged, another algorithm's or something else.
        """
        if isinstance(path, str | Path):
            path = check_checkpoint(path)
        try:
            return super().load(path, env=env, device=device, **kwargs)
        except (
            AttributeError,
            TypeError,
            KeyError,
            RuntimeError,
            EOFError,
            struct.error,
            UnpicklingError,
        ) as error:
            raise CheckpointError(
                f"{path} is no checkpoint of {cls.__module__.split('.')[0]}.{cls.__name__} "
                f"({type(error).__name__}: {error}); load it with the class that saved it"
            ) from error
