"""Environments that break the contract of token environments are told so; nothing is learned from them."""

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import stable_baselines3
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from stable_baselines3.common.buffers import ReplayBuffer, RolloutBuffer
from stable_baselines3.common.vec_env import DummyVecEnv, VecFrameStack, VecNormalize

import agents
import text_envs
from agents.reading import check_contexts

gym.register_envs(text_envs)

V = 7
OPTIONS: dict[str, dict[str, Any]] = {
    "PPO": {"n_steps": 8, "batch_size": 16},
    "GRPO": {"n_steps": 8, "batch_size": 16, "group_size": 2},
    "BestOfN": {"n_steps": 8, "batch_size": 16, "n": 2},
    "DQN": {"learning_starts": 16, "batch_size": 16},
}


def make(name: str, env: Any, **keywords: Any) -> Any:
    policy = "TransformerQPolicy" if name == "DQN" else "TransformerPolicy"
    return getattr(agents, name)(policy, env, seed=0, device="cpu", **{**OPTIONS[name], **keywords})


def batch(env: Callable) -> SyncVectorEnv:
    return SyncVectorEnv([env] * 4, autoreset_mode=AutoresetMode.SAME_STEP)


def changed(token_env: type, change: Callable[[np.ndarray, int], Any], what: str) -> Callable:
    """Return a class of environments whose `what` (observation or reward) is changed after some steps."""

    class Changed(token_env):
        def step(self, action: int) -> tuple:
            observation, reward, *rest = super().step(action)
            if what == "reward":
                return observation, change(reward, self.steps), *rest
            return change(observation, self.steps), reward, *rest

    return Changed


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_a_reward_that_is_no_number_stops_before_it_is_learned_from(
    token_env: type, name: str, value: float
) -> None:
    model = make(name, batch(changed(token_env, lambda reward, steps: value if steps == 2 else reward, "reward")))
    before = [parameter.clone() for parameter in model.policy.parameters()]
    with pytest.raises(ValueError, match=f"row . of the environment earned {value}, which nothing can be learned"):
        model.learn(200)
    for old, new in zip(before, model.policy.parameters(), strict=True):
        assert torch.equal(old, new)


def test_the_best_of_n_is_not_measured_by_nan(token_env: type) -> None:
    model = make("BestOfN", batch(changed(token_env, lambda reward, steps: np.nan, "reward")))
    with pytest.raises(ValueError, match="earned nan"):
        model.best_returns(4)


def slid(observation: np.ndarray, steps: int) -> np.ndarray:
    """Return the observation without its first token from the third step on, as of a window that moves."""
    return observation if steps < 3 else np.append(observation[1:], V)


@pytest.mark.parametrize("name", ["PPO", "GRPO", "DQN"])
def test_contexts_only_grow(token_env: type, name: str) -> None:
    with pytest.raises(
        ValueError, match=r"row . .* changed what its context held before.*tokens are only appended"
    ):
        make(name, batch(changed(token_env, slid, "observation"))).learn(400)


def test_an_empty_prompt_is_told(token_env: type) -> None:
    class Silent(token_env):
        def reset(self, **keywords: Any) -> tuple:
            observation, info = super().reset(**keywords)
            return np.full_like(observation, V), info

    for name in ("PPO", "DQN"):
        with pytest.raises(ValueError, match="holds no token, only the padding 7"):
            make(name, batch(Silent), **({"learning_starts": 0} if name == "DQN" else {})).learn(64)


@pytest.mark.parametrize("name", ["PPO", "GRPO", "DQN"])
def test_scaled_ids_are_refused_at_once(token_env: type, name: str) -> None:
    with pytest.raises(ValueError, match="norm_obs=True. turns token ids into other numbers"):
        make(name, VecNormalize(DummyVecEnv([token_env] * 4)))
    model = make(name, VecNormalize(DummyVecEnv([token_env] * 4), norm_obs=False))
    model.learn(64)
    with pytest.raises(ValueError, match="norm_obs=True"):
        model.set_env(VecNormalize(DummyVecEnv([token_env] * 4)))


def test_scaled_and_stacked_ids_are_refused_in_stock_algorithms(token_env: type) -> None:
    for wrap, message in (
        (VecNormalize, "no token id 0..6 nor the padding 7; ids are read as they are"),
        (lambda env: VecFrameStack(env, 2), "goes on after the padding 7"),
    ):
        env = wrap(DummyVecEnv([token_env] * 2))
        with pytest.raises(ValueError, match=message):
            stable_baselines3.PPO(agents.TransformerPolicy, env, n_steps=8, batch_size=8, device="cpu").learn(32)


@pytest.mark.parametrize("kind", [np.asarray, torch.as_tensor])
@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([[1, V, 2, V]], "goes on after the padding 7"),
        ([[1, 2, V, V], [V, V, 1, 2]], "padded on the right only"),
        ([[V, V, V, V]], "holds no token"),
        ([[1, -1, V, V]], "holds -1, which is no token id"),
        ([[1, 8, V, V]], "holds 8, which"),
        ([[1, 1.5, V, V]], "holds 1.5, which"),
        ([[1, np.nan, V, V]], "holds nan, which"),
        (np.zeros((0, 4), np.int64), "there is no observation"),
    ],
)
def test_what_is_no_context_is_refused(kind: Callable, rows: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_contexts(kind(rows), V)


@pytest.mark.parametrize("kind", [np.asarray, torch.as_tensor])
@pytest.mark.parametrize("rows", [[[0, 1, V], [6, V, V], [0, 0, 0]], [[0.0, 1.0, 7.0]]])
def test_contexts_pass(kind: Callable, rows: Any) -> None:
    check_contexts(kind(rows), V)


def test_predict_refuses_what_is_no_context(vector_env: Callable) -> None:
    model = make("PPO", vector_env(4))
    observations = np.full((2, 14), V)
    observations[:, -2:] = 1
    for cached in (False, True):
        with pytest.raises(ValueError, match="padded on the right only"):
            if cached:
                with model.policy.cached():
                    model.predict(observations)
            else:
                model.predict(observations)


@pytest.mark.parametrize("name", ["PPO", "GRPO", "DQN"])
def test_stock_buffers_are_refused(vector_env: Callable, name: str) -> None:
    keyword, buffer = (
        ("replay_buffer_class", ReplayBuffer) if name == "DQN" else ("rollout_buffer_class", RolloutBuffer)
    )
    with pytest.raises(
        TypeError, match=f"{keyword}={buffer.__name__} does not keep episodes whole; give .*Buffer or"
    ):
        make(name, vector_env(4), **{keyword: buffer})


@pytest.mark.parametrize("batched", [False, True])
def test_texts_are_refused_by_name(batched: bool) -> None:
    make_env = gym.make_vec if batched else gym.make
    with pytest.raises(ValueError, match=r'a text; these agents read and say tokens: .*level="token"'):
        make("PPO", make_env("text_envs/Copy-v0", level="utterance"))
