"""A small token environment of this test suite's own: agents must need nothing but Gymnasium's interface."""

from collections.abc import Callable

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv

torch.set_num_threads(1)


class SuccessorEnv(gym.Env):
    """Prompts and utterances of varying length: token 0 ends, the last token's successor earns 1.

    Args:
        vocab_size: V.
        length: L.
        reply: tokens that the environment appends after every third action.
    """

    def __init__(self, vocab_size: int = 7, length: int = 14, reply: int = 0) -> None:
        self.vocab_size, self.length, self.reply = vocab_size, length, reply
        self.observation_space = spaces.Box(0, vocab_size, (length,), np.int64)
        self.action_space = spaces.Discrete(vocab_size)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.context = list(self.np_random.integers(1, self.vocab_size, size=self.np_random.integers(1, 5)))
        self.steps = 0
        return self._observe(), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.steps += 1
        target = self.context[-1] % (self.vocab_size - 1) + 1
        self.context.append(int(action))
        if self.reply and self.steps % 3 == 0:
            self.context += list(self.np_random.integers(1, self.vocab_size, size=self.reply))
        full = len(self.context) + 1 + self.reply > self.length
        return self._observe(), float(action == target), bool(action == 0 or full), False, {}

    def _observe(self) -> np.ndarray:
        observation = np.full(self.length, self.vocab_size, np.int64)
        observation[: len(self.context)] = self.context
        return observation


@pytest.fixture
def token_env() -> type[SuccessorEnv]:
    """The environment's class."""
    return SuccessorEnv


@pytest.fixture
def vector_env() -> Callable[..., SyncVectorEnv]:
    """A function (n, **keywords) -> vector environment that resets in the same step."""

    def make(n: int = 3, **keywords: int) -> SyncVectorEnv:
        return SyncVectorEnv(
            [lambda: SuccessorEnv(**keywords) for _ in range(n)], autoreset_mode=AutoresetMode.SAME_STEP
        )

    return make
