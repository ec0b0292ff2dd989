"""Which actions are legal: asked of the environment, kept as bits, and applied to scores.

The convention is sb3-contrib's: an environment that restricts actions answers `action_masks()` with booleans.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor

from .transfer import to_device


def restricts(env: VecEnv) -> bool:
    """Return whether an environment ever masks an action.

    One that has `action_masks` does, unless it has an attribute `restricts` that is False in every row.
    """
    return env.has_attr("action_masks") and (not env.has_attr("restricts") or any(env.get_attr("restricts")))


def ask_masks(env: VecEnv) -> NDArray[np.bool_]:
    """Return (B, V), True where an action is legal now.

    Raises:
        ValueError: if the masks have another shape, or a row has no legal action.
    """
    return check_masks(np.stack(env.env_method("action_masks")), env.num_envs, int(env.action_space.n))  # type: ignore[attr-defined]


def check_masks(masks: Any, n_rows: int, n_actions: int) -> NDArray[np.bool_]:
    """Return masks as booleans (B, V).

    Raises:
        ValueError: if they have another shape, or a row has no legal action.
    """
    legal = np.asarray(masks, bool)
    if legal.size != n_rows * n_actions:
        raise ValueError(
            f"action masks of shape {legal.shape} for {n_rows} observations and {n_actions} actions; give one row "
            f"of {n_actions} booleans per observation"
        )
    legal = legal.reshape(n_rows, n_actions)
    stuck = np.flatnonzero(~legal.any(axis=1))
    if stuck.size:
        raise ValueError(f"the action mask of row {stuck[0]} leaves no legal action; end the episode there")
    return legal


def pack_masks(legal: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Return booleans (..., V) as bits (..., ceil(V / 8)): a large vocabulary's would not fit a buffer."""
    return np.packbits(legal, axis=-1, bitorder="little")


def unpack_masks(bits: Tensor, n_actions: int) -> Tensor:
    """Return bits (..., ceil(V / 8)) as booleans (..., V) on the same device."""
    place = torch.arange(8, dtype=torch.uint8, device=bits.device)
    return (bits[..., None] >> place & 1).flatten(-2)[..., :n_actions].bool()


def stack_masks(columns: Sequence[NDArray[np.uint8]], device: torch.device | str) -> Tensor | None:
    """Return bits (t_i, W) as one tensor (N, W); W = 0 means that every action is legal. None: everywhere."""
    width = max(column.shape[1] for column in columns)
    if width == 0:
        return None
    whole = [c if c.shape[1] else np.full((len(c), width), 255, np.uint8) for c in columns]
    return to_device(np.concatenate(whole), device)


def mask_scores(scores: Tensor, legal: Tensor | None) -> Tensor:
    """Return scores (..., V) with those of illegal actions at the least finite number.

    Its exponential is 0 and so is its gradient; minus infinity would make the entropy's 0 * inf undefined.
    """
    if legal is None:
        return scores
    return scores.masked_fill(~legal.bool(), torch.finfo(scores.dtype).min)  # sb3-contrib's buffer keeps numbers


def random_legal(legal: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.int64]:
    """Return (B,) actions, uniform over the legal ones of (B, V)."""
    upto = legal.cumsum(axis=1)
    drawn = np.floor(rng.random(len(legal)) * upto[:, -1])
    return (upto > drawn[:, None]).argmax(axis=1)


class MaskedPolicy(BasePolicy):
    """A policy that chooses among legal actions: `predict` takes their masks, a rollout says where to ask."""

    backbone: Any
    _ask: Callable[[], Tensor] | None = None

    @contextmanager
    def masked(self, ask: Callable[[], Tensor] | None) -> Iterator[None]:
        """Within, actions are chosen under the masks (B, V) that `ask` returns at each step; None: all are."""
        before, self._ask = self._ask, ask
        try:
            yield
        finally:
            self._ask = before

    def legal(self) -> Tensor | None:
        """Return the masks (B, V) of the step that is being chosen, None where every action is legal."""
        return None if self._ask is None else self._ask()

    def save_pretrained(self, directory: str, tokenizer: Any = None) -> None:
        """Write the language model, adapters merged, as a folder that transformers loads; see `export.py`.

        Greedy decoding of a Q-policy's is its greedy policy.
        """
        from .export import save_pretrained

        save_pretrained(self.backbone, directory, tokenizer)

    def predict(
        self,
        observation: np.ndarray | dict[str, np.ndarray],
        state: tuple[np.ndarray, ...] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
        action_masks: np.ndarray | None = None,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...] | None]:
        """Return actions for observations, as `stable_baselines3` does; legal ones where masks (B, V) are given.

        Raises:
            ValueError: if the masks do not fit the observations, or leave one without an action.
        """
        with self.masked(None if action_masks is None else lambda: self._as_legal(action_masks, observation)):
            return super().predict(observation, state, episode_start, deterministic)

    def _as_legal(self, action_masks: Any, observation: Any) -> Tensor:
        n_rows = np.asarray(observation).size // int(np.prod(self.observation_space.shape))  # type: ignore[arg-type]
        checked = check_masks(action_masks, n_rows, int(self.action_space.n))  # type: ignore[attr-defined]
        return to_device(checked, self.device)
