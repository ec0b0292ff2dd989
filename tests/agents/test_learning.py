"""Each algorithm solves a trivial environment in seconds, and the same seed gives the same run."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

import agents

SHORT = {"PPO": {"n_steps": 16}, "DQN": {"learning_starts": 100}}
POLICIES = {"PPO": "TransformerPolicy", "DQN": "TransformerQPolicy"}


def mean_return(model: agents.PPO | agents.DQN, env: object) -> float:
    """Return the mean return of 200 greedy episodes."""
    returns, running = [], np.zeros(env.num_envs)
    observations, _ = env.reset(seed=123)
    with model.policy.cached():
        while len(returns) < 200:
            actions, _ = model.predict(observations, deterministic=True)
            observations, rewards, terminated, _, _ = env.step(actions)
            running += rewards
            returns += list(running[terminated])
            running[terminated] = 0
    return float(np.mean(returns))


@pytest.mark.parametrize(("name", "steps"), [("PPO", 12_000), ("DQN", 12_000)])
def test_it_learns_a_trivial_task(vector_env: Callable, name: str, steps: int) -> None:
    model = getattr(agents, name)(POLICIES[name], vector_env(16), seed=0, device="cpu")
    before = mean_return(model, vector_env(16))
    model.learn(steps)
    best = 10.5  # 9 to 12 tokens fit after a prompt of 4 to 1, each worth 1
    assert before < 0.4 * best
    assert mean_return(model, vector_env(16)) > 0.8 * best


@pytest.mark.parametrize("name", POLICIES)
def test_the_same_seed_gives_the_same_weights(vector_env: Callable, name: str) -> None:
    weights = []
    for _ in range(2):
        model = getattr(agents, name)(POLICIES[name], vector_env(4), seed=7, device="cpu")
        model.learn(2000)
        weights.append(model.policy.state_dict())
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


@pytest.mark.parametrize("name", POLICIES)
def test_short_calls_of_learn_train_too(vector_env: Callable, name: str) -> None:
    model = getattr(agents, name)(POLICIES[name], vector_env(16), seed=0, device="cpu", **SHORT.get(name, {}))
    for _ in range(3):
        before = {key: value.clone() for key, value in model.policy.state_dict().items()}
        model.learn(256, reset_num_timesteps=False)
        assert any((value != before[key]).any() for key, value in model.policy.state_dict().items())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("dtype", [None, "bfloat16"])
def test_it_runs_on_cuda(vector_env: Callable, name: str, dtype: str | None) -> None:
    model = getattr(agents, name)(POLICIES[name], vector_env(8), policy_kwargs={"dtype": dtype}, device="cuda")
    model.learn(2000)
    assert {parameter.device.type for parameter in model.policy.parameters()} == {"cuda"}
