"""How good an agent is: clean returns of fresh episodes, played through the batched engine."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, cast

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray

import text_envs
from text_envs import TokenVectorEnv

gym.register_envs(text_envs)


@dataclass(frozen=True)
class Episode:
    """One finished episode as text."""

    prompt: str
    completion: str
    reward: float


@dataclass(frozen=True)
class Evaluation:
    """Clean returns of the evaluated episodes, in the order (row, episode of the row)."""

    returns: NDArray[np.float64]
    episodes: list[Episode]

    @property
    def mean(self) -> float:
        """The mean clean return."""
        return float(self.returns.mean())

    @property
    def standard_error(self) -> float:
        """The standard error of the mean."""
        return float(self.returns.std(ddof=1) / np.sqrt(len(self.returns)))

    def worst_to_best(self, n: int) -> list[Episode]:
        """Return n episodes at evenly spaced ranks of the return, the worst and the best among them."""
        order = np.argsort(self.returns, kind="stable")
        ranks = np.linspace(0, len(order) - 1, min(n, len(order))).round().astype(int)
        return [self.episodes[order[rank]] for rank in ranks]


def make_env(env_id: str, num_envs: int, env_kwargs: Mapping[str, Any]) -> TokenVectorEnv:
    """Return the batched engine of an id, which resets a row in the step that ends it."""
    env = gym.make_vec(
        env_id,
        num_envs=num_envs,
        vectorization_mode="vector_entry_point",
        autoreset_mode=AutoresetMode.SAME_STEP,
        **env_kwargs,
    )
    return cast(TokenVectorEnv, env)


def evaluate(
    agent: Any,
    env: TokenVectorEnv,
    episodes: int,
    seed: int,
    deterministic: bool,
    on_step: Callable[[], None] = lambda: None,
) -> Evaluation:
    """Return what an agent earns in at least `episodes` fresh episodes.

    Every row plays the same number of episodes: rows that finish early would otherwise favour short episodes.

    Args:
        agent: has `predict(observations, deterministic=)`; it is given `action_masks` where it takes them.
        env: an engine that resets in the same step.
        episodes: rounded up to a multiple of the engine's rows.
        seed: of the engine; row i gets seed + i.
        deterministic: greedy, else sampled.
        on_step: called after each step, for progress.
    """
    takes_masks = "action_masks" in inspect.signature(agent.predict).parameters
    quota = -(-episodes // env.num_envs)
    returns = np.zeros((env.num_envs, quota))
    texts: list[list[Episode]] = [[] for _ in range(env.num_envs)]
    running = np.zeros(env.num_envs)
    cached = getattr(getattr(agent, "policy", None), "cached", nullcontext)
    with cached():
        observations, _ = env.reset(seed=seed)
        prompts = observations.copy()
        while any(len(row) < quota for row in texts):
            masks = {"action_masks": env.action_masks()} if takes_masks else {}
            actions, _ = agent.predict(observations, deterministic=deterministic, **masks)
            observations, _, terminated, truncated, infos = env.step(actions)
            running += _column(infos, "reward_clean", env.num_envs)
            ended = np.flatnonzero(terminated | truncated)
            if len(ended):
                final = infos["final_info"]
                running[ended] += _column(final, "reward_clean", env.num_envs)[ended]
                for row in ended.tolist():
                    if len(texts[row]) < quota:
                        returns[row, len(texts[row])] = running[row]
                        told = _told(env, prompts[row], infos["final_obs"][row], final, row)
                        texts[row].append(Episode(*told, reward=float(running[row])))
                running[ended] = 0.0
                prompts[ended] = observations[ended]
            on_step()
    return Evaluation(returns.ravel(), [episode for row in texts for episode in row])


def normalize(env: TokenVectorEnv, value: float) -> float | None:
    """Return the normalised score (0 = random, 1 = optimal), None where the task has no known optimum."""
    try:
        return float(env.normalize(value))
    except NotImplementedError:
        return None


def _column(infos: Mapping[str, Any], key: str, rows: int) -> NDArray[np.float64]:
    """Return a number of every row of a vector environment's infos, 0 where a row has none."""
    if key not in infos:
        return np.zeros(rows)
    present = infos.get(f"_{key}", np.ones(rows, bool))
    return np.where(present, np.asarray(infos[key], float), 0.0)


def _told(
    env: TokenVectorEnv, prompt: NDArray[np.int64], final: NDArray[np.int64], info: Mapping[str, Any], row: Any
) -> tuple[str, str]:
    """Return prompt and completion of a finished row: the task's own texts, else the decoded ids."""
    if "prompt" in info and "completion" in info:
        return str(info["prompt"][row]), str(info["completion"][row])
    length, end = (int((ids != env.vocab_size).sum()) for ids in (prompt, final))
    decode = env.tokenizer.decode
    return decode(final[:length].tolist()), decode(final[length:end].tolist())
