"""Where DQN's transitions wait: the replay buffer, whole episodes whose tokens are kept once."""

from __future__ import annotations

from collections import deque
from typing import Any, NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.buffers import BaseBuffer, ReplayBuffer
from stable_baselines3.common.vec_env import VecNormalize
from torch import Tensor

from .buffers import EpisodeKeeper, PackedTensors, check_growth, check_rewards, context_length, pack_to_device
from .masks import pack_masks, stack_masks
from .packing import Packed, buckets, pack
from .transfer import to_device


class ReplayBatch(NamedTuple):
    """A sample of whole episodes; N transitions, read at `packs`' first N positions, next states at the last N.

    Attributes:
        packs: one forward each; `position` holds the states' positions, then the next states'.
        n_states: transitions in each pack.
        actions: (N,) int64.
        rewards: (N,) one-step reward, or the discounted sum of up to n.
        discounts: (N,) gamma^n, 0 where the episode terminated within n steps.
        next_masks: (N, ceil(V / 8)) bits of the legal actions in the next states, None where all are.
        left: (N,) int64, transitions of the episode from each one on, that one among them.
        masks: as `next_masks`, in the states; None also where returns are of one step, which do not ask for them.
        longest: transitions of the longest episode in each pack.
    """

    packs: list[PackedTensors]
    n_states: list[int]
    actions: Tensor
    rewards: Tensor
    discounts: Tensor
    next_masks: Tensor | None
    left: Tensor
    masks: Tensor | None
    longest: list[int]


class Episode(NamedTuple):
    """One finished episode of T transitions, in the smallest integers that hold it.

    Attributes:
        ids: (n,) its last context.
        lengths: (T + 1,) context length before each action and at the end.
        actions: (T,).
        rewards: (T,) float32.
        terminated: whether the end is final (False: cut by a time limit, so it is bootstrapped).
        masks: (T + 1, ceil(V / 8)) bits of the legal actions before each action and at the end, (T + 1, 0) where
            all are.
    """

    ids: np.ndarray
    lengths: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    terminated: bool
    masks: np.ndarray


