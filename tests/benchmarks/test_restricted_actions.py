"""Agents and environments together where actions are restricted, and where they are candidates."""

import gymnasium as gym
import numpy as np
import pytest
import stable_baselines3
from gymnasium.vector import AutoresetMode

import agents
from agents.masks import restricts
from benchmarks.evaluation import make_env
from text_envs import CandidateActions, CandidateVectorActions

SHORT = {
    "PPO": ("TransformerPolicy", {"n_steps": 16}),
    "GRPO": ("TransformerPolicy", {"n_steps": 16, "group_size": 4}),
    "DQN": ("TransformerQPolicy", {"learning_starts": 64}),
}


@pytest.mark.parametrize("name", SHORT)
@pytest.mark.parametrize(
    ("env_id", "keywords"), [("text_envs/Brackets-v0", {"masked": True}), ("text_envs/GuessNumber-v0", {})]
)
def test_our_agents_say_what_is_legal(name: str, env_id: str, keywords: dict) -> None:
    env = make_env(env_id, 8, keywords)
    step, legal = env.step, []

    def checked(actions: np.ndarray) -> tuple:
        legal.append(env.action_masks()[np.arange(8), actions])
        return step(actions)

    env.step = checked
    policy, options = SHORT[name]
    getattr(agents, name)(policy, env, seed=0, device="cpu", **options).learn(256)
    assert len(legal) >= 32 and np.all(legal)


@pytest.mark.parametrize(
    ("env_id", "keywords", "expected"),
    [
        ("text_envs/Copy-v0", {}, False),
        ("text_envs/Brackets-v0", {}, False),
        ("text_envs/Brackets-v0", {"masked": True}, True),
        ("text_envs/GuessNumber-v0", {}, True),
    ],
)
def test_environments_say_whether_they_restrict(env_id: str, keywords: dict, expected: bool) -> None:
    single, batch = gym.make(env_id, **keywords), make_env(env_id, 2, keywords)
    assert single.get_wrapper_attr("restricts") is batch.restricts is expected
    assert restricts(agents.VectorEnvAdapter(batch)) is expected
    utterances = gym.make(env_id, level="utterance", **keywords)
    assert CandidateActions(utterances, "random", 3).restricts  # an absent candidate is masked


def test_stock_algorithms_choose_candidates() -> None:
    env = gym.make_vec(
        "text_envs/Copy-v0",
        num_envs=4,
        vectorization_mode="vector_entry_point",
        autoreset_mode=AutoresetMode.SAME_STEP,
        level="utterance",
    )
    batch = agents.VectorEnvAdapter(CandidateVectorActions(env, "random", k=3))
    options = {"layout": batch.get_attr("candidate_layout")[0]}
    stable_baselines3.PPO(
        agents.CandidatePolicy, batch, n_steps=16, batch_size=64, policy_kwargs=options, device="cpu"
    ).learn(64)
    stable_baselines3.DQN(
        agents.CandidateQPolicy, batch, learning_starts=16, policy_kwargs=options, device="cpu"
    ).learn(64)
