"""The section `agents` of the timings: our agents against honest slow twins.

Every row has the ratio of floating-point operations beside the ratio of seconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv

from .timing import Row, spread


@dataclass(frozen=True)
class Job:
    """One PPO iteration: a rollout of one episode a row, then `n_epochs` of updates.

    Attributes:
        name: of the row.
        width, layers, heads: of the GPT-2 that both sides train.
        vocab_size, prompt, tokens: V, prompt length and T of every episode.
        n_envs, n_epochs, batch_size: as in SB3.
    """

    name: str
    width: int = 128
    layers: int = 4
    heads: int = 4
    vocab_size: int = 512
    prompt: int = 8
    tokens: int = 64
    n_envs: int = 16
    n_epochs: int = 4
    batch_size: int = 256


JOBS = (Job("PPO iteration, 0.9 M parameters, V 512, prompt 8, T 64, 16 envs, 4 epochs"),)


class FixedLengthEnv(VectorEnv):
    """Random prompts, episodes of exactly T tokens, a reward for even tokens: costs nothing itself."""

    metadata = {"autoreset_mode": AutoresetMode.SAME_STEP}

    def __init__(self, job: Job, seed: int = 0) -> None:
        self.job, self.num_envs = job, job.n_envs
        self.rng = np.random.default_rng(seed)
        length = job.prompt + job.tokens
        self.single_observation_space = spaces.Box(0, job.vocab_size, (length,), np.int64)
        self.single_action_space = spaces.Discrete(job.vocab_size)
        self.observation_space = spaces.Box(0, job.vocab_size, (self.num_envs, length), np.int64)
        self.action_space = spaces.MultiDiscrete([job.vocab_size] * self.num_envs)
        self._start()

    def _start(self) -> None:
        job = self.job
        self.said = 0
        self.context = np.full((self.num_envs, job.prompt + job.tokens), job.vocab_size, np.int64)
        self.context[:, : job.prompt] = self.rng.integers(job.vocab_size, size=(self.num_envs, job.prompt))

    def reset(self, *, seed: Any = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        """Start every row."""
        self._start()
        return self.context.copy(), {}

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Append a token to every row."""
        self.context[:, self.job.prompt + self.said] = actions
        self.said += 1
        over = self.said == self.job.tokens
        infos: dict[str, Any] = {}
        if over:
            infos = {"final_obs": list(self.context.copy()), "final_info": {}}
            self._start()
        ended = np.full(self.num_envs, over)
        return self.context.copy(), (actions % 2 == 0) * 1.0, ended, np.zeros_like(ended), infos


def make_iteration(job: Job, algorithm: type, device: str) -> tuple[Callable[[], tuple[float, float]], Any]:
    """Return a function that runs one iteration and gives (rollout, update) seconds, and the model."""
    from transformers import GPT2Config

    from agents import TransformerPolicy, VectorEnvAdapter

    config = GPT2Config(
        vocab_size=job.vocab_size,
        n_positions=job.prompt + job.tokens,
        n_embd=job.width,
        n_layer=job.layers,
        n_head=job.heads,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=None,
        eos_token_id=None,
    )
    model = algorithm(
        TransformerPolicy,
        VectorEnvAdapter(FixedLengthEnv(job)),
        learning_rate=3e-4,
        n_steps=job.tokens,
        batch_size=job.batch_size,
        n_epochs=job.n_epochs,
        gamma=1.0,
        policy_kwargs={"model": config},
        seed=0,
        device=device,
    )
    _, callback = model._setup_learn(10**9)

    def iterate() -> tuple[float, float]:
        begin = time.perf_counter()
        model.collect_rollouts(model.env, callback, model.rollout_buffer, model.n_steps)
        middle = time.perf_counter()
        model.train()
        return middle - begin, time.perf_counter() - middle

    return iterate, model


def count_flops(iterate: Callable[[], Any]) -> int:
    """Return the floating-point operations of PyTorch's matrix products and attention in one call."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        iterate()
    return int(counter.get_total_flops())


def rows(repeats: int, device: str) -> Iterator[Row]:
    """Yield the rows of this section."""
    for job in JOBS:
        yield compare_ppo(job, repeats, device)


def compare_ppo(job: Job, repeats: int, device: str) -> Row:
    """Return one row: our PPO and stock SB3's with the same policy, one iteration each in turn."""
    import stable_baselines3

    from agents import PPO

    ours, model = make_iteration(job, PPO, device)
    stock, _ = make_iteration(job, stable_baselines3.PPO, device)
    flops = {"ours": count_flops(ours), "stock": count_flops(stock)}  # also the warm-up
    seconds: dict[str, list[tuple[float, float]]] = {"ours": [], "stock": []}
    for _ in range(repeats):
        seconds["stock"].append(stock())
        seconds["ours"].append(ours())
    ratios = [sum(s) / sum(o) for s, o in zip(seconds["stock"], seconds["ours"], strict=True)]
    flop_ratio = flops["stock"] / flops["ours"]
    ratio = spread(ratios)
    parameters = sum(p.numel() for p in model.policy.parameters())
    return {
        "name": job.name,
        "told": f"{ratio['median']:.1f}x stock SB3 with the same policy, trimmed "
        f"({ratio['min']:.1f}-{ratio['max']:.1f}); floating-point operations {flop_ratio:.1f}x, "
        f"{ratio['median'] / flop_ratio:.0%} of it reached; "
        f"{parameters:,} parameters on {model.device}",
        "parameters": parameters,
        "device": str(model.device),
        "stock_seconds": seconds["stock"],
        "our_seconds": seconds["ours"],
        "flops": flops,
        "flop_ratio": flop_ratio,
        "ratio": ratio,
    }
