"""Where the transitions of a rollout wait: by episode for PPO, by groups of episodes for GRPO and the best of n.

Each episode's token ids are kept once, and whole fragments are handed out, packed for one forward (`packing.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from stable_baselines3.common.buffers import RolloutBuffer
from torch import Tensor

from .losses import Advantage, group_advantages
from .masks import pack_masks, stack_masks
from .packing import Fragment, Packed, buckets, minibatches, pack, stretches
from .transfer import to_device


class PackedTensors(NamedTuple):
    """`Packed` on the policy's device."""

    ids: Tensor
    row: Tensor
    position: Tensor


class RolloutBatch(NamedTuple):
    """A minibatch of whole fragments; every tensor but `packs` is (N,), ordered as the packs' transitions.

    `masks` are the bits (N, ceil(V / 8)) of the legal actions, None where all are.
    """

    packs: list[PackedTensors]
    transition: Tensor
    actions: Tensor
    old_values: Tensor
    old_log_prob: Tensor
    advantages: Tensor
    returns: Tensor
    masks: Tensor | None


def context_length(observations: np.ndarray, pad: int) -> np.ndarray:
    """Return (B,) tokens in each right-padded observation (B, L)."""
    return (observations != pad).sum(axis=1)


def check_rewards(rewards: np.ndarray) -> None:
    """Raise a `ValueError` unless the rewards (B,) of a step are finite: a failure is no number to learn from."""
    if not np.isfinite(rewards).all():
        row = int(np.flatnonzero(~np.isfinite(rewards))[0])
        raise ValueError(
            f"row {row} of the environment earned {rewards[row]}, which nothing can be learned from; mend its "
            "reward (weights and checkpoints are as they were)"
        )


def check_growth(before: np.ndarray, after: np.ndarray, pad: int, rows: np.ndarray) -> None:
    """Raise a `ValueError` unless contexts (B, L) of the given rows (B,) kept what they held and at most grew."""
    changed = ((before != after) & (before != pad)).any(axis=1) & rows
    if changed.any():
        row = int(np.flatnonzero(changed)[0])
        held, holds = (context[row][context[row] != pad].tolist() for context in (before, after))
        raise ValueError(
            f"row {row} of the environment changed what its context held before, {held} to {holds}; within an "
            "episode tokens are only appended: end it where the context is full"
        )


def pack_to_device(packed: Packed, device: torch.device | str) -> PackedTensors:
    """Return a pack as tensors."""
    return PackedTensors(*(to_device(array, device) for array in packed))


class EpisodeKeeper:
    """What both kinds share, a mixin before SB3's: how large packs are, and masks until their step is added."""

    _chosen_under: np.ndarray | None = None
    max_tokens: int | None = None  # of a pack, padding among them

    def remember_masks(self, legal: np.ndarray) -> None:
        """Keep the masks (B, V) under which the actions of the next step are chosen."""
        self._chosen_under = pack_masks(legal)

    def _take_masks(self, n_rows: int) -> np.ndarray:
        """Return their bits (B, ceil(V / 8)), (B, 0) where every action was legal."""
        bits, self._chosen_under = self._chosen_under, None
        return np.zeros((n_rows, 0), np.uint8) if bits is None else bits


