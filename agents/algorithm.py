"""What our algorithms share: which environments they take, and how they are saved and loaded."""

from __future__ import annotations

import inspect
import struct
import warnings
from collections.abc import Iterable
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Self

import numpy as np
from gymnasium import spaces
from gymnasium.vector import VectorEnv
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.vec_env import VecEnv, unwrap_vec_normalize

from .checkpoint import (
    FORMAT_VERSION,
    CheckpointError,
    check_checkpoint,
    check_format,
    saved_names,
    versions,
    write_whole,
)
from .masks import restricts
from .updates import is_out_of_memory
from .vec_env import VectorEnvAdapter

_FIXED = {"policy", "stats_window_size", "_init_setup_model"}  # of a constructor's arguments, not of `load`'s


class TextAlgorithm(BaseAlgorithm):
    """A mixin before an SB3 algorithm."""

    trained_tokens = 0  # in all updates so far; a token counts each time
    _asked: VecEnv | None = None  # the environment of which `predict` knows whether it restricts actions

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

        Keywords take the place of what was saved: `load(path, gamma=0.9)`. A new `seed` begins new random draws.

        Raises:
            FileNotFoundError: if there is no such file.
            TypeError: if a keyword is none that the algorithm takes, or one that cannot change any more.
            ValueError: if what results does not go together.
            CheckpointError: if it is truncated, damaged, another version's, another algorithm's or something else,
                or the base model that it names is gone or has changed.
        """
        path = check_checkpoint(path)
        check_format(path, cls._name())
        saved = saved_names(path)
        cls._check_overrides(kwargs, saved)
        if "seed" in kwargs and "rng" in saved:
            kwargs = {**kwargs, "rng": np.random.default_rng(kwargs["seed"])}
        model = cls._load(path, env, device, kwargs)
        model._check_options()
        return model

    @classmethod
    def _load(cls, path: Any, env: Any, device: Any, kwargs: dict[str, Any]) -> Self:
        """Load with SB3's `load`; say what is wrong with a file that it cannot read."""
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
            if is_out_of_memory(error):
                raise
            raise CheckpointError(
                f"{path} is no checkpoint of {__package__}.{cls.__name__} ({type(error).__name__}: {error}); load "
                f"it with the class and the versions that saved it ({versions(path)})"
            ) from error

    @classmethod
    def _check_overrides(cls, given: Iterable[str], saved: set[str]) -> None:
        """Raise a `TypeError` on what would be set and never read."""
        known = (cls._arguments() | saved) - _FIXED | set(inspect.signature(BaseAlgorithm.load).parameters)
        wrong = sorted(set(given) - known)
        if wrong:
            raise TypeError(
                f"{cls._name()}.load takes no {', '.join(wrong)}: neither an argument of its constructor that can "
                "change after it, nor an attribute in the checkpoint"
            )

    @classmethod
    def _arguments(cls) -> set[str]:
        """Return the names of the constructor's arguments, those that it hands on among them."""
        makers = [vars(base)["__init__"] for base in cls.__mro__ if "__init__" in vars(base)]
        return {name for maker in makers for name in inspect.signature(maker).parameters}

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "_asked"]

    def _warn_of_masks(self, action_masks: Any) -> None:
        """Warn, once for an environment, where `predict` chooses among all actions though some are not legal."""
        if action_masks is not None or self.env is None or self._asked is self.env:
            return
        self._asked = self.env
        if restricts(self.env):
            warnings.warn(
                "this environment restricts actions, but predict was given no action_masks=, so it may choose "
                "one that is not legal; evaluate with sb3_contrib.common.maskable.evaluation.evaluate_policy or "
                "MaskableEvalCallback, which pass the masks (Stable-Baselines3's own do not)",
                stacklevel=3,
            )

    def _check_options(self) -> None:
        """Raise unless the options go together; `load` may have changed some."""


def check_buffer(name: str, given: Any, expected: type) -> None:
    """Raise a `TypeError` unless a buffer's class is of the kind that keeps whole episodes."""
    if not (isinstance(given, type) and issubclass(given, expected)):
        raise TypeError(
            f"{name}={getattr(given, '__name__', given)} does not keep episodes whole; give "
            f"{expected.__name__} or a subclass of it, or leave it out"
        )


def check_buffer_options(name: str, given: dict[str, Any] | None, *own: str) -> None:
    """Raise a `ValueError` if a buffer is to be told what the algorithm itself tells it."""
    twice = [f"{option}={(given or {})[option]!r}" for option in own if option in (given or {})]
    if twice:
        raise ValueError(f"{name} holds {', '.join(twice)}; give that to the algorithm, which tells its buffer")


def attribute(env: VecEnv, name: str) -> Any:
    """Return an attribute of the environment's first row, None if it has none."""
    try:
        return env.get_attr(name, 0)[0]
    except AttributeError:
        return None
