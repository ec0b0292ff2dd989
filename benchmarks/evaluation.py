"""How good an agent is: clean returns of fresh episodes, in our batched engine or any Gymnasium environment."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, SupportsFloat, cast

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from numpy.typing import NDArray

import text_envs
from text_envs.registration import find_spec

gym.register_envs(text_envs)

_ENGINE = f"{text_envs.__name__}.registration:make_vector_env"


@dataclass(frozen=True)
class Episode:
    """One finished episode as text."""

    prompt: str
    completion: str
    reward: float


@dataclass(frozen=True)
class Evaluation:
    """Clean returns of the evaluated episodes, in the order (row, episode of the row).

    Attributes:
        returns: (episodes,), the plain return where an environment tells no clean one.
        episodes: as text, in the same order; empty where the environment has none.
    """

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
        """Return n episodes at evenly spaced ranks of the return, the worst and the best among them.

        No episode where the environment has no text.
        """
        if not self.episodes:
            return []
        order = np.argsort(self.returns, kind="stable")
        ranks = np.linspace(0, len(order) - 1, min(n, len(order))).round().astype(int)
        return [self.episodes[order[rank]] for rank in ranks]


def make_env(env_id: str, num_envs: int, env_kwargs: Mapping[str, Any]) -> Any:
    """Return a vector environment that resets a row in the step that ends it: our engine where the id has it."""
    mode = AutoresetMode.SAME_STEP
    if find_spec(env_id).vector_entry_point == _ENGINE:
        return gym.make_vec(
            env_id, num_envs, vectorization_mode="vector_entry_point", autoreset_mode=mode, **env_kwargs
        )
    return gym.make_vec(
        env_id, num_envs, vectorization_mode="sync", vector_kwargs={"autoreset_mode": mode}, **env_kwargs
    )


def evaluate(
    agent: Any,
    env: VectorEnv,
    episodes: int,
    seed: int,
    deterministic: bool,
    on_step: Callable[[], None] = lambda: None,
) -> Evaluation:
    """Return what an agent earns in at least `episodes` fresh episodes.

    Every row plays the same number of episodes: rows that finish early would otherwise favour short episodes.

    Args:
        agent: has `predict(observations, deterministic=)` -> (actions, state); it is given `action_masks`, or
            `state` and `episode_start`, where it takes them.
        env: a vector environment that resets in the same step.
        episodes: rounded up to a multiple of the environment's rows.
        seed: of the environment; row i gets seed + i.
        deterministic: greedy, else sampled.
        on_step: called after each step, for progress.

    Raises:
        TypeError: if `predict` returns something else.
    """
    takes = inspect.signature(agent.predict).parameters
    quota = -(-episodes // env.num_envs)
    returns: list[list[float]] = [[] for _ in range(env.num_envs)]
    texts: list[list[Episode]] = [[] for _ in range(env.num_envs)]
    total = _Returns(env.num_envs)
    state: Any = None
    began = np.ones(env.num_envs, np.bool_)
    cached = getattr(getattr(agent, "policy", None), "cached", nullcontext)
    with cached():
        observations, _ = env.reset(seed=seed)
        prompts = np.array(observations) if isinstance(observations, np.ndarray) else None
        while any(len(row) < quota for row in returns):
            given: dict[str, Any] = {"action_masks": action_masks(env)} if "action_masks" in takes else {}
            if "episode_start" in takes:
                given |= {"state": state, "episode_start": began}
            said = agent.predict(observations, deterministic=deterministic, **given)
            if not (isinstance(said, tuple) and len(said) == 2):
                raise TypeError(
                    f"{type(agent).__name__}.predict returned a {type(said).__name__}, not (actions, state) as "
                    "every SB3 algorithm does; state is None for an agent without one"
                )
            actions, state = said
            observations, rewards, terminated, truncated, infos = env.step(actions)
            began = terminated | truncated
            total.add(rewards, infos, infos.get("final_info", {}))
            for row in np.flatnonzero(began).tolist():
                value = total.take(row)
                if len(returns[row]) < quota:
                    returns[row].append(value)
                    told = _told(env, prompts, infos, row)
                    texts[row] += [Episode(*told, reward=value)] if told else []
                if prompts is not None:
                    prompts[row] = observations[row]
            on_step()
    return Evaluation(np.array(returns).ravel(), [episode for row in texts for episode in row])


def action_masks(env: VectorEnv) -> NDArray[np.bool_]:
    """Return (B, n), True where an action is allowed: everywhere if the environment does not say."""
    if callable(getattr(env, "action_masks", None)):
        return env.action_masks()  # type: ignore[attr-defined]
    if callable(attribute(env, "action_masks")):
        return np.stack(env.call("action_masks"))  # type: ignore[attr-defined]  # a SyncVectorEnv
    actions = cast(spaces.Discrete, env.single_action_space)
    return np.ones((env.num_envs, int(actions.n)), np.bool_)


def normalize(env: VectorEnv, value: float) -> float | None:
    """Return the normalised score (0 = random, 1 = optimal), None where no optimum is known.

    Raises:
        TypeError: if the environment's `normalize` returns no number.
    """
    scale = attribute(env, "normalize")
    if not callable(scale):
        return None
    try:
        score = scale(value)
    except NotImplementedError:
        return None
    if score is None:
        return None
    if not isinstance(score, SupportsFloat):
        raise TypeError(f"the environment's normalize({value:g}) returned {score!r}, not a number")
    return float(score)


def attribute(env: VectorEnv, name: str) -> Any:
    """Return an attribute of the batch, or else of its first environment, or else None."""
    if hasattr(env, name):
        return getattr(env, name)
    first = next(iter(getattr(env, "envs", ())), None)
    return first.get_wrapper_attr(name) if first is not None and first.has_wrapper_attr(name) else None


class _Returns:
    """Sums of the running episodes: of `reward_clean` where one was told, else of the rewards."""

    def __init__(self, rows: int) -> None:
        self._plain, self._clean = np.zeros(rows), np.zeros(rows)
        self._told = np.zeros(rows, np.bool_)

    def add(self, rewards: NDArray[np.float64], *infos: Mapping[str, Any]) -> None:
        """Add a step: its rewards (B,), the infos of the rows that go on and of those that ended."""
        self._plain += rewards
        for info in infos:
            if "reward_clean" in info:
                present = info.get("_reward_clean", np.ones(len(rewards), np.bool_))
                self._clean += np.where(present, np.asarray(info["reward_clean"], float), 0.0)
                self._told |= present

    def take(self, row: int) -> float:
        """Return a row's sum and begin it again."""
        value = float(self._clean[row] if self._told[row] else self._plain[row])
        self._plain[row], self._clean[row], self._told[row] = 0.0, 0.0, False
        return value


def _told(
    env: VectorEnv, prompts: NDArray[Any] | None, infos: Mapping[str, Any], row: int
) -> tuple[str, str] | None:
    """Return prompt and completion of an ended row: the task's own texts, else the decoded ids, else None."""
    final = infos["final_info"]
    if "prompt" in final and "completion" in final:
        return str(final["prompt"][row]), str(final["completion"][row])
    task = attribute(env, "task")
    if prompts is None or not isinstance(task, text_envs.Task):
        return None
    layout = attribute(env, "candidate_layout")
    room = None if layout is None else layout.context_length  # candidates' ids come after the context's
    prompt, said = prompts[row][:room], infos["final_obs"][row][:room]
    length, end = (int((ids != task.vocab_size).sum()) for ids in (prompt, said))
    return task.tokenizer.decode(said[:length].tolist()), task.tokenizer.decode(said[length:end].tolist())
