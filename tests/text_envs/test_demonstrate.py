"""Environments demonstrate: playing what they say earns what is best, alone and in a batch, turn after turn."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.error import ResetNeeded

import text_envs  # noqa: F401  (registers the ids)

BATCHED = {"vectorization_mode": "vector_entry_point"}


@pytest.mark.parametrize(("name", "level"), [("Sort", "token"), ("GuessNumber", "token"), ("Sort", "utterance")])
def test_demonstrations_played_token_by_token_are_optimal(name: str, level: str) -> None:
    env = gym.make(f"text_envs/{name}-v0", level=level)
    returns = []
    for episode in range(64):
        env.reset(seed=episode)
        total, over, queue = 0.0, False, []
        while not over:
            queue = queue or list(env.unwrapped.demonstrate())
            if level == "utterance":
                action, queue = env.unwrapped.task.codec.decode(queue), []
            else:
                action = queue.pop(0)
            _, reward, over, _, _ = env.step(action)
            total += reward
        returns.append(total)
    assert np.mean(returns) == pytest.approx(env.unwrapped.optimal_return(), abs=0.1)


def test_a_batch_demonstrates_what_its_rows_do_alone_and_an_open_utterance_does_not_matter() -> None:
    envs = gym.make_vec("text_envs/Sort-v0", num_envs=3, **BATCHED)
    with pytest.raises(ResetNeeded, match="reset"):
        envs.unwrapped.demonstrate()
    envs.reset(seed=5)
    shown = envs.unwrapped.demonstrate()
    for row, said in enumerate(shown):
        env = gym.make("text_envs/Sort-v0")
        env.reset(seed=5 + row)
        assert env.unwrapped.demonstrate() == said
    envs.step(np.zeros(3, np.int64))
    assert envs.unwrapped.demonstrate() == shown


def test_a_task_without_a_best_utterance_says_so() -> None:
    env = gym.make("text_envs/Keywords-v0").unwrapped
    with pytest.raises(ResetNeeded):
        env.demonstrate()
    env.reset(seed=0)
    with pytest.raises(NotImplementedError, match="no exact values"):
        env.demonstrate()
