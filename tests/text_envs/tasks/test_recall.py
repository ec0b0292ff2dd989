import numpy as np
import pytest

from text_envs import TokenVectorEnv, UtteranceEnv
from text_envs.tasks.recall import Recall


def pairs_of(prompt, pairs, value_length):
    width = 1 + value_length
    return {prompt[i * width]: prompt[i * width + 1 : (i + 1) * width] for i in range(pairs)}


@pytest.mark.parametrize(
    "keywords", [{}, {"pairs": 8, "distance": 0, "value_length": 3}, {"vocab_size": 4, "pairs": 1}]
)
def test_the_value_of_the_key_asked_for_earns_1(keywords):
    task = Recall(**keywords)
    env = UtteranceEnv(task)
    keys, others = task.tokenizer.vocabulary[: task.keys], task.tokenizer.vocabulary[task.keys :]
    for seed in range(50):
        prompt, _ = env.reset(seed=seed)
        known = pairs_of(prompt, task.pairs, task.value_length)
        assert len(known) == task.pairs and set(known) <= set(keys)
        assert set("".join(known.values())) <= set(others)
        assert len(prompt) == task.pairs * (1 + task.value_length) + task.distance + 1
        assert set(prompt[-1 - task.distance : -1]) <= set(others)
        assert env.step(known[prompt[-1]])[1] == 1.0


def test_each_right_symbol_earns_its_share():
    task = Recall(value_length=4)
    env = UtteranceEnv(task)
    for said in ("", "ii", "ijkl", "aaaa", "pppp"):
        for seed in range(20):
            prompt, _ = env.reset(seed=seed)
            value = pairs_of(prompt, task.pairs, 4)[prompt[-1]]
            assert env.step(said)[1] == sum(a == b for a, b in zip(said, value, strict=False)) / 4


def test_keys_values_and_questions_are_uniform():
    task = Recall(vocab_size=8, pairs=3, distance=1, value_length=1)
    prompts = TokenVectorEnv(task, 4000).reset(seed=0)[0][:, :-1]
    for column, symbols in [(0, 4), (1, 4), (2, 4), (4, 4), (6, 4), (7, 4)]:
        counts = np.unique_counts(prompts[:, column]).counts
        assert len(counts) == symbols and abs(counts - 1000).max() < 120  # four standard deviations: 110
    assert abs(np.mean(prompts[:, 6] == prompts[:, 1]) - 0.25) < 0.03  # what is irrelevant repeats no value
    asked = (prompts[:, [0, 2, 4]] == prompts[:, [7]]).sum(axis=0)
    assert asked.sum() == 4000 and abs(asked - 4000 / 3).max() < 120


@pytest.mark.parametrize(
    "keywords",
    [
        {"vocab_size": 4, "pairs": 2, "value_length": 3},
        {"vocab_size": 5, "pairs": 1, "distance": 0, "value_length": 1},
    ],
)
def test_values_equal_enumeration(keywords, check_enumeration):
    task = Recall(**keywords)
    check_enumeration(task)
    assert (task.optimal_return(), task.random_return()) == pytest.approx((1.0, 1 / task.vocab_size))


def test_values_equal_simulation(check_simulation):
    check_simulation(Recall())


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"vocab_size": 3}, "vocab_size is at least 4, got 3"),
        ({"pairs": 0}, "pairs is at least 1, got 0"),
        ({"pairs": 9}, "pairs is at most 8, half of the 16 symbols, got 9; raise vocab_size"),
        ({"distance": -1}, "distance is at least 0, got -1"),
        ({"value_length": 0}, "value_length is at least 1, got 0"),
    ],
)
def test_impossible_sizes_are_refused(keywords, message):
    with pytest.raises(ValueError, match=message):
        Recall(**keywords)
