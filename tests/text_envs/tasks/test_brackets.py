"""Brackets: scores against a stack in plain Python, exact values against every utterance."""

import collections

import numpy as np
import pytest

from text_envs import TokenEnv, TokenVectorEnv, UtteranceEnv, exact
from text_envs.streams import RowRandom, Stream
from text_envs.tasks.brackets import Brackets

CLOSING = {")": "(", "]": "[", "}": "{", ">": "<"}


def left_open(text):
    """Return the stack after a text, None after a mistake."""
    stack = []
    for symbol in text:
        if symbol not in CLOSING:
            stack.append(symbol)
        elif not stack or stack.pop() != CLOSING[symbol]:
            return None
    return stack


def worth(prompt, said, depth):
    stack = left_open(prompt + said)
    return 0.0 if stack is None else max(0.0, 1 - len(stack) / depth)


def prompts(task, count):
    samples = task.sample(RowRandom(np.arange(count), 0, Stream.PROMPT))
    return [task.codec.decode(row) for row in samples.tokens]


def test_scores_are_those_of_a_stack():
    task = Brackets(kinds=2, depth=3, pairs=2, length=7)
    env, rng, seen = UtteranceEnv(task), np.random.default_rng(0), collections.Counter()
    for seed in range(400):
        prompt, _ = env.reset(seed=seed)
        stack = left_open(prompt)
        right = "".join({"(": ")", "[": "]"}[symbol] for symbol in reversed(stack))
        said = right[: rng.integers(4)] + "".join(rng.choice(list("()[]"), rng.integers(5)))
        reward = env.step(said)[1]
        assert reward == worth(prompt, said, 3), (prompt, said)
        seen[reward] += 1
    assert len(seen) == 4 and min(seen.values()) > 10


def test_prompts_leave_so_many_open_and_are_uniform():
    shown = collections.Counter(prompts(Brackets(kinds=2, depth=2, pairs=1), 14_000))
    assert all(len(left_open(prompt)) == 2 for prompt in shown)
    assert len(shown) == 3 * 2**3  # "()" before, between or after the open ones
    assert all(abs(count - 14_000 / 24) < 5 * np.sqrt(14_000 / 24) for count in shown.values())
    assert set(prompts(Brackets(kinds=1, depth=3, pairs=0), 5)) == {"((("}


def test_dense_pays_each_bracket_and_takes_all_back():
    task = Brackets(kinds=1, depth=2, pairs=0, length=5)
    env = TokenEnv(task, dense=True)
    env.reset(seed=0)
    opening, closing, end = 0, 1, 2
    assert [env.step(token)[1] for token in (closing, opening, closing, closing)] == [0.5, -0.5, 0.5, 0.5]
    assert env.step(end)[1] == 0.0
    env.reset()
    assert [env.step(token)[1] for token in (closing, closing, closing, opening)] == [0.5, 0.5, -1.0, 0.0]


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(
    "keywords",
    [
        {"kinds": 1, "depth": 2, "length": 6},
        {"kinds": 2, "depth": 1, "length": 5},
        {"kinds": 2, "depth": 2, "length": 4},
    ],
)
def test_the_machine_is_the_environment(check_enumeration, keywords, masked):
    check_enumeration(Brackets(**keywords, masked=masked))


@pytest.mark.parametrize("masked", [False, True])
def test_values_are_those_of_simulation(check_simulation, masked):
    task = Brackets(masked=masked)
    check_simulation(task)
    assert task.optimal_return() == pytest.approx(1.0)


@pytest.mark.parametrize("masked", [False, True])
def test_one_prompt_stands_for_all(masked):
    task = Brackets(kinds=2, depth=3, pairs=2, length=6, masked=masked)
    machine = task.automaton(task.sample(RowRandom(np.arange(50), 0, Stream.PROMPT)))
    assert len(set(machine.start)) == 2**3
    for value in (exact.solve(machine), exact.evaluate(machine, machine.uniform())):
        np.testing.assert_allclose(value, value[0])


def test_mistakes_are_masked_and_cost_one():
    task = Brackets(kinds=2, depth=2, pairs=1, masked=True)
    symbols = list("([)]")
    env = TokenEnv(task)
    rng = np.random.default_rng(0)
    for seed in range(50):
        observation, info = env.reset(seed=seed)
        terminated = False
        while not terminated:
            text = task.codec.decode(observation[observation != task.vocab_size])
            legal = [left_open(text + symbol) is not None for symbol in symbols]
            assert info["action_mask"].tolist() == [*legal, True]
            token = int(rng.integers(4))
            observation, reward, terminated, _, info = env.step(token)
            if not legal[token]:
                assert terminated and reward == -1.0


def test_without_masks_there_are_none():
    assert TokenVectorEnv(Brackets(), 2).action_masks().all()
    assert "action_mask" not in TokenEnv(Brackets()).reset()[1]


def test_a_long_word_can_be_played_but_not_solved():
    task = Brackets(kinds=4, depth=20, pairs=30, length=60)
    assert len(left_open(prompts(task, 1)[0])) == 20
    with pytest.raises(exact.TooLarge, match="states x 9 tokens x 60 positions"):
        task.optimal_return()


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"kinds": 0}, "kinds is at least 1, got 0"),
        ({"kinds": 5}, r"there are 4 kinds of brackets, \(\) \[\] \{\} <>, got kinds=5"),
        ({"depth": 0}, "depth is at least 1, got 0"),
        ({"pairs": -1}, "pairs is at least 0, got -1"),
        ({"depth": 4, "length": 3}, "length is at least 4, got 3"),
    ],
)
def test_impossible_sizes_are_refused(keywords, message):
    with pytest.raises(ValueError, match=message):
        Brackets(**keywords)
