"""Timings of DQN beside stock SB3's: gradient steps on the same transitions, and the memory of replay."""

from __future__ import annotations

import gc
import tracemalloc
from functools import partial
from typing import Any

import numpy as np
from stable_baselines3 import DQN as StockDQN
from stable_baselines3.common.buffers import ReplayBuffer

from .jobs import Job, blank_env, count_flops, timed
from .timing import Row, with_flops

TRANSITIONS = 1_000_000  # that the memory row is about


def fill(buffer: Any, env: Any, job: Job, transitions: int) -> None:
    """Add transitions of random actions to a replay buffer; the same seed gives the same ones."""
    rng = np.random.default_rng(0)
    last = env.reset()
    for _ in range(-(-transitions // job.n_envs)):
        actions = rng.integers(job.vocab_size, size=job.n_envs)
        following, rewards, ended, infos = env.step(actions)
        final = following.copy()
        for row in np.flatnonzero(ended):
            final[row] = infos[row]["terminal_observation"]
        buffer.add(last, final, actions, rewards, ended, infos)
        last = following


def make_model(job: Job, algorithm: type, device: str, transitions: int, **options: Any) -> Any:
    """Return a DQN whose replay buffer holds some transitions."""
    from agents import TransformerQPolicy

    model = algorithm(
        TransformerQPolicy,
        blank_env(job),
        learning_rate=3e-4,
        buffer_size=transitions,
        batch_size=job.batch_size,
        gamma=1.0,
        policy_kwargs={"model": job.config()},
        seed=0,
        device=device,
        **options,
    )
    model._setup_learn(10**9)
    fill(model.replay_buffer, blank_env(job), job, transitions)
    return model


def gradient_row(job: Job, steps: int, repeats: int, device: str) -> Row:
    """Return a row: gradient steps on as many of the same transitions, without double Q-learning on either side.

    Args:
        job: `batch_size` is the transitions of a gradient step.
        steps: gradient steps that are timed at once.
        repeats: pairs of measurements.
        device: of both.
    """
    from agents import DQN

    transitions = 4 * job.n_envs * job.tokens
    ours = make_model(job, DQN, device, transitions, double_q=False)
    stock = make_model(job, StockDQN, device, transitions)

    def train(model: Any) -> None:
        model.train(steps, job.batch_size)

    flops = {"ours": count_flops(lambda: train(ours)), "stock": count_flops(lambda: train(stock))}
    work = partial(train, stock), partial(train, ours)
    pairs = [(timed(work[0], device), timed(work[1], device)) for _ in range(repeats)]
    name = (
        f"DQN gradient steps on {job.batch_size} transitions, V {job.vocab_size}, prompt {job.prompt}, "
        f"T {job.tokens}"
    )
    row = with_flops(name, pairs, flops, "stock SB3 with the same policy, trimmed")
    row["stock_steps_per_second"] = steps / float(np.median([theirs for theirs, _ in pairs]))
    row["our_steps_per_second"] = steps / float(np.median([own for _, own in pairs]))
    return {**row, "device": str(ours.device)}


def memory_row(job: Job, measured: int) -> Row:
    """Return a row: what replay takes for a million transitions.

    Ours is allocated and measured for `measured` transitions; what its finished episodes take is scaled up, what
    the unfinished ones take is not, for their number is the environment's rows'. Stock's is the size of the arrays
    that it makes, which grow with the buffer alone.
    """
    from agents.replay import EpisodeReplayBuffer

    def filled(transitions: int) -> EpisodeReplayBuffer:
        env = blank_env(job)
        buffer = EpisodeReplayBuffer(TRANSITIONS, env.observation_space, env.action_space, "cpu", job.n_envs)
        fill(buffer, env, job, transitions)
        return buffer

    filled(2 * job.n_envs * job.tokens).drop_unfinished()  # first use: what libraries keep is not ours
    tracemalloc.start()
    try:
        ours = filled(measured)
        gc.collect()  # the environment's last steps
        everything = tracemalloc.get_traced_memory()[0]
        ours.drop_unfinished()
        finished = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    env = blank_env(job)
    small = ReplayBuffer(1000, env.observation_space, env.action_space, "cpu")
    arrays = [value for value in vars(small).values() if isinstance(value, np.ndarray)]
    stock = TRANSITIONS * sum(array.nbytes for array in arrays) // 1000
    own = TRANSITIONS * finished // ours.size() + everything - finished
    ratio = stock / own
    lengths = f"episodes of 1 to {job.tokens} tokens" if job.ragged else f"episodes of {job.tokens} tokens"
    return {
        "name": f"Replay memory, {TRANSITIONS:,} transitions at L {job.length}, {lengths}",
        "told": f"1/{ratio:,.0f} of stock SB3's: {own / 2**20:,.1f} MiB (measured on "
        f"{ours.size():,} and scaled) beside {stock / 2**20:,.0f} MiB (its arrays' size)",
        "our_bytes": own,
        "stock_bytes": stock,
        "ratio": {"min": ratio, "median": ratio, "max": ratio},
    }
