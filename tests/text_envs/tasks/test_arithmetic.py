import itertools
import operator

import numpy as np
import pytest

from text_envs import TokenVectorEnv, UtteranceEnv
from text_envs.tasks.arithmetic import Arithmetic

FUNCTIONS = {"+": operator.add, "-": operator.sub, "*": operator.mul}


def answer_to(prompt, task):
    """Return the result of a prompt, calculated by Python's integers."""
    assert prompt[-1] == "="
    (sign,) = {c for c in prompt if c in FUNCTIONS}
    first, second = prompt[:-1].split(sign)
    for number in (first, second):
        assert number == "0" or not number.startswith("0")
    result = FUNCTIONS[sign](int(first, task.base), int(second, task.base))
    text = "-" * (result < 0) + np.base_repr(abs(result), task.base).lower()
    return text[::-1] if task.reverse else text


def fraction(said, answer, task):
    """Return the share of right tokens, the end token written as "."."""
    spoken = (said + ".")[: task.max_new_tokens]
    return sum(a == b for a, b in zip(spoken, answer + ".", strict=False)) / (len(answer) + 1)


KEYWORDS = [
    {},
    {"operations": "-", "reverse": True},
    {"operations": "*+-", "digits": 1},
    {"operations": "+-*", "digits": 3, "base": 16, "reverse": True},
    {"operations": "*", "digits": 5, "base": 36},
    {"operations": "*", "digits": 8},
]


@pytest.mark.parametrize("keywords", KEYWORDS)
def test_the_result_earns_1_and_others_the_share_of_right_tokens(keywords):
    task = Arithmetic(**keywords)
    env = UtteranceEnv(task)
    for seed in range(40):
        prompt, _ = env.reset(seed=seed)
        answer = answer_to(prompt, task)
        assert len(answer) < task.max_new_tokens
        for said in (answer, "", "0", answer[:-1], answer + "0", answer[::-1], "1" * task.max_new_tokens):
            env.reset(seed=seed)
            assert env.step(said)[1] == pytest.approx(fraction(said, answer, task), abs=1e-15)


def test_numbers_and_operations_are_uniform():
    task = Arithmetic(operations="+-")
    prompts = [task.codec.decode(row[row < task.vocab_size]) for row in TokenVectorEnv(task, 2000).reset(seed=0)[0]]
    assert abs(sum("+" in prompt for prompt in prompts) - 1000) < 90  # four standard deviations
    assert abs(sum(prompt[1] in "+-" for prompt in prompts) - 200) < 54  # one number in ten has one digit


@pytest.mark.parametrize(
    "keywords",
    [
        {"base": 2, "digits": 1},
        {"base": 2, "digits": 1, "operations": "-+"},
        {"base": 3, "digits": 1, "reverse": True},
    ],
)
def test_values_equal_enumeration(keywords, check_enumeration, enumerate_returns):
    task = Arithmetic(**keywords)
    check_enumeration(task, range(6))
    everything = [enumerate_returns(task, seed) for seed in range(6)]
    assert {returns.max() for returns, _ in everything} == {1.0}


@pytest.mark.parametrize("keywords", [{}, {"base": 2, "digits": 2, "operations": "+-*"}])
def test_the_random_value_is_the_mean_over_all_prompts(keywords):
    task = Arithmetic(**keywords)
    numbers = [np.base_repr(number, task.base) for number in range(task.base ** keywords.get("digits", 2))]
    values = []
    for first, sign, second in itertools.product(numbers, task.operations, numbers):
        tokens = len(answer_to(f"{first}{sign}{second}=", task)) + 1
        values.append(
            (1 - (1 - 1 / task.vocab_size) ** tokens) / tokens
        )  # each right with chance 1 / V, if not ended
    assert task.values.method == "symmetry" and task.random_return() == pytest.approx(np.mean(values))


@pytest.mark.parametrize("keywords", [{}, {"operations": "+-*", "reverse": True}, {"digits": 6}])
def test_values_equal_simulation(keywords, check_simulation):
    task = Arithmetic(**keywords)
    check_simulation(task)
    assert task.values.method == ("sampled" if "digits" in keywords else "symmetry")
    assert 0 < task.random_return() < 1 / task.vocab_size


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"digits": 0}, "digits is at least 1, got 0"),
        ({"digits": 9}, "9 digits in base 10 are more than 64 bits can multiply; lower either"),
        ({"base": 1}, "base is at least 2, got 1"),
        ({"base": 37}, "base is at most 36, got 37"),
        ({"operations": ""}, "each once, got ''"),
        ({"operations": "++"}, r"each once, got '\+\+'"),
        ({"operations": "/"}, "each once, got '/'"),
        ({"operations": ["+"]}, r"each once, got \['\+'\]"),
    ],
)
def test_impossible_tasks_are_refused(keywords, message):
    with pytest.raises(ValueError, match=message):
        Arithmetic(**keywords)
