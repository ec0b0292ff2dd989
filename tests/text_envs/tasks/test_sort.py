import pytest

from text_envs import UtteranceEnv
from text_envs.tasks.sort import Sort


@pytest.mark.parametrize("seed", range(5))
def test_counts_positions_that_are_in_order(seed):
    env = UtteranceEnv(Sort(vocab_size=3, length=5))
    for said in ("", "a", "abc", "aabbc", "ccccc"):
        prompt, _ = env.reset(seed=seed)
        right = sum(a == b for a, b in zip(said, sorted(prompt), strict=False))
        assert env.step(said)[1] == right / 5
    prompt, _ = env.reset(seed=seed)
    assert env.step("".join(sorted(prompt)))[1] == 1.0


@pytest.mark.parametrize("keywords", [{"vocab_size": 3, "length": 3}, {"vocab_size": 2, "length": 1}])
def test_values_equal_enumeration(keywords, check_enumeration):
    task = Sort(**keywords)
    check_enumeration(task)
    assert (task.optimal_return(), task.random_return()) == pytest.approx((1.0, 1 / task.vocab_size))


def test_values_equal_simulation(check_simulation):
    check_simulation(Sort())
