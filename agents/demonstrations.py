"""Episodes to imitate: where they come from, how they are recorded, held out and put into batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.buffers import BaseBuffer
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor

from .buffers import PackedTensors, context_length, pack_buckets
from .masks import pack_masks, stack_masks
from .on_policy import check_sizes
from .packing import minibatches, stretches
from .transfer import to_device

Pairs = Iterable[tuple[Sequence[int], Sequence[int]]]
_SET_ASIDE = 10  # every tenth episode is held out, until there are enough


class Demonstration(NamedTuple):
    """An episode to imitate.

    Attributes:
        ids: (n,) the context of its last action.
        position: (t,) index into `ids` of the last token before each action.
        actions: (t,).
        masks: (t, ceil(V / 8)) bits of the legal actions, (t, 0) where all are.
    """

    ids: np.ndarray
    position: np.ndarray
    actions: np.ndarray
    masks: np.ndarray


class CloningBatch(NamedTuple):
    """A minibatch of whole episodes: packs and, in the order of their positions, (N,) actions.

    `masks` are the bits (N, ceil(V / 8)) of the legal actions, None where all are.
    """

    packs: list[PackedTensors]
    actions: Tensor
    masks: Tensor | None


def demonstrations_of_pairs(pairs: Pairs, vocab_size: int, length: int) -> list[Demonstration]:
    """Return pairs of prompt ids and completion ids (the end token included) as episodes.

    Args:
        pairs: at least one.
        vocab_size: V; every id is below it.
        length: L, the most tokens of prompt and completion together.

    Raises:
        ValueError: if there is no pair, or one is empty, too long or holds an id outside 0..V-1.
    """
    episodes = []
    for number, (prompt, completion) in enumerate(pairs):
        ids = np.array([*prompt, *completion], np.int64)
        if not (len(prompt) and len(completion)):
            raise ValueError(
                f"demonstration {number} has {len(prompt)} tokens of prompt and {len(completion)} of completion; "
                "each needs at least one"
            )
        if len(ids) > length:
            raise ValueError(
                f"demonstration {number} has {len(ids)} tokens, more than the {length} of a context; "
                "shorten or drop it"
            )
        if not (0 <= ids.min() and ids.max() < vocab_size):
            wrong = int(ids[(ids < 0) | (ids >= vocab_size)][0])
            raise ValueError(
                f"demonstration {number} holds the id {wrong}, outside 0..{vocab_size - 1}; "
                "encode it with the environment's tokenizer"
            )
        position, actions = np.arange(len(prompt) - 1, len(ids) - 1), ids[len(prompt) :]
        episodes.append(Demonstration(ids[:-1], position, actions, np.zeros((len(actions), 0), np.uint8)))
    if not episodes:
        raise ValueError("there are no demonstrations; give at least one pair of prompt ids and completion ids")
    return episodes


def cloning_batch(
    episodes: Sequence[Demonstration], device: torch.device | str, max_tokens: int | None = None
) -> CloningBatch:
    """Return episodes as one batch, its packs of at most `max_tokens` tokens where one episode has no more."""
    packs, order = pack_buckets([e.ids for e in episodes], [e.position for e in episodes], device, max_tokens)
    actions = np.concatenate([episodes[i].actions for i in order]).astype(np.int64)
    masks = stack_masks([episodes[i].masks for i in order], device)
    return CloningBatch(packs, to_device(actions, device), masks)


def cloning_batches(
    episodes: Sequence[Demonstration],
    batch_size: int,
    rng: np.random.Generator,
    device: torch.device | str,
    max_tokens: int | None = None,
) -> Iterator[CloningBatch]:
    """Yield every episode once, in random minibatches of about `batch_size` actions."""
    for chosen in minibatches(np.array([len(e.actions) for e in episodes]), batch_size, rng):
        yield cloning_batch([episodes[i] for i in chosen], device, max_tokens)


def in_order(
    episodes: Sequence[Demonstration], batch_size: int, device: torch.device | str
) -> Iterator[CloningBatch]:
    """Yield every episode once, in the given order, in minibatches of about `batch_size` actions."""
    for chosen in stretches(np.array([len(e.actions) for e in episodes]), batch_size):
        yield cloning_batch([episodes[i] for i in chosen], device)


class EpisodeRecorder:
    """Puts steps of B rows together to episodes.

    Args:
        n_envs: B.
        pad: what pads observations.
    """

    def __init__(self, n_envs: int, pad: int) -> None:
        self.pad = pad
        self._open: list[list[tuple[int, int, np.ndarray]]] = [[] for _ in range(n_envs)]

    def add(
        self, obs: np.ndarray, actions: np.ndarray, dones: np.ndarray, legal: np.ndarray | None = None
    ) -> list[tuple[int, Demonstration]]:
        """Add a step of every row.

        Args:
            obs: (B, L).
            actions: (B,) what was said there.
            dones: (B,) whether the episode ended with it.
            legal: (B, V) what could be said; None: everything.

        Returns:
            (row, episode) of each episode that ended.
        """
        length = context_length(obs, self.pad)
        bits = np.zeros((len(obs), 0), np.uint8) if legal is None else pack_masks(legal)
        ended = []
        for row, steps in enumerate(self._open):
            steps.append((int(length[row]) - 1, int(actions[row]), bits[row]))
            if dones[row]:
                position, said, masks = zip(*steps, strict=True)
                ids = obs[row, : length[row]].copy()
                ended.append((row, Demonstration(ids, np.array(position), np.array(said), np.stack(masks))))
                self._open[row] = []
        return ended


class Demonstrator:
    """What an environment itself would say, token by token.

    Its rows have a method `demonstrate() -> token ids` of a best utterance, or of a reference, where one opens.

    Args:
        n_envs: B.
    """

    def __init__(self, n_envs: int) -> None:
        self._ahead: list[list[int]] = [[] for _ in range(n_envs)]

    def actions(self, env: VecEnv) -> np.ndarray:
        """Return (B,) the next tokens.

        Raises:
            ValueError: if the environment demonstrates nothing.
        """
        opening = [row for row, ids in enumerate(self._ahead) if not ids]
        if opening:
            for row, ids in zip(opening, _demonstrated(env, opening), strict=True):
                if not len(ids):
                    raise ValueError(f"row {row}: the environment demonstrated no token at all")
                self._ahead[row] = [int(i) for i in ids][::-1]
        return np.array([ids.pop() for ids in self._ahead])

    def ended(self, dones: np.ndarray) -> None:
        """Forget what rows whose episodes ended had still to say."""
        for row in np.flatnonzero(dones):
            self._ahead[row] = []


def _demonstrated(env: VecEnv, rows: list[int]) -> list[Sequence[int]]:
    try:
        return env.env_method("demonstrate", indices=rows)
    except (AttributeError, NotImplementedError) as error:
        raise ValueError(
            f"the environment demonstrates nothing ({type(error).__name__}: {error}); "
            "pass demonstrations=[(prompt ids, completion ids), ...]"
        ) from error


def demonstrate(env: VecEnv, episodes: int, seed: int) -> list[Demonstration]:
    """Return the first episodes of each row, demonstrated by the environment, `episodes` in all.

    Args:
        env: see `Demonstrator`.
        episodes: at least 1.
        seed: of the environment's first row.

    Raises:
        ValueError: if the environment demonstrates nothing.
    """
    check_sizes(episodes=episodes)
    env.seed(seed)
    obs = env.reset()
    per_row = -(-episodes // env.num_envs)
    rows: list[list[Demonstration]] = [[] for _ in range(env.num_envs)]
    recorder = EpisodeRecorder(env.num_envs, int(env.action_space.n))  # type: ignore[attr-defined]
    demonstrator = Demonstrator(env.num_envs)
    while min(map(len, rows)) < per_row:
        actions = demonstrator.actions(env)
        following, _, dones, _ = env.step(actions)
        demonstrator.ended(dones)
        for row, episode in recorder.add(obs, actions, dones):  # type: ignore[arg-type]
            rows[row].append(episode)
        obs = following
    return [row[number] for number in range(per_row) for row in rows][:episodes]


class DemonstrationBuffer(BaseBuffer):
    """The demonstrations of a rollout, and those that are held out.

    Args:
        gamma, gae_lambda: SB3 hands them to every on-policy buffer; there are no returns here.
        heldout: episodes to set aside.
        seed: where orders come from.

    Attributes:
        episodes: to train on.
        heldout: never trained on.
        given: what `draw` takes its episodes from.
        demonstrator: what the environment has still to say in each row.
    """

    def __init__(
        self,
        buffer_size: int,
        observation_space: spaces.Box,
        action_space: spaces.Discrete,
        device: torch.device | str = "auto",
        gae_lambda: float = 1.0,
        gamma: float = 1.0,
        n_envs: int = 1,
        heldout: int = 64,
        seed: int | None = None,
    ) -> None:
        super().__init__(buffer_size, observation_space, action_space, device, n_envs=n_envs)
        self.rng = np.random.default_rng(seed)
        self.n_heldout = heldout
        self.heldout: list[Demonstration] = []
        self._count = np.zeros(n_envs, np.int64)  # episodes that each row has finished
        self.given: list[Demonstration] = []
        self._queue: list[int] = []  # of those given, what is left of this pass
        self._due = 0  # actions still to hand out; negative where an episode went beyond
        self.reset()
        self.drop_unfinished()

    def reset(self) -> None:
        """Drop what was trained on; open episodes and those that are held out stay."""
        super().reset()
        self.episodes: list[Demonstration] = []

    def drop_unfinished(self) -> None:
        """Forget the open episodes: the environment was reset."""
        self._recorder = EpisodeRecorder(self.n_envs, int(self.action_space.n))  # type: ignore[attr-defined]
        self.demonstrator = Demonstrator(self.n_envs)

    def add(  # type: ignore[override]
        self, obs: np.ndarray, actions: np.ndarray, dones: np.ndarray, legal: np.ndarray | None = None
    ) -> None:
        """Add a step of every row, see `EpisodeRecorder.add`."""
        self.demonstrator.ended(dones)
        for row, episode in self._recorder.add(obs, actions, dones, legal):
            self._count[row] += 1
            set_aside = self._count[row] % _SET_ASIDE == 0 and len(self.heldout) < self.n_heldout
            (self.heldout if set_aside else self.episodes).append(episode)

    def give(self, episodes: list[Demonstration]) -> None:
        """Set the episodes that `draw` hands out, and hold some of them back: at most a tenth."""
        order = self.rng.permutation(len(episodes))
        aside = min(self.n_heldout, len(episodes) // _SET_ASIDE)
        self.heldout = [episodes[i] for i in order[:aside]]
        self.given = [episodes[i] for i in order[aside:]]
        self._queue, self._due = [], 0

    def draw(self, actions: int) -> None:
        """Take about that many actions of given episodes, pass after pass in random order."""
        self._due += actions
        while self._due > 0:
            if not self._queue:
                self._queue = self.rng.permutation(len(self.given)).tolist()
            self.episodes.append(self.given[self._queue.pop()])
            self._due -= len(self.episodes[-1].actions)

    def _get_samples(self, batch_inds: np.ndarray, env: Any = None) -> CloningBatch:  # type: ignore[override]
        return cloning_batch([self.episodes[i] for i in batch_inds], self.device)
