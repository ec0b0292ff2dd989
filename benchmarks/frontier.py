"""The trials of suite `frontier`: reward against KL on NGram, where the best reward at each KL is known exactly."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray
from torch import Tensor, nn

import agents
from agents.losses import guided_log_probs
from text_envs import exact
from text_envs.tasks.ngram import NGram

from .evaluation import make_env
from .suites import Experiment, resolve
from .trial import CURVE_POINTS, EVALUATE, TRAIN, LearningCurve, Report, derived_seed

EPISODES = 4096  # of a measurement, all at once
_PRICES = np.geomspace(2.0, 0.002, 100).tolist()  # that the exact curve is drawn through


class NGramModel(nn.Module):
    """The task's own language model as a module of log-probabilities, a `reference` of our agents.

    Args:
        task: whose model it is.
    """

    def __init__(self, task: NGram) -> None:
        super().__init__()
        self.table: Tensor
        self.vocab_size, self.symbols = task.vocab_size, task.max_prompt_tokens
        self.register_buffer("table", torch.as_tensor(np.log(task.reference), dtype=torch.float32))

    def forward(self, ids: Tensor) -> Tensor:
        """Return (B, T, V) of ids (B, T); before a context is whole, symbol 0 stands for what is missing."""
        state = torch.zeros_like(ids)
        for back in range(self.symbols):
            earlier = nn.functional.pad(ids, (back, 0))[:, : ids.shape[1]]
            state = state + earlier * self.vocab_size**back
        return self.table[state]


def ppo(env: VectorEnv, seed: int, beta: float) -> agents.PPO:
    """Return our PPO, charged beta for each nat of KL to the language model."""
    return agents.PPO("TransformerPolicy", env, reference=NGramModel(ngram_task(env)), kl_coef=beta, seed=seed)


def dqn(env: VectorEnv, seed: int, beta: float) -> agents.DQN:
    """Return our soft DQN, which draws from reference * exp(Q / beta)."""
    return agents.DQN(
        "TransformerQPolicy",
        env,
        exploration="reference",
        reference=NGramModel(ngram_task(env)),
        temperature=beta,
        seed=seed,
    )


def trial(experiment: Experiment, seed: int, report: Report) -> dict[str, Any]:
    """Return the fields of a row: the training, and the policy's reward and KL on fresh episodes."""
    env = make_env(experiment.env_id, experiment.num_envs, experiment.env_kwargs)
    agent = resolve(experiment.factory)(env, derived_seed(seed, TRAIN), **experiment.agent_kwargs)
    interval = max(1, experiment.steps // CURVE_POINTS)
    started = time.perf_counter()
    agent.learn(experiment.steps, callback=LearningCurve(interval, experiment.steps, report))
    seconds = time.perf_counter() - started
    env.close()
    fresh = make_env(experiment.env_id, EPISODES, experiment.env_kwargs)
    measured = measure(agent, fresh, derived_seed(seed, EVALUATE))
    task = ngram_task(fresh)
    fresh.close()
    return {
        "steps": int(agent.num_timesteps),
        "train_seconds": round(seconds, 3),
        "measurement": {
            **measured,
            "episodes": EPISODES,
            "frontier_reward": float(np.interp(measured["kl"], *curve(task))),
            "reference_reward": task.reference_return(),
            "optimal_reward": task.optimal_return(),
        },
    }


def measure(agent: Any, env: VectorEnv, seed: int) -> dict[str, float]:
    """Return the mean clean reward and KL of an episode a row, sampled, with their standard errors; see `play`."""
    rewards, kl, _ = play(agent, env, seed)
    return {**with_error("reward", rewards), **with_error("kl", kl)}


@torch.no_grad()
def play(agent: Any, env: VectorEnv, seed: int) -> tuple[NDArray[np.float64], NDArray[np.float64], dict[str, Any]]:
    """Return the rewards and KL of an episode a row, sampled, and the last infos.

    The KL is that of the whole distributions over the vocabulary, summed over the states that were visited: its
    expectation is the KL between the distributions of texts, and it varies less than the sampled log-ratio.

    Args:
        agent: our PPO, or our DQN with a reference.
        env: resets in the same step; all of its episodes are equally long.
        seed: of the prompts and of the sampling.
    """
    torch.manual_seed(seed)
    rewards, kl = np.zeros(env.num_envs), np.zeros(env.num_envs)
    obs, infos = env.reset(seed=seed)
    agent.policy.set_training_mode(False)
    ended = np.zeros(env.num_envs, bool)
    while not ended.any():
        ids = torch.as_tensor(obs, device=agent.device)
        ours, theirs = _log_probs(agent, ids), agent.reference_policy.step_log_probs(ids)
        kl += (ours.exp() * (ours - theirs)).sum(dim=1).cpu().numpy()
        actions = torch.distributions.Categorical(logits=ours).sample().cpu().numpy()
        obs, reward, terminated, truncated, infos = env.step(actions)
        rewards += reward
        ended = terminated | truncated
    return rewards, kl, infos


def with_error(name: str, values: NDArray[np.float64]) -> dict[str, float]:
    """Return the mean of values under a name, and its standard error."""
    error = float(values.std(ddof=1) / np.sqrt(len(values)))
    return {name: float(values.mean()), f"{name}_error": error}


def _log_probs(agent: Any, ids: Tensor) -> Tensor:
    """Return (B, V) log-probabilities of the actions that the agent samples at observations (B, L)."""
    if hasattr(agent, "q_net"):
        prior = agent.reference_policy.step_log_probs(ids)
        return guided_log_probs(agent.policy.q_net(ids), agent.temperature, prior)
    return agent.policy.get_distribution(ids).distribution.logits


def curve(task: NGram) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the exact frontier as KL (n,), from 0 upwards, and the largest reward (n,) at each."""
    machine = task.automaton(task.cases()[0])
    points = exact.frontier(machine, task.reference, _PRICES)
    kl, reward = np.array([(0.0, task.reference_return()), *((point.kl, point.reward) for point in points)]).T
    return kl, reward


def ngram_task(env: Any) -> NGram:
    """Return the task of an environment of NGram."""
    task = env.unwrapped.task
    assert isinstance(task, NGram)
    return task
