"""What suites hold against our agents is given a fair chance."""

import numpy as np
import pytest
import stable_baselines3
import torch

from benchmarks.baselines import stock_dqn
from benchmarks.evaluation import make_env


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
