"""How exact values are checked: every utterance played through the engine, and many episodes simulated.

`enumerate_returns` knows nothing of a task's machine; `play_optimal` follows it through the engine and asserts on
the way that both close at the same token.
"""

import numpy as np
import pytest

from text_envs import TokenVectorEnv, exact
from text_envs.streams import RowRandom, Stream
from text_envs.tasks.base import Samples

AT_ONCE = 1000  # prompts in one machine


def prompts_of(task, seeds) -> Samples:
    """Return the prompts of the first episodes of some seeds, those an environment shows."""
    return task.sample(RowRandom(np.asarray(seeds), 0, Stream.PROMPT))


def play(task, seeds, choose, dense):
    """Return (B,) returns of one episode per seed and (B,) at which token each closed.

    Args:
        choose: gets t and (B, V) legal tokens and returns (B,) tokens.
    """
    env = TokenVectorEnv(task, len(seeds), dense=dense)
    env.reset(seed=[int(seed) for seed in seeds])
    returns, closed_at = np.zeros(len(seeds)), np.zeros(len(seeds), int)
    running = np.ones(len(seeds), bool)
    for t in range(task.max_new_tokens):
        _, reward, terminated, *_ = env.step(choose(t, env.action_masks()))
        returns[running] += reward[running]
        closed_at[running & terminated] = t
        running &= ~terminated
    assert not running.any()
    return returns, closed_at


@pytest.fixture
def enumerate_returns():
    """Return a function: (V**T,) returns of every sequence of tokens after one prompt, and their probabilities.

    The probabilities, (V**T,), are those of tokens drawn uniformly from the legal ones; a sequence whose utterance
    closes early shares its probability with those that begin alike.
    """

    def enumerate(task, seed=0, dense=False):
        size, horizon = task.vocab_size, task.max_new_tokens
        sequences = np.indices((size,) * horizon).reshape(horizon, -1)  # (T, V**T)
        chances = np.empty(sequences.shape)
        rows = np.arange(sequences.shape[1])

        def choose(t, legal):
            chances[t] = legal[rows, sequences[t]] / legal.sum(axis=1)
            return sequences[t]

        returns, closed_at = play(task, [seed] * len(rows), choose, dense)
        chances[np.arange(horizon)[:, None] > closed_at] = 1 / size
        return returns, chances.prod(axis=0)

    return enumerate


@pytest.fixture
def play_optimal():
    """Return a function: (episodes,) returns of the solver's policy, and (episodes,) what the solver promised.

    The environments are seeded 0, 1, 2, ...: a mean over episodes is a mean over prompts.
    """

    def simulate(task, episodes=10_000, dense=False):
        returns, promised = [], []
        for first in range(0, episodes, AT_ONCE):
            seeds = np.arange(first, min(first + AT_ONCE, episodes))
            automaton = task.automaton(prompts_of(task, seeds))
            best, actions = exact.solve(automaton), exact.best_actions(automaton)
            state, closes_at = automaton.start.copy(), np.full(len(seeds), automaton.horizon - 1)

            def choose(t, legal, automaton=automaton, actions=actions, state=state, closes_at=closes_at):
                said = actions[t, state]  # of closed rows, whose state is CLOSED: any
                going = state != exact.CLOSED
                state[going] = automaton.next[state, said][going]
                closes_at[going & (state == exact.CLOSED)] = t
                return said

            earned, closed_at = play(task, seeds, choose, dense)
            np.testing.assert_array_equal(closed_at, closes_at)
            returns.append(earned)
            promised.append(best)
        return np.concatenate(returns), np.concatenate(promised)

    return simulate


@pytest.fixture
def play_random():
    """Return a function: (episodes,) returns of tokens drawn uniformly from the legal ones, seeds 0, 1, 2, ..."""

    def simulate(task, episodes=10_000, dense=False):
        random = np.random.default_rng(0)

        def choose(t, legal):
            return np.where(legal, random.random(legal.shape), -1.0).argmax(axis=1)

        return play(task, np.arange(episodes), choose, dense)[0]

    return simulate


@pytest.fixture
def check_enumeration(enumerate_returns):
    """Assert that a task's machine earns after some prompts what every utterance earns in the environment."""

    def check(task, seeds=range(3)):
        automaton = task.automaton(prompts_of(task, list(seeds)))
        best, uniform = exact.solve(automaton), exact.evaluate(automaton, automaton.uniform())
        for row, seed in enumerate(seeds):
            for dense in (False, True):
                returns, chances = enumerate_returns(task, seed, dense)
                assert chances.sum() == pytest.approx(1.0)
                assert returns.max() == pytest.approx(best[row], abs=1e-12)
                assert returns @ chances == pytest.approx(uniform[row], abs=1e-12)

    return check


@pytest.fixture
def check_simulation(play_optimal, play_random):
    """Assert that simulated means lie within four standard errors of a task's exact values."""

    def check(task, episodes=10_000):
        returns, promised = play_optimal(task, episodes)
        np.testing.assert_allclose(returns, promised, atol=1e-12)
        values = task.values
        for sample, value, error in (
            (returns, values.optimal, values.optimal_error),
            (play_random(task, episodes), values.random, values.random_error),
        ):
            spread = np.hypot(sample.std(ddof=1) / np.sqrt(episodes), error)
            assert abs(sample.mean() - value) <= 4 * spread + 1e-12, (sample.mean(), value, spread)

    return check