class EpisodeRolloutBuffer(EpisodeKeeper, RolloutBuffer):
    """SB3's rollout buffer, kept as fragments: one context for all of an episode's steps within the rollout.

    Args:
        seed: where the order of minibatches comes from.
    """

    def __init__(self, *args: Any, seed: int | None = None, **kwargs: Any) -> None:
        self.rng = np.random.default_rng(seed)
        super().__init__(*args, **kwargs)
        self.pad = int(self.action_space.n)  # type: ignore[attr-defined]

    def reset(self) -> None:
        """Empty the buffer."""
        shape = (self.buffer_size, self.n_envs)
        self.lengths = np.zeros(shape, np.int64)
        self.actions = np.zeros((*shape, self.action_dim), np.int64)
        self.rewards = np.zeros(shape, np.float32)
        self.episode_starts = np.zeros(shape, np.float32)
        self.advantages = np.zeros(shape, np.float32)
        self.returns = np.zeros(shape, np.float32)
        self.values = np.zeros(shape, np.float32)
        self.log_probs = np.zeros(shape, np.float32)
        self.masks = np.zeros((*shape, 0), np.uint8)  # bits; as wide as they need to be from the first step on
        self.fragments: list[Fragment] = []
        self._waiting: list[tuple[Tensor, Tensor]] = []  # values and log-probabilities still on the device
        self._begin = np.zeros(self.n_envs, np.int64)  # step at which each row's open fragment began
        self._context = np.zeros((self.n_envs, *self.obs_shape), np.int64)
        self.generator_ready = False
        self._last: tuple[Tensor, np.ndarray] | None = None
        self.pos, self.full = 0, False

    def add(
        self,
        obs: np.ndarray,
        action: np.ndarray,
        reward: np.ndarray,
        episode_start: np.ndarray,
        value: Tensor,
        log_prob: Tensor,
    ) -> None:
        """Add one step of every row: obs (B, L), the rest (B,) or (B, 1)."""
        check_rewards(reward)
        if self.pos > 0:
            check_growth(self._context, obs, self.pad, np.asarray(episode_start) == 0)
            for row in np.flatnonzero(episode_start):
                self._close(int(row), self.pos)
        self._context[:] = obs
        self.lengths[self.pos] = context_length(obs, self.pad)
        self.actions[self.pos] = action.reshape(self.n_envs, self.action_dim)
        self.rewards[self.pos] = reward
        self.episode_starts[self.pos] = episode_start
        masks = self._take_masks(self.n_envs)
        if self.pos == 0:
            self.masks = np.zeros((self.buffer_size, *masks.shape), np.uint8)
        self.masks[self.pos] = masks
        self._waiting.append((value.flatten(), log_prob.flatten()))
        self.pos += 1
        self.full = self.pos == self.buffer_size

    def _close(self, row: int, end: int) -> None:
        """Turn steps [begin, end) of a row into a fragment."""
        begin, self._begin[row] = self._begin[row], end
        steps = np.arange(begin, end)
        length = self.lengths[steps, row]
        ids = self._context[row, : length[-1]].copy()
        self.fragments.append(Fragment(ids, length - 1, steps * self.n_envs + row))

    def compute_returns_and_advantage(self, last_values: Tensor, dones: np.ndarray) -> None:
        """Close the open fragments and compute GAE(lambda), Schulman et al. 2016, arXiv:1506.02438."""
        self._close_all()
        self._last = (last_values, dones)
        super().compute_returns_and_advantage(last_values, dones)

    def _close_all(self) -> None:
        """Close the open fragments and fetch values and log-probabilities from the device."""
        for row in range(self.n_envs):
            self._close(row, self.pos)
        values, log_probs = (torch.stack(column) for column in zip(*self._waiting, strict=True))
        self.values[:], self.log_probs[:] = values.cpu().numpy(), log_probs.cpu().numpy()
        self._waiting.clear()

    def boundaries(self) -> tuple[np.ndarray, np.ndarray]:
        """Return (T, B), True on the first step of each episode, and True on the last one."""
        assert self._last is not None
        starts = self.episode_starts.astype(bool)
        return starts, np.concatenate([starts[1:], np.asarray(self._last[1], bool)[None]])

    def recompute_returns_and_advantage(self) -> None:
        """Compute GAE again, after the rewards changed."""
        assert self._last is not None
        super().compute_returns_and_advantage(*self._last)

    def get(self, batch_size: int | None = None) -> Iterator[RolloutBatch]:  # type: ignore[override]
        """Yield the rollout once, in random minibatches of whole fragments of about `batch_size` transitions."""
        sizes = np.array([len(fragment.transition) for fragment in self.fragments])
        yield from self._batches(minibatches(sizes, batch_size or int(sizes.sum()), self.rng))

    def in_order(self, batch_size: int) -> Iterator[RolloutBatch]:
        """Yield the rollout once, longest first, about `batch_size` at a time, for passes without a gradient."""
        lengths = np.array([len(fragment.ids) for fragment in self.fragments])
        sizes = np.array([len(fragment.transition) for fragment in self.fragments])
        for bucket in buckets(lengths):
            yield from self._batches([bucket[part] for part in stretches(sizes[bucket], batch_size)])

    def _pack(self, rows: Sequence[Fragment | GroupEpisode]) -> tuple[list[PackedTensors], np.ndarray]:
        return pack_buckets([r.ids for r in rows], [r.position for r in rows], self.device, self.max_tokens)

    def _batches(self, groups: list[np.ndarray]) -> Iterator[RolloutBatch]:
        columns = [
            to_device(array.reshape(-1), self.device)
            for array in (self.actions, self.values, self.log_probs, self.advantages, self.returns)
        ]
        for group in groups:
            fragments = [self.fragments[index] for index in group]
            packs, order = self._pack(fragments)
            transition = np.concatenate([fragments[index].transition for index in order])
            where = to_device(transition, self.device)
            masks = stack_masks([self.masks.reshape(self.lengths.size, -1)[transition]], self.device)
            actions, values, log_probs, advantages, returns = (column[where] for column in columns)
            yield RolloutBatch(packs, where, actions, values, log_probs, advantages, returns, masks)


