"""The adapter speaks SB3's dialect."""

from collections.abc import Callable

import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import TimeLimit
from stable_baselines3.common.monitor import Monitor

from agents import VectorEnvAdapter


def test_final_observation_return_and_length(vector_env: Callable) -> None:
    env = VectorEnvAdapter(vector_env(4))
    env.seed(3)
    observations = env.reset()
    rng = np.random.default_rng(0)
    returns, lengths, finished = np.zeros(4), np.zeros(4, int), 0
    for _ in range(60):
        actions = rng.integers(7, size=4)
        following, rewards, ended, infos = env.step(actions)
        returns += rewards
        lengths += 1
        for row in range(4):
            if not ended[row]:
                assert infos[row] == {}
                continue
            finished += 1
            info = infos[row]
            last = observations[row].copy()
            last[(last != 7).sum()] = actions[row]
            assert (info["terminal_observation"] == last).all()
            assert info["episode"]["r"] == pytest.approx(returns[row]) and info["episode"]["l"] == lengths[row]
            assert info["TimeLimit.truncated"] is False
            returns[row], lengths[row] = 0, 0
        observations = following
    assert finished > 10


def test_seeds_reach_the_rows(vector_env: Callable) -> None:
    contexts = []
    for _ in range(2):
        env = VectorEnvAdapter(vector_env(3))
        env.seed(11)
        contexts.append(env.reset())
    assert (contexts[0] == contexts[1]).all()
    expected = vector_env(3).reset(seed=[11, 12, 13])[0]
    assert (contexts[0] == expected).all()


def test_a_time_limit_is_told(token_env: type) -> None:
    envs = SyncVectorEnv([lambda: TimeLimit(token_env(), 2)] * 2, autoreset_mode=AutoresetMode.SAME_STEP)
    env = VectorEnvAdapter(envs)
    env.reset()
    env.step(np.array([1, 1]))
    _, _, ended, infos = env.step(np.array([1, 1]))
    assert ended.all() and all(info["TimeLimit.truncated"] for info in infos)


def test_another_reset_mode_is_refused(token_env: type) -> None:
    with pytest.raises(ValueError, match=r"autoreset_mode=.*NEXT_STEP.*SAME_STEP"):
        VectorEnvAdapter(SyncVectorEnv([token_env]))


def test_attributes_and_methods(vector_env: Callable) -> None:
    env = VectorEnvAdapter(vector_env(3))
    assert env.get_attr("num_envs") == [3, 3, 3] and env.get_attr("num_envs", [1]) == [3]
    assert env.env_is_wrapped(Monitor) == [True] * 3
    env.set_attr("something", 5)
    assert env.get_attr("something") == [5] * 3
    with pytest.raises(ValueError, match="share 'something'"):
        env.set_attr("something", 5, indices=[0])
    env.close()
