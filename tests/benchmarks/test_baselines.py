"""What suites hold against our agents is given a fair chance."""

import gymnasium as gym
import numpy as np
import pytest
import stable_baselines3
import torch
from gymnasium import spaces

from benchmarks.baselines import random_agent, stock_dqn
from benchmarks.evaluation import evaluate, make_env


@pytest.fixture
def dqn():
    return stock_dqn(make_env("text_envs/Copy-v0", 256, {"vocab_size": 8, "length": 4}), seed=0)


def test_rows_of_stock_dqn_explore_apart(dqn):
    """A share `exploration_rate` in every step; Stable-Baselines3 itself lets all rows explore, or none."""
    observations = np.zeros((4096, dqn.model.observation_space.shape[0]), np.int64)
    greedy, _ = dqn.predict(observations, deterministic=True)
    assert np.unique(greedy).size == 1
    dqn.model.exploration_rate = 0.4
    for _ in range(3):
        said, _ = dqn.predict(observations)
        assert abs((said != greedy).mean() - 0.4 * 7 / 8) < 0.04
    dqn.model.exploration_rate = 0.0
    assert (dqn.predict(observations)[0] == greedy).all()


def test_training_of_stock_dqn_is_stock():
    env = {"vocab_size": 8, "length": 4, "dense": True}
    ours = stock_dqn(make_env("text_envs/Copy-v0", 4, env), seed=1)
    ours.learn(400)
    again = stock_dqn(make_env("text_envs/Copy-v0", 4, env), seed=1).model
    assert type(again) is stable_baselines3.DQN
    again.learn(400)
    assert ours.num_timesteps == again.num_timesteps == 400
    for here, there in zip(ours.model.policy.parameters(), again.policy.parameters(), strict=True):
        assert torch.equal(here, there)


class Judge(gym.Env):
    """Pays 1 for an action of its space."""

    observation_space = spaces.Dict(seen=spaces.Discrete(2))

    def __init__(self, actions):
        self.action_space = actions

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return {"seen": 0}, {}

    def step(self, action):
        return {"seen": 1}, float(self.action_space.contains(action)), True, False, {}


@pytest.mark.parametrize(
    "actions",
    [
        spaces.Discrete(3, start=5),
        spaces.Box(-1, 1, (2,), np.float32),
        spaces.MultiDiscrete([2, 3]),
        spaces.MultiBinary(3),
        spaces.Dict(go=spaces.Box(0, 1, (1,)), say=spaces.Discrete(4)),
        spaces.Tuple((spaces.Discrete(2), spaces.Discrete(3, start=1))),
    ],
    ids=str,
)
def test_random_actions_of_any_space(actions):
    env = gym.vector.SyncVectorEnv([lambda: Judge(actions)] * 4, autoreset_mode=gym.vector.AutoresetMode.SAME_STEP)
    said = []
    for seed in (0, 0, 1):
        agent = random_agent(env, seed)
        assert evaluate(agent, env, 8, seed=0, deterministic=False).mean == 1.0
        given = {"action_masks": np.ones((256, 3), bool)} if isinstance(actions, spaces.Discrete) else {}
        given = given or {"episode_start": np.ones(256, bool)}
        said.append(str(agent.predict(None, **given)[0]))
    assert said[0] == said[1] != said[2]
