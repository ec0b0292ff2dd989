import itertools

import numpy as np
import pytest

from text_envs import TokenVectorEnv, UtteranceEnv
from text_envs.tasks.delay import Delay


@pytest.mark.parametrize("delay", [0, 1, 3])
def test_only_the_first_symbol_matters(delay):
    env = UtteranceEnv(Delay(vocab_size=2, delay=delay))
    for seed, said in itertools.product(range(3), itertools.product("ab", repeat=delay + 1)):
        prompt, _ = env.reset(seed=seed)
        assert env.step("".join(said))[1] == float(said[0] == prompt)
    prompt, _ = env.reset(seed=0)
    assert env.step(prompt * delay)[1] == 0.0  # cut short


@pytest.mark.parametrize("dense", [False, True])
def test_the_reward_comes_with_the_last_symbol(dense):
    env = TokenVectorEnv(Delay(vocab_size=3, delay=4), 3, dense=dense)
    shown = env.reset(seed=0)[0][:, 0]
    rewards = [env.step(action)[1] for action in (shown, shown, shown * 0, shown * 0, shown * 0)]
    np.testing.assert_array_equal(rewards, [[0.0] * 3] * 4 + [[1.0] * 3])


@pytest.mark.parametrize(
    "keywords", [{"vocab_size": 3, "delay": 2}, {"vocab_size": 2, "delay": 0}, {"vocab_size": 4, "delay": 1}]
)
def test_values_equal_enumeration(keywords, check_enumeration):
    task = Delay(**keywords)
    check_enumeration(task)
    assert (task.optimal_return(), task.random_return()) == pytest.approx((1.0, 1 / task.vocab_size))


def test_values_equal_simulation(check_simulation):
    check_simulation(Delay())


@pytest.mark.parametrize(
    ("keywords", "message"),
    [({"vocab_size": 1}, "vocab_size is at least 2, got 1"), ({"delay": -1}, "delay is at least 0, got -1")],
)
def test_impossible_sizes_are_refused(keywords, message):
    with pytest.raises(ValueError, match=message):
        Delay(**keywords)
