"""Timings of PPO: an iteration beside stock SB3's, and how the cost of an update grows with an episode's length."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from stable_baselines3 import PPO as StockPPO

from .jobs import Job, blank_env, count_flops, timed
from .timing import Row, spread, with_flops

LENGTHS = 8  # contexts at which a scaled-down stock rollout is timed

Iteration = Callable[[], tuple[float, float]]  # returns (rollout, update) in seconds or operations


def make_model(job: Job, algorithm: type, device: str, **options: Any) -> Any:
    """Return an algorithm with a job's model and environment, ready for `collect_rollouts` and `train`."""
    from agents import TransformerPolicy

    model = algorithm(
        TransformerPolicy,
        blank_env(job),
        learning_rate=3e-4,
        n_steps=job.tokens,
        batch_size=job.batch_size,
        n_epochs=job.n_epochs,
        policy_kwargs={"model": job.config()},
        seed=0,
        device=device,
        **options,
    )
    model.timed_callback = model._setup_learn(10**9)[1]
    return model


def parameters(model: Any) -> int:
    """Return how many weights a model's policy has."""
    return sum(p.numel() for p in model.policy.parameters())


def rollout(model: Any) -> None:
    """Collect a rollout."""
    model.collect_rollouts(model.env, model.timed_callback, model.rollout_buffer, model.n_steps)


def whole_iteration(model: Any, measure: Callable[[Callable[[], Any]], float]) -> tuple[float, float]:
    """Return what a rollout and an update cost, by a measure of calls."""
    return measure(lambda: rollout(model)), measure(model.train)


def scaled_iteration(
    model: Any, job: Job, minibatches: int, measure: Callable[[Callable[[], Any]], float]
) -> tuple[float, float]:
    """Return what a stock rollout and update would cost, from parts of both.

    The rollout is T times the mean forward over contexts of evenly spread lengths (its environment and buffer are
    left out, in stock's favour); the update is that of a few minibatches, drawn as stock draws them, scaled up.
    """
    fill(model, job)
    observations = torch.as_tensor(model.rollout_buffer.observations, device=model.device)  # (T, B, L), as filled
    steps = (np.arange(LENGTHS) * job.tokens // LENGTHS) + job.tokens // (2 * LENGTHS)
    get = model.rollout_buffer.get
    model.n_epochs = 1
    model.rollout_buffer.get = lambda batch_size: itertools.islice(get(batch_size), minibatches)

    def act() -> None:
        with torch.no_grad():
            for step in steps:
                model.policy(observations[step])[0].cpu()

    try:
        return job.tokens / len(steps) * measure(act), job.minibatches / minibatches * measure(model.train)
    finally:
        del model.rollout_buffer.get


def fill(model: Any, job: Job) -> None:
    """Fill a stock rollout buffer with random actions; what they are does not change the time of an update."""
    buffer, env = model.rollout_buffer, model.env
    rng, likely = np.random.default_rng(0), torch.full((job.n_envs,), -np.log(job.vocab_size))
    buffer.reset()
    last, starts = env.reset(), np.ones(job.n_envs)
    for _ in range(job.tokens):
        actions = rng.integers(job.vocab_size, size=job.n_envs)
        following, rewards, ended, _ = env.step(actions)
        buffer.add(last, actions[:, None], rewards, starts, torch.zeros(job.n_envs, 1), likely)
        last, starts = following, ended
    buffer.compute_returns_and_advantage(torch.zeros(job.n_envs, 1), starts)


def stock_iteration(model: Any, job: Job, measure: Callable[[Callable[[], Any]], float]) -> tuple[float, float]:
    """Return what stock's iteration costs, whole or scaled up, as the job says."""
    if job.stock_minibatches is None:
        return whole_iteration(model, measure)
    return scaled_iteration(model, job, job.stock_minibatches, measure)


def iteration_row(job: Job, repeats: int, device: str) -> Row:
    """Return a row: one iteration of our PPO and of stock SB3's with the same policy, in turn."""
    from agents import PPO

    ours, stock = make_model(job, PPO, device, gamma=1.0), make_model(job, StockPPO, device, gamma=1.0)
    rollout(ours)  # the first looks at the model too, which is not counted
    flops = {  # also the warm-up
        "ours": round(sum(whole_iteration(ours, count_flops))),
        "stock": round(sum(stock_iteration(stock, job, count_flops))),
    }
    clock = partial(timed, device=device)
    pairs = [(stock_iteration(stock, job, clock), whole_iteration(ours, clock)) for _ in range(repeats)]
    size = parameters(ours)
    name = (
        f"PPO iteration, {size / 1e6:.1f} M parameters, V {job.vocab_size}, prompt {job.prompt}, T {job.tokens}, "
        f"{job.n_envs} envs, {job.n_epochs} epochs"
    )
    other = "stock SB3 with the same policy, trimmed"
    if job.stock_minibatches is not None:
        other += (
            f" (its time scaled up from {job.stock_minibatches} of {job.minibatches} minibatches and from "
            f"{LENGTHS} of {job.tokens} steps)"
        )
    row = with_flops(name, [(sum(theirs), sum(own)) for theirs, own in pairs], flops, other)
    row["stock_seconds"], row["our_seconds"] = [theirs for theirs, _ in pairs], [own for _, own in pairs]
    return {**row, "parameters": size, "device": str(ours.device)}


def growth_row(short: Job, long: Job, repeats: int, device: str) -> Row:
    """Return a row: the cost of an update for each token in long episodes, beside that in short ones."""
    from agents import PPO

    models = [make_model(job, PPO, device, gamma=1.0) for job in (short, long)]
    tokens = [job.n_envs * job.tokens for job in (short, long)]
    for model in models:
        rollout(model)
    flops = [count_flops(model.train) / n for model, n in zip(models, tokens, strict=True)]  # also the warm-up
    costs = [
        [timed(model.train, device) / n for model, n in zip(models, tokens, strict=True)] for _ in range(repeats)
    ]
    ratio, flop_ratio = spread([after / before for before, after in costs]), flops[1] / flops[0]
    return {
        "name": f"PPO update, cost of a token at T {long.tokens} against T {short.tokens}, "
        f"{parameters(models[0]) / 1e6:.1f} M parameters",
        "told": f"{ratio['median']:.2f}x ({ratio['min']:.2f}-{ratio['max']:.2f}); "
        f"floating-point operations {flop_ratio:.2f}x",
        "device": str(models[0].device),
        "seconds_per_token": costs,
        "flop_ratio": flop_ratio,
        "ratio": ratio,
    }
