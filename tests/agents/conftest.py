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

    def demonstrate(self) -> list[int]:
        """Return the best tokens up to the next reply, or to the end."""
        said = [self.context[-1] % (self.vocab_size - 1) + 1]
        until = 3 - self.steps % 3 if self.reply else self.length - len(self.context)
        while len(said) < until:
            said.append(said[-1] % (self.vocab_size - 1) + 1)
        return said

    def _observe(self) -> np.ndarray:
        observation = np.full(self.length, self.vocab_size, np.int64)
        observation[: len(self.context)] = self.context
        return observation


class MaskedSuccessorEnv(SuccessorEnv):
    """The same, where about half of the tokens are legal: the rewarded one, the end, and those of one parity.

    A token that is not legal raises. Episodes that a wrapper cuts tell what would have been legal.
    """

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict]:
        if not self.action_masks()[action]:
            raise ValueError(f"token {action} is not legal after {self.context}")
        observation, reward, terminated, truncated, _ = super().step(action)
        return observation, reward, terminated, truncated, {"action_mask": self.action_masks()}

    def action_masks(self) -> np.ndarray:
        """Return (V,), True where a token is legal."""
        last = self.context[-1]
        legal = (np.arange(self.vocab_size) + last) % 2 == 0
        legal[[0, last % (self.vocab_size - 1) + 1]] = True
        return legal


class PaidSuccessorEnv(SuccessorEnv):
    """The same, where each token is a turn that tells what it is worth."""

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict]:
        observation, reward, terminated, truncated, _ = super().step(action)
        return observation, reward, terminated, truncated, {"reward_clean": reward}


@pytest.fixture
def paid_env() -> Callable[[int], SyncVectorEnv]:
    """A function (n) -> vector environment of paid ones that resets in the same step."""
    return lambda n: SyncVectorEnv([PaidSuccessorEnv] * n, autoreset_mode=AutoresetMode.SAME_STEP)


@pytest.fixture
def masked_env() -> type[MaskedSuccessorEnv]:
    """The masked environment's class."""
    return MaskedSuccessorEnv


@pytest.fixture
def masked_vector_env() -> Callable[..., SyncVectorEnv]:
    """A function (n, **keywords) -> vector environment of masked ones that resets in the same step."""

    def make(n: int = 3, **keywords: int) -> SyncVectorEnv:
        return SyncVectorEnv(
            [lambda: MaskedSuccessorEnv(**keywords) for _ in range(n)], autoreset_mode=AutoresetMode.SAME_STEP
        )

    return make


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