class GroupBatch(NamedTuple):
    """A minibatch of whole episodes; every tensor but `packs` is (N,), ordered as the packs' transitions.

    `masks` are the bits (N, ceil(V / 8)) of the legal actions, None where all are; without a reference
    `reference_log_prob` is None.
    """

    packs: list[PackedTensors]
    actions: Tensor
    old_log_prob: Tensor
    advantages: Tensor
    masks: Tensor | None
    reference_log_prob: Tensor | None


class GroupEpisode(NamedTuple):
    """An episode, finished or not: its last context and, for each of t transitions, what follows.

    `masks` are the bits (t, ceil(V / 8)) of the legal actions, (t, 0) where all are.
    """

    ids: np.ndarray
    position: np.ndarray
    actions: np.ndarray
    log_probs: np.ndarray
    rewards: np.ndarray
    masks: np.ndarray

    def joined(self, later: GroupEpisode) -> GroupEpisode:
        """Return this stretch of an episode and the one that follows it."""
        columns = zip(self[1:], later[1:], strict=True)
        return GroupEpisode(later.ids, *(np.concatenate(pair) for pair in columns))


class GroupRolloutBuffer(EpisodeRolloutBuffer):
    """Whole episodes in groups: those of `group_size` neighbouring rows that were seeded alike.

    Rows count their episodes, and a group is complete when all of its rows have finished the episode of that
    number. What is not complete at the end of a rollout waits for the next, so no row ever idles.

    Args:
        group_size: n, rows that share a prompt.
        advantage: see `group_advantages`.
        seed: where the order of minibatches comes from.

    Attributes:
        groups: complete groups, n episodes each.
        ages: rollouts between that in which the first token of each group was said and this one.
        steps: of a row, in all rollouts that were collected.
    """

    def __init__(self, *args: Any, group_size: int, advantage: Advantage, **kwargs: Any) -> None:
        self.group_size, self.advantage = group_size, advantage
        self.steps, self._rollouts = 0, 0
        super().__init__(*args, **kwargs)
        self.drop_unfinished()

    def reset(self) -> None:
        """Drop the complete groups; what is not complete stays."""
        super().reset()
        self.groups: list[list[GroupEpisode]] = []
        self.ages: list[int] = []
        self._reference_log_probs: list[Tensor] = []  # of each episode of the groups, once they were asked for

    def drop_unfinished(self) -> None:
        """Forget what is not complete: the environment was reset."""
        self._cut: dict[int, GroupEpisode] = {}  # row -> its episode up to the end of the last rollout
        self._count = np.zeros(self.n_envs, np.int64)  # episodes that each row has finished
        self._began = np.zeros(self.n_envs, np.int64)  # rollout in which each row's last episode began
        self._waiting_groups: dict[tuple[int, int], list[GroupEpisode]] = {}
        # of each: the rollout in which its first token was said, the step at which its first episode ended
        self._since: dict[tuple[int, int], tuple[int, int]] = {}

    @property
    def longest_wait(self) -> int:
        """Steps since the end of the first of those episodes that wait for the rest of their group."""
        return max((self.steps - ended for _, ended in self._since.values()), default=0)

    def compute_returns_and_advantage(self, last_values: Tensor, dones: np.ndarray) -> None:
        """Close the open fragments; there are neither returns nor advantages before the groups."""
        self._close_all()
        self._last = (last_values, dones)

    def collect_groups(self) -> None:
        """Put the rollout's fragments together to episodes, and these to groups."""
        _, ends = self.boundaries()
        for fragment in self.fragments:
            step, row = divmod(int(fragment.transition[-1]), self.n_envs)
            where = fragment.transition
            episode = GroupEpisode(
                fragment.ids,
                fragment.position,
                self.actions.reshape(-1)[where],
                self.log_probs.reshape(-1)[where],
                self.rewards.reshape(-1)[where],
                self.masks.reshape(self.lengths.size, -1)[where],
            )
            if row in self._cut:
                episode = self._cut.pop(row).joined(episode)
            else:
                self._began[row] = self._rollouts
            if ends[step, row]:
                self._finish(row, episode, self.steps + step + 1)
            else:
                self._cut[row] = episode
        self.steps += self.pos
        self._rollouts += 1

    def get(self, batch_size: int | None = None) -> Iterator[GroupBatch]:  # type: ignore[override]
        """Yield the complete groups once, in random minibatches of whole episodes of about `batch_size` tokens."""
        episodes = [episode for group in self.groups for episode in group]
        returns = np.array([episode.rewards.sum(dtype=np.float64) for episode in episodes])
        advantages = group_advantages(returns.reshape(-1, self.group_size), self.advantage).reshape(-1)
        sizes = np.array([len(episode.actions) for episode in episodes])
        for chosen in minibatches(sizes, batch_size or int(sizes.sum()), self.rng):
            packs, order = self._pack([episodes[i] for i in chosen])
            ordered = chosen[order]
            part = [episodes[i] for i in ordered]
            spread = np.repeat(advantages[ordered], sizes[ordered]).astype(np.float32)
            actions, log_probs, advantage = (
                to_device(column, self.device)
                for column in (
                    np.concatenate([episode.actions for episode in part]),
                    np.concatenate([episode.log_probs for episode in part]),
                    spread,
                )
            )
            known = self._reference_log_probs
            theirs = torch.cat([known[i] for i in ordered]) if known else None
            masks = stack_masks([episode.masks for episode in part], self.device)
            yield GroupBatch(packs, actions, log_probs, advantage, masks, theirs)

    def ask_reference(self, log_prob: Callable[..., Tensor], batch_size: int) -> None:
        """Let a reference score the tokens of the complete groups, for all passes over them.

        Args:
            log_prob: packs, actions (N,) and masks -> (N,), see `ReferencePolicy.log_prob`.
            batch_size: tokens scored at once, about.
        """
        episodes = [episode for group in self.groups for episode in group]
        sizes = np.array([len(episode.actions) for episode in episodes])
        scored: dict[int, Tensor] = {}
        for chosen in stretches(sizes, batch_size):
            packs, order = self._pack([episodes[i] for i in chosen])
            part = [episodes[i] for i in chosen[order]]
            actions = to_device(np.concatenate([episode.actions for episode in part]), self.device)
            theirs = log_prob(packs, actions, stack_masks([episode.masks for episode in part], self.device))
            scored.update(zip(chosen[order].tolist(), theirs.split(sizes[chosen[order]].tolist()), strict=True))
        self._reference_log_probs = [scored[i] for i in range(len(episodes))]

    def _finish(self, row: int, episode: GroupEpisode, step: int) -> None:
        key = row // self.group_size, int(self._count[row])
        self._count[row] += 1
        group = self._waiting_groups.setdefault(key, [])
        group.append(episode)
        first, this = (e.ids[: e.position[0] + 1].tolist() for e in (group[0], episode))
        if this != first:
            raise ValueError(
                f"rows of one group were shown different prompts, {first} and {this}: "
                "the environment's prompts must depend on seed and episode number only"
            )
        began, ended = self._since.get(key, (self._rollouts, step))
        self._since[key] = min(began, int(self._began[row])), min(ended, step)
        if len(group) == self.group_size:
            self.groups.append(self._waiting_groups.pop(key))
            self.ages.append(self._rollouts - self._since.pop(key)[0])


def pack_buckets(
    contexts: list[np.ndarray],
    positions: list[np.ndarray],
    device: torch.device | str,
    max_tokens: int | None = None,
) -> tuple[list[PackedTensors], np.ndarray]:
    """Return packs of rows of similar length, and the order in which they hold the rows."""
    groups = buckets(np.array([len(ids) for ids in contexts]), most=max_tokens)
    packs = [pack([contexts[i] for i in group], [positions[i] for i in group]) for group in groups]
    return [pack_to_device(packed, device) for packed in packs], np.concatenate(groups)