class EpisodeReplayBuffer(EpisodeKeeper, ReplayBuffer):
    """Replay of whole episodes; each token is stored once, where a stock buffer stores 2 L of them a transition.

    Args:
        buffer_size: transitions kept; the oldest episodes leave first.
        n_steps: length of the returns that `sample` builds.
        gamma: discount.
        seed: where samples come from.
    """

    def __init__(
        self,
        buffer_size: int,
        observation_space: spaces.Box,
        action_space: spaces.Discrete,
        device: torch.device | str = "auto",
        n_envs: int = 1,
        optimize_memory_usage: bool = False,
        n_steps: int = 1,
        gamma: float = 1.0,
        seed: int | None = None,
    ) -> None:
        # SB3's own constructor would allocate 2 L ids for every transition.
        BaseBuffer.__init__(self, buffer_size, observation_space, action_space, device, n_envs=n_envs)
        if optimize_memory_usage:
            raise ValueError("optimize_memory_usage=True has no use here: each token is stored once already")
        self.optimize_memory_usage, self.handle_timeout_termination = False, True
        self.n_steps, self.gamma = n_steps, gamma
        self.rng = np.random.default_rng(seed)
        self.pad = int(action_space.n)
        self.id_type = np.min_scalar_type(self.pad)
        self.length_type = np.min_scalar_type(int(observation_space.shape[0]))
        self.reset()

    def reset(self) -> None:
        """Drop everything."""
        self.pos, self.full = 0, False
        self.episodes: deque[Episode] = deque()
        self.n_transitions = 0
        self.drop_unfinished()

    def drop_unfinished(self) -> None:
        """Forget the episodes that have not ended: their environment was reset."""
        self._open: list[list[tuple[int, int, float, np.ndarray]]] = [[] for _ in range(self.n_envs)]
        # (B, L) what a running episode shows next; nothing has begun, and no context is all padding
        self._expected = np.full((self.n_envs, *self.obs_shape), self.pad)

    def size(self) -> int:
        """Return the transitions in finished episodes."""
        return self.n_transitions

    def nbytes(self) -> int:
        """Return the bytes that finished episodes take, objects included."""
        return sum(
            sum(array.nbytes + 112 for array in (*episode[:4], episode.masks)) + 120 for episode in self.episodes
        )

    def add(
        self,
        obs: np.ndarray,
        next_obs: np.ndarray,
        action: np.ndarray,
        reward: np.ndarray,
        done: np.ndarray,
        infos: list[dict[str, Any]],
    ) -> None:
        """Add one step of every row; `next_obs` holds the final observation where the episode ended."""
        check_rewards(reward)
        check_growth(obs, next_obs, self.pad, np.ones(self.n_envs, bool))
        length = context_length(obs, self.pad)
        action = action.reshape(-1)
        masks = self._take_masks(self.n_envs)
        elsewhere = (obs != self._expected).any(axis=1)
        self._expected[:] = next_obs
        for row in range(self.n_envs):
            if elsewhere[row]:
                self._open[row] = []  # the row was reset without an end
            self._open[row].append((int(length[row]), int(action[row]), float(reward[row]), masks[row]))
            if done[row]:
                self._finish(row, next_obs[row], infos[row])

    def _finish(self, row: int, final_obs: np.ndarray, info: dict[str, Any]) -> None:
        lengths, actions, rewards, masks = zip(*self._open[row], strict=True)
        self._open[row] = []
        end = int((final_obs != self.pad).sum())
        self.episodes.append(
            Episode(
                final_obs[:end].astype(self.id_type),
                np.array([*lengths, end], self.length_type),
                np.array(actions, self.id_type),
                np.array(rewards, np.float32),
                not info.get("TimeLimit.truncated", False),
                np.stack([*masks, self._final_mask(info)[: len(masks[0])]]),
            )
        )
        self.n_transitions += len(actions)
        while self.n_transitions > self.buffer_size and len(self.episodes) > 1:
            self.n_transitions -= len(self.episodes.popleft().actions)

    def _final_mask(self, info: dict[str, Any]) -> np.ndarray:
        """Return the bits of what is legal where an episode was cut: in its info, or else everything."""
        return pack_masks(np.asarray(info.get("action_mask", np.ones(self.pad)), bool))

    def sample(self, batch_size: int, env: VecNormalize | None = None) -> ReplayBatch:  # type: ignore[override]
        """Return episodes drawn uniformly with replacement, about `batch_size` transitions of them.

        Rewards are kept as they were earned, and normalised by the `VecNormalize` that is given as it is now.
        """
        mean = self.n_transitions / len(self.episodes)
        count = max(1, round(batch_size / mean))
        return self.batch([self.episodes[i] for i in self.rng.integers(len(self.episodes), size=count)], env)

    def batch(self, episodes: list[Episode], env: VecNormalize | None = None) -> ReplayBatch:
        """Return the given episodes as one batch."""
        groups = buckets(np.array([len(episode.ids) for episode in episodes]), most=self.max_tokens)
        packs, n_states, longest = [], [], []
        for group in groups:
            chosen = [episodes[i] for i in group]
            ahead = [self._ahead(len(episode.actions)) for episode in chosen]
            states = pack([e.ids for e in chosen], [e.lengths[:-1].astype(np.int64) - 1 for e in chosen])
            following = [e.lengths[a].astype(np.int64) - 1 for e, a in zip(chosen, ahead, strict=True)]
            n_states.append(len(states.row))
            longest.append(max(len(episode.actions) for episode in chosen))
            packs.append(
                pack_to_device(
                    Packed(
                        states.ids,
                        np.concatenate([states.row, states.row]),
                        np.concatenate([states.position, *following]),
                    ),
                    self.device,
                )
            )
        ordered = [episodes[i] for group in groups for i in group]
        returns = [self._returns(episode, env) for episode in ordered]
        return ReplayBatch(
            packs,
            n_states,
            to_device(np.concatenate([e.actions for e in ordered]).astype(np.int64), self.device),
            to_device(np.concatenate([r for r, _ in returns]), self.device),
            to_device(np.concatenate([d for _, d in returns]), self.device),
            stack_masks([e.masks[self._ahead(len(e.actions))] for e in ordered], self.device),
            to_device(np.concatenate([np.arange(len(e.actions), 0, -1) for e in ordered]), self.device),
            None if self.n_steps == 1 else stack_masks([e.masks[:-1] for e in ordered], self.device),
            longest,
        )

    def _ahead(self, count: int) -> np.ndarray:
        """Return (T,) the index of the state that each return bootstraps from."""
        return np.minimum(np.arange(count) + self.n_steps, count)

    def _returns(self, episode: Episode, env: VecNormalize | None) -> tuple[np.ndarray, np.ndarray]:
        """Return (T,) n-step rewards and (T,) discounts of the state they bootstrap from."""
        count, rewards = len(episode.actions), self._normalize_reward(episode.rewards, env)
        ahead = self._ahead(count)
        total = np.zeros(count, np.float32)
        for k in range(min(self.n_steps, count)):
            total[: count - k] += np.float32(self.gamma**k) * rewards[k:]
        discounts = (self.gamma ** (ahead - np.arange(count))).astype(np.float32)
        if episode.terminated:
            discounts[ahead == count] = 0.0
        return total, discounts


def split_states(rows: Tensor, n_states: list[int]) -> tuple[Tensor, Tensor]:
    """Return the rows (N, D) of states and those of next states, which alternate pack by pack in (2 N, D)."""
    parts = rows.split([n for n in n_states for _ in range(2)])
    return torch.cat(parts[::2]), torch.cat(parts[1::2])
