"""What our PPO and DQN share: which environments they take, and how they are saved and loaded."""

from __future__ import annotations

import struct
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Self

from gymnasium import spaces
from gymnasium.vector import VectorEnv
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.vec_env import VecEnv, unwrap_vec_normalize

from .checkpoint import FORMAT_VERSION, CheckpointError, check_checkpoint, check_format, versions, write_whole
from .vec_env import VectorEnvAdapter


class TextAlgorithm(BaseAlgorithm):
    """A mixin before an SB3 algorithm."""

    @staticmethod
    def _wrap_env(env: Any, verbose: int = 0, monitor_wrapper: bool = True) -> VecEnv:
        space = getattr(env, "single_observation_space", None) or getattr(env, "observation_space", None)
        if isinstance(space, spaces.Text):
            raise ValueError(
                f"observations are {space}, a text; these agents read and say tokens: make the environment with "
                'level="token" (or level="candidate", for Stable-Baselines3\'s own algorithms with CandidatePolicy)'
            )
        if isinstance(env, VectorEnv):
            env = VectorEnvAdapter(env)
        env = BaseAlgorithm._wrap_env(env, verbose, monitor_wrapper)
        normalized = unwrap_vec_normalize(env)
        if normalized is not None and normalized.norm_obs:
            raise ValueError(
                "VecNormalize(norm_obs=True) turns token ids into other numbers; wrap with norm_obs=False (rewards "
                "may be normalised)"
            )
        return env

    def _get_policy_from_name(self, policy_name: str) -> type[BasePolicy]:
        if policy_name not in self.policy_aliases:
            raise ValueError(
                f"policy={policy_name!r}; {self._name()} takes {' or '.join(map(repr, self.policy_aliases))} "
                "(others, such as MlpPolicy, run on these environments with Stable-Baselines3's own algorithms)"
            )
        return self.policy_aliases[policy_name]

    def _remember_architecture(self) -> None:
        """Let what rebuilds the model stand for it in what is saved; see `Backbone.source`."""
        self.policy_kwargs = {**self.policy_kwargs, "model": self.policy.backbone.source}  # type: ignore[union-attr]

    @classmethod
    def _name(cls) -> str:
        """Return the name of the nearest class of this package: a user's subclass can be loaded as that."""
        return next(base.__name__ for base in cls.__mro__ if base.__module__.split(".")[0] == __package__)

    def save(self, path: Any, exclude: Any = None, include: Any = None) -> None:
        """Write a checkpoint: the whole file, or the old one stays.

        It holds every weight, but not the base of a LoRA policy, or a reference, that was given as a folder, a Hub
        id or a GGUF file: of that its name and a hash of its weights. `load` finds it there again.
        """
        self.checkpoint_format = {"version": FORMAT_VERSION, "algorithm": self._name()}
        if not isinstance(path, str | Path):
            super().save(path, exclude, include)
            return
        save = super().save
        write_whole(path, lambda temporary: save(temporary, exclude, include))

    @classmethod
    def load(cls, path: Any, env: Any = None, device: Any = "auto", **kwargs: Any) -> Self:  # type: ignore[override]
        """Load a checkpoint, see `stable_baselines3.common.base_class.BaseAlgorithm.load`.

        Raises:
            FileNotFoundError: if there is no such file.
            CheckpointError: if it is truncated, damaged, another version's, another algorithm's or something else,
                or the base model that it names is gone or has changed.
        """
        path = check_checkpoint(path)
        check_format(path, cls._name())
        try:
            return super().load(path, env=env, device=device, **kwargs)
        except OSError as error:
            raise CheckpointError(
                f"{path} names a base model that cannot be loaded ({error}); put it back, or say where it lies: "
                'load(path, custom_objects={"policy_kwargs": {"model": FOLDER, ...}}), and "reference" likewise'
            ) from error
        except (
            AttributeError,
            AssertionError,
            TypeError,
            KeyError,
            ImportError,
            RuntimeError,
            EOFError,
            struct.error,
            UnpicklingError,
        ) as error:
            raise CheckpointError(
                f"{path} is no checkpoint of {__package__}.{cls.__name__} ({type(error).__name__}: {error}); load "
                f"it with the class and the versions that saved it ({versions(path)})"
            ) from error


def check_buffer(name: str, given: Any, expected: type) -> None:
    """Raise a `TypeError` unless a buffer's class is of the kind that keeps whole episodes."""
    if not (isinstance(given, type) and issubclass(given, expected)):
        raise TypeError(
            f"{name}={getattr(given, '__name__', given)} does not keep episodes whole; give "
            f"{expected.__name__} or a subclass of it, or leave it out"
        )


def find_tokenizer(env: VecEnv) -> list[Any]:
    """Return the environment's tokenizer, or an empty list where it shows none."""
    try:
        return [tokenizer for tokenizer in env.get_attr("tokenizer")[:1] if tokenizer is not None]
    except AttributeError:
        return []
