import gymnasium as gym
import numpy as np
import pytest

from text_envs import TokenVectorEnv, UtteranceEnv
from text_envs.tasks.bandit import Bandit


def test_an_arm_earns_what_the_table_says():
    task = Bandit(vocab_size=3, contexts=2)
    env = UtteranceEnv(task)
    for seed in range(10):
        for arm in range(3):
            context, _ = env.reset(seed=seed)
            assert context in "ab"
            assert env.step("abc"[arm])[1] == task.payoffs["ab".index(context), arm]
    env.reset(seed=0)
    assert env.step("")[1] == 0.0


def test_many_contexts_are_written_with_several_symbols():
    task = Bandit(vocab_size=2, contexts=5)
    env = TokenVectorEnv(task, 200)
    shown = env.reset(seed=0)[0][:, :3]
    arms = np.arange(200) % 2
    rewards = env.step(arms)[1]
    numbers = [int("".join(map(str, row)), 2) for row in shown]
    assert set(numbers) == set(range(5))
    np.testing.assert_array_equal(
        rewards, [task.payoffs[number, arm] for number, arm in zip(numbers, arms, strict=True)]
    )


@pytest.mark.parametrize("keywords", [{}, {"vocab_size": 2, "contexts": 5}, {"contexts": 1}])
def test_values_equal_the_table_enumeration_and_simulation(keywords, check_enumeration, check_simulation):
    task = Bandit(**keywords)
    assert task.optimal_return() == pytest.approx(np.mean([max(row) for row in task.payoffs.tolist()]))
    assert task.random_return() == pytest.approx(task.payoffs.mean())
    assert task.values.method == "enumerated"
    check_enumeration(task)
    check_simulation(task)


def test_the_table_belongs_to_the_environment():
    assert (Bandit().payoffs == Bandit(table_seed=0).payoffs).all()
    assert len({Bandit(table_seed=seed).payoffs[0, 0] for seed in range(20)}) == 20
    payoffs = Bandit(vocab_size=100, contexts=100).payoffs
    assert 0 <= payoffs.min() and payoffs.max() < 1 and abs(payoffs.mean() - 0.5) < 0.01


def test_noise_leaves_the_values_alone():
    noisy = gym.make("text_envs/Bandit-v0", reward_noise=1.0).unwrapped
    assert noisy.optimal_return() == Bandit().optimal_return()


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"vocab_size": 1}, "vocab_size is at least 2, got 1"),
        ({"contexts": 0}, "contexts is at least 1, got 0"),
        ({"table_seed": -1}, "non-negative integer, got -1"),
    ],
)
def test_impossible_sizes_are_refused(keywords, message):
    with pytest.raises(ValueError, match=message):
        Bandit(**keywords)
