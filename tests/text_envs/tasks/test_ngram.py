"""NGram: scores and the reward-KL frontier against loops over every utterance."""

import itertools

import numpy as np
import pytest

from text_envs import TokenVectorEnv, UtteranceEnv, exact
from text_envs.tasks.ngram import NGram

BETAS = [0.01, 0.05, 0.2, 1.0, 5.0]


def context(symbols, order, size):
    state = 0
    for symbol in symbols[len(symbols) - order + 1 :]:
        state = state * size + symbol
    return state


def walk(task, order, prompt, said):
    """Return the mean reward and the reference's probability of what was said, by the tables."""
    machine = task.automaton(task.cases()[0])
    symbols, total, probability = list(prompt), 0.0, 1.0
    for symbol in said:
        state = context(symbols, order, task.vocab_size)
        total += machine.gain[state, symbol]
        probability *= task.reference[state, symbol]
        symbols.append(symbol)
    return total, probability


@pytest.mark.parametrize("order", [2, 3, 4])
def test_each_symbol_earns_the_reward_of_its_context(order):
    task = NGram(vocab_size=3, order=order, length=5)
    env, rng = UtteranceEnv(task), np.random.default_rng(0)
    for seed in range(50):
        prompt, _ = env.reset(seed=seed)
        said = rng.integers(3, size=5)
        expected, _ = walk(task, order, task.codec.encode(prompt), said)
        assert env.step(task.codec.decode(said))[1] == pytest.approx(expected)


def test_the_reference_is_smooth_and_the_rewards_are_bounded():
    task = NGram(vocab_size=10, order=3, smoothing=0.2, length=1)
    np.testing.assert_allclose(task.reference.sum(axis=1), 1)
    assert task.reference.shape == (100, 10) and task.reference.min() >= 0.2 / 10
    rewards = task.automaton(task.cases()[0]).gain
    assert 0 <= rewards.min() and rewards.max() < 1 and abs(rewards.mean() - 0.5) < 0.05
    np.testing.assert_allclose(NGram(smoothing=1.0).reference, 1 / 8)


def test_the_tables_belong_to_the_environment():
    def tables(**keywords):
        return NGram(**keywords).reference.tolist()

    assert tables() == tables(table_seed=0) != tables(table_seed=1)


def test_the_machine_is_the_environment(check_enumeration):
    check_enumeration(NGram(vocab_size=3, order=3, length=4))


def test_values_are_those_of_simulation(check_simulation):
    check_simulation(NGram())


def test_the_reference_earns_what_it_says():
    task, rows = NGram(), 10_000
    env = TokenVectorEnv(task, rows)
    observation, _ = env.reset(seed=0)
    rng = np.random.default_rng(0)
    for t in range(task.max_new_tokens):
        state = observation[:, t] * task.vocab_size + observation[:, t + 1]
        token = (task.reference[state].cumsum(axis=1) < rng.random((rows, 1))).sum(axis=1)
        observation, returns, *_ = env.step(np.minimum(token, task.vocab_size - 1))
        if t < task.max_new_tokens - 1:
            assert (returns == 0).all()
    assert abs(returns.mean() - task.reference_return()) < 4 * returns.std() / np.sqrt(rows)


def test_the_frontier_is_that_of_all_utterances():
    task = NGram(vocab_size=2, order=3, length=4, table_seed=3)
    prompts = task.cases()[0]
    points = exact.frontier(task.automaton(prompts), task.reference, BETAS)
    for point in points:
        values, rewards, kls = [], [], []
        for prompt in prompts.tokens:
            table = [walk(task, 3, prompt, said) for said in itertools.product(range(2), repeat=4)]
            reward, prior = np.array(table).T
            tilted = prior * np.exp(reward / point.beta)
            policy = tilted / tilted.sum()
            values.append(point.beta * np.log(tilted.sum()))
            rewards.append(policy @ reward)
            kls.append(policy @ np.log(policy / prior))
        found = point.value, point.reward, point.kl
        np.testing.assert_allclose(found, [np.mean(values), np.mean(rewards), np.mean(kls)])


def test_the_frontier_goes_from_the_optimum_to_the_reference():
    task = NGram()
    points = exact.frontier(task.automaton(task.cases()[0]), task.reference, [1e-6, *BETAS, 1e6])
    assert points[0].reward == pytest.approx(task.optimal_return(), abs=1e-6)
    assert points[-1].reward == pytest.approx(task.reference_return(), abs=1e-6)
    assert points[-1].kl == pytest.approx(0.0, abs=1e-9)
    for nearer_optimum, nearer_reference in itertools.pairwise(points):
        assert nearer_optimum.reward > nearer_reference.reward and nearer_optimum.kl > nearer_reference.kl


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"vocab_size": 1}, "vocab_size is at least 2, got 1"),
        (
            {"vocab_size": 5000, "order": 2},
            "5,000 contexts x 5000 symbols are more than 10,000,000 entries",
        ),
        ({"order": 1}, "order is at least 2, got 1"),
        ({"order": 9}, "16,777,216 contexts x 8 symbols"),
        ({"length": 0}, "length is at least 1, got 0"),
        ({"smoothing": 0.0}, "smoothing is a share above 0 and at most 1, got 0.0"),
        ({"smoothing": 1.5}, "got 1.5"),
        ({"smoothing": float("nan")}, "got nan"),
        ({"table_seed": -1}, "non-negative integer, got -1"),
    ],
)
def test_impossible_models_are_refused(keywords, message):
    with pytest.raises(ValueError, match=message):
        NGram(**keywords)
