"""The adapter speaks SB3's dialect."""

from collections.abc import Callable

import numpy as np
import pytest
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
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


def test_what_a_turn_earns_is_told_when_it_closes(paid_env: Callable) -> None:
    env = VectorEnvAdapter(paid_env(4))
    env.reset()
    rng, clean, between = np.random.default_rng(0), np.zeros(4), 0
    for _ in range(60):
        _, _, ended, infos = env.step(rng.integers(7, size=4))
        clean += [info.get("reward_clean", 0.0) for info in infos]
        assert all(set(info) <= {"reward_clean"} for info, over in zip(infos, ended, strict=True) if not over)
        between += sum("reward_clean" in info for info, over in zip(infos, ended, strict=True) if not over)
        for row in np.flatnonzero(ended):
            assert clean[row] == pytest.approx(infos[row]["episode"]["r"])
            clean[row] = 0
    assert between > 10


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
    with pytest.raises(ValueError, match="share 'num_envs'"):
        env.set_attr("num_envs", 5, indices=[0])
    env.close()


@pytest.mark.parametrize("vector", [SyncVectorEnv, AsyncVectorEnv])
def test_attributes_are_set_where_they_are_read(token_env: type, vector: type) -> None:
    env = VectorEnvAdapter(vector([token_env] * 3, autoreset_mode=AutoresetMode.SAME_STEP))
    try:
        env.set_attr("reply", 2)
        assert list(env.env.call("reply")) == [2] * 3 == env.get_attr("reply")
        env.set_attr("reply", 4, indices=[1])
        assert list(env.env.call("reply")) == [2, 4, 2] == env.get_attr("reply")
        with pytest.raises(AttributeError, match="not all rows have an attribute 'something'"):
            env.set_attr("something", 5, indices=[0])
        env.set_attr("something", [5, 6])
        assert env.get_attr("something") == [[5, 6]] * 3
    finally:
        env.close()


def test_options_reach_the_reset(vector_env: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    env = VectorEnvAdapter(vector_env(3))
    seen = []
    monkeypatch.setattr(env.env, "reset", lambda seed, options: seen.append(options) or (np.zeros(3), {}))
    env.set_options({"level": 2})
    env.reset()
    env.reset()  # options are for one reset
    env.set_options([{"level": 1}, {"level": 1}, {"level": 2}])
    with pytest.raises(ValueError, match="reset options differ from row to row .*set_options"):
        env.reset()
    assert seen == [{"level": 2}, None]
