"""What the timings of agents have in common: sizes, a model, an environment that costs nothing, counted work."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from numpy.typing import NDArray
from torch.utils.flop_counter import FlopCounterMode
from transformers import GPT2Config


@dataclass(frozen=True)
class Job:
    """A model and episodes of a fixed length; by default the first row of DESIGN.md's table.

    Attributes:
        width, layers, heads: of the GPT-2 that both sides train.
        vocab_size, prompt, tokens: V, prompt length and T of every episode.
        ragged: episodes end after 1..T tokens instead, each as likely.
        n_envs, n_epochs, batch_size: as in SB3.
        stock_minibatches: of all epochs' that stock SB3 is timed on, its seconds scaled up; None times them all.
    """

    width: int = 128
    layers: int = 4
    heads: int = 4
    vocab_size: int = 512
    prompt: int = 8
    tokens: int = 64
    ragged: bool = False
    n_envs: int = 16
    n_epochs: int = 4
    batch_size: int = 256
    stock_minibatches: int | None = None

    @property
    def length(self) -> int:
        """L, the longest context."""
        return self.prompt + self.tokens

    @property
    def minibatches(self) -> int:
        """Stock's minibatches in an iteration, all epochs together."""
        return self.n_epochs * -(-self.tokens * self.n_envs // self.batch_size)

    def config(self) -> GPT2Config:
        """Return the model's config, without dropout and special tokens."""
        return GPT2Config(
            vocab_size=self.vocab_size,
            n_positions=self.length,
            n_embd=self.width,
            n_layer=self.layers,
            n_head=self.heads,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            bos_token_id=None,
            eos_token_id=None,
        )


class BlankEnv(VectorEnv):
    """Random prompts, episodes of a job's lengths, a reward for even tokens: costs next to nothing itself."""

    metadata = {"autoreset_mode": AutoresetMode.SAME_STEP}

    def __init__(self, job: Job, seed: int = 0) -> None:
        self.job, self.num_envs = job, job.n_envs
        self.rng = np.random.default_rng(seed)
        self.single_observation_space = spaces.Box(0, job.vocab_size, (job.length,), np.int64)
        self.single_action_space = spaces.Discrete(job.vocab_size)
        self.observation_space = spaces.Box(0, job.vocab_size, (self.num_envs, job.length), np.int64)
        self.action_space = spaces.MultiDiscrete([job.vocab_size] * self.num_envs)
        self.rows = np.arange(self.num_envs)
        self.context = np.empty((self.num_envs, job.length), np.int64)
        self.said = np.zeros(self.num_envs, np.int64)
        self.limit = np.zeros(self.num_envs, np.int64)
        self._start(self.rows)

    def _start(self, rows: NDArray[np.int64]) -> None:
        job, n = self.job, len(rows)
        self.said[rows] = 0
        self.limit[rows] = self.rng.integers(1, job.tokens + 1, size=n) if job.ragged else job.tokens
        self.context[rows] = job.vocab_size
        # The rows that start together share a prompt, so that they can be a group of GRPO's.
        self.context[rows, : job.prompt] = self.rng.integers(job.vocab_size, size=job.prompt)

    def reset(self, *, seed: Any = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        """Start every row."""
        self._start(self.rows)
        return self.context.copy(), {}

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Append a token to every row."""
        self.context[self.rows, self.job.prompt + self.said] = actions
        self.said += 1
        ended = self.said == self.limit
        infos: dict[str, Any] = {}
        if ended.any():
            infos = {"final_obs": list(self.context.copy()), "final_info": {}}
            self._start(np.flatnonzero(ended))
        return self.context.copy(), (actions % 2 == 0) * 1.0, ended, np.zeros_like(ended), infos


def blank_env(job: Job) -> Any:
    """Return a job's environment as SB3's algorithms take it."""
    from agents import VectorEnvAdapter

    return VectorEnvAdapter(BlankEnv(job))


def _attention(query: torch.Size, key: torch.Size, *unused: Any, **also_unused: Any) -> int:
    """Return the operations of attention from the shapes (B, H, T, D) of its inputs: two products."""
    rows, heads, queries, width = query
    return 2 * 2 * rows * heads * queries * key[2] * width


def _attention_backward(gradient: torch.Size, query: torch.Size, key: torch.Size, *unused: Any, **also: Any) -> int:
    """Return the operations of its backward pass: five products, one of them the scores again."""
    return 5 * _attention(query, key) // 2


_ATTENTION_ON_CPU = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
}


def count_flops(work: Callable[[], Any]) -> int:
    """Return the floating-point operations of PyTorch's matrix products and attention in one call.

    PyTorch's own table lacks the attention of CPUs. Masked and causal attention count as if whole, on both sides.
    """
    with FlopCounterMode(display=False, custom_mapping=_ATTENTION_ON_CPU) as counter:
        work()
    return int(counter.get_total_flops())


def timed(work: Callable[[], Any], device: torch.device | str) -> float:
    """Return the seconds of a call on a device, from when it is idle until it is again."""
    wait(device)
    begin = time.perf_counter()
    work()
    wait(device)
    return time.perf_counter() - begin


def wait(device: torch.device | str) -> None:
    """Wait until a device has done what it was given, so that the clock counts it."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
