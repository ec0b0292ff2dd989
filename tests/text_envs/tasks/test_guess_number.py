import pytest

from text_envs import UtteranceEnv
from text_envs.tasks.guess_number import GuessNumber


@pytest.mark.parametrize("numbers", [2, 7, 10, 11, 25, 100, 1000])
def test_answers_say_where_the_number_lies(numbers):
    env = UtteranceEnv(GuessNumber(numbers=numbers, turns=12))
    width = len(str(numbers - 1))
    for seed in range(10):
        context, _ = env.reset(seed=seed)
        low, high, terminated, turn, reward = 0, numbers - 1, False, 0, 0.0
        while not terminated:
            middle = (low + high) // 2
            context, reward, terminated, _, _ = env.step(f"{middle:0{width}}")
            low, high = {"<": (low, middle - 1), ">": (middle + 1, high), "=": (middle, middle)}[context[-1]]
            turn += 1
        assert context.endswith(f"{middle:0{width}}=")
        assert reward == pytest.approx(1 - (turn - 1) / 12)


def test_numbers_beyond_the_last_are_masked():
    env = UtteranceEnv(GuessNumber(numbers=25))
    env.reset(seed=0)
    assert env.step("30")[0] == "?3?"
    assert env.step("25")[0] == "?3?25?"
    assert env.step("24")[0][:-1] == "?3?25?24"


@pytest.mark.parametrize(
    ("numbers", "message"),
    [(1, "numbers is at least 2, got 1"), (100_001, "numbers is at most 100,000, got 100,001")],
)
def test_impossible_sizes_are_refused(numbers, message):
    with pytest.raises(ValueError, match=message):
        GuessNumber(numbers=numbers)
