"""A Gymnasium `VectorEnv` as Stable-Baselines3's `VecEnv`: the one place that says "done"."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn

Indices = None | int | Iterable[int]


class VectorEnvAdapter(VecEnv):
    """Steps a batched environment for SB3's algorithms.

    A row's info is empty until its episode ends; then it holds the final info, `terminal_observation`,
    `TimeLimit.truncated` and `episode` (return `r`, length `l`, seconds `t`), as SB3's Monitor writes them.

    Args:
        env: a vector environment that resets in the same step.

    Raises:
        ValueError: if it resets at another time (SB3 needs the next episode's first observation at once).
    """

    def __init__(self, env: VectorEnv) -> None:
        mode = env.metadata.get("autoreset_mode")
        if mode not in (AutoresetMode.SAME_STEP, AutoresetMode.SAME_STEP.value):
            raise ValueError(
                f"autoreset_mode={mode!r}; make the environment with autoreset_mode=AutoresetMode.SAME_STEP "
                '(with vectorization_mode="sync" or "async": vector_kwargs={"autoreset_mode": ...})'
            )
        self.env = env
        self._started = time.time()
        self._returns = np.zeros(env.num_envs)
        self._steps = np.zeros(env.num_envs, np.int64)
        self._actions: np.ndarray
        super().__init__(env.num_envs, env.single_observation_space, env.single_action_space)

    def reset(self) -> VecEnvObs:
        """Reset every row, with the seeds given to `seed` and the options given to `set_options`.

        Raises:
            ValueError: if the rows' options differ: a batched environment takes one for all.
        """
        seeds = self._seeds if any(seed is not None for seed in self._seeds) else None
        observations, infos = self.env.reset(seed=seeds, options=self._common_options())  # type: ignore[arg-type]  # engines take a list, as SyncVectorEnv does
        self.reset_infos = [_row(infos, i) for i in range(self.num_envs)]
        self._returns[:], self._steps[:] = 0, 0
        self._reset_seeds()
        self._reset_options()
        return observations

    def _common_options(self) -> dict[str, Any] | None:
        """Return the reset options that all rows share, None where there are none."""
        first = self._options[0]
        if any(options != first for options in self._options):
            raise ValueError(
                f"reset options differ from row to row ({self._options!r:.200}); a batched environment takes one "
                "dict for all: set_options({...})"
            )
        return first or None

    def step_async(self, actions: np.ndarray) -> None:
        """Remember the actions (B,)."""
        self._actions = actions

    def step_wait(self) -> VecEnvStepReturn:
        """Return observations (B, L), rewards (B,), ended rows (B,) and one info a row.

        Where an episode goes on, its info holds no more than the `reward_clean` of a turn that closed.
        """
        observations, rewards, terminated, truncated, infos = self.env.step(self._actions)
        ended = terminated | truncated
        self._returns += rewards
        self._steps += 1
        row_infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        for i in np.flatnonzero(infos.get("_reward_clean", ())):
            row_infos[i] = {"reward_clean": infos["reward_clean"][i]}
        for i in np.flatnonzero(ended):
            row_infos[i] = self._final_info(infos, int(i), bool(truncated[i] and not terminated[i]))
        self._returns[ended], self._steps[ended] = 0, 0
        return observations, rewards.astype(np.float32), ended, row_infos

    def _final_info(self, infos: dict[str, Any], i: int, cut: bool) -> dict[str, Any]:
        return {
            **_row(infos["final_info"], i),
            "terminal_observation": infos["final_obs"][i],
            "TimeLimit.truncated": cut,
            "episode": {
                "r": round(float(self._returns[i]), 6),
                "l": int(self._steps[i]),
                "t": round(time.time() - self._started, 6),
            },
        }

    def close(self) -> None:
        """Close the environment."""
        self.env.close()

    def get_attr(self, attr_name: str, indices: Indices = None) -> list[Any]:
        """Return an attribute of the rows, or of the batch, which they share."""
        rows = self._rows(indices)
        if not hasattr(self.env, attr_name) and hasattr(self.env, "get_attr"):
            found = self.env.get_attr(attr_name)
            return [found[i] for i in rows]
        return [getattr(self.env, attr_name)] * len(rows)

    def has_attr(self, attr_name: str) -> bool:
        """Return whether the batch or all rows have an attribute; to ask for an absent one ends async workers."""
        if hasattr(self.env, attr_name) or not hasattr(self.env, "call"):
            return hasattr(self.env, attr_name)
        return all(self.env.call("has_wrapper_attr", attr_name))

    def set_attr(self, attr_name: str, value: Any, indices: Indices = None) -> None:
        """Set an attribute of the rows, or of the batch where it has it, or has no rows of their own.

        Raises:
            ValueError: for a part of the rows of what they share.
            AttributeError: for a part of the rows, where the others lack the attribute.
        """
        rows = self._rows(indices)
        has_rows = hasattr(self.env, "set_attr") and not hasattr(self.env, attr_name)
        if len(rows) == self.num_envs:
            if has_rows:
                self.env.set_attr(attr_name, [value] * self.num_envs)  # type: ignore[attr-defined]
            else:
                setattr(self.env, attr_name, value)
            return
        if not has_rows:
            raise ValueError(
                f"indices={indices!r}: the rows of a batched environment share {attr_name!r}; set it for all"
            )
        if not self.has_attr(attr_name):
            raise AttributeError(f"not all rows have an attribute {attr_name!r}; set it for all first")
        values = self.get_attr(attr_name)
        for row in rows:
            values[row] = value
        self.env.set_attr(attr_name, values)  # type: ignore[attr-defined]

    def env_method(self, method_name: str, *args: Any, indices: Indices = None, **kwargs: Any) -> list[Any]:
        """Call a method of the rows, or one that answers for the whole batch, and return its answer row by row."""
        rows = self._rows(indices)
        if hasattr(self.env, method_name) or not hasattr(self.env, "call"):
            answer = getattr(self.env, method_name)(*args, **kwargs)
        else:
            answer = self.env.call(method_name, *args, **kwargs)
        if (
            isinstance(answer, np.ndarray | Sequence)
            and not isinstance(answer, str)
            and len(answer) == self.num_envs
        ):
            return [answer[i] for i in rows]
        return [answer] * len(rows)

    def env_is_wrapped(self, wrapper_class: type, indices: Indices = None) -> list[bool]:
        """Return True for `Monitor`, whose `episode` infos this class fills, and False for other wrappers."""
        return [wrapper_class.__name__ == "Monitor"] * len(self._rows(indices))

    def get_images(self) -> Sequence[np.ndarray | None]:
        """Return nothing: text is rendered as text."""
        return [None] * self.num_envs

    def _rows(self, indices: Indices) -> list[int]:
        return list(self._get_indices(indices))


def _row(infos: dict[str, Any], i: int) -> dict[str, Any]:
    """Return one row of a vector environment's infos: the keys whose `_key` mask is set."""
    return {
        key: (_row(value, i) if isinstance(value, dict) else value[i])
        for key, value in infos.items()
        if not key.startswith("_") and (f"_{key}" not in infos or infos[f"_{key}"][i])
    }
