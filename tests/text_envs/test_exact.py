"""The solver against sums over every string of tiny random machines."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

from text_envs import exact
from text_envs.exact import CLOSED, Automaton

STATES, TOKENS, HORIZON = 4, 3, 4


def machine(seed, masked=False):
    """Return a random machine of 4 states and 3 tokens for 3 prompts; a quarter of its moves close."""
    rng = np.random.default_rng(seed)
    following = rng.integers(0, STATES, (STATES, TOKENS))
    following[rng.random(following.shape) < 0.25] = CLOSED
    legal = None
    if masked:
        legal = rng.random(following.shape) < 0.6
        legal[np.arange(STATES), rng.integers(0, TOKENS, STATES)] = True
        following[~legal] = CLOSED
    gain = rng.normal(size=following.shape)
    return Automaton(following, gain, rng.integers(0, STATES, 3), HORIZON, empty=0.5, legal=legal)


def random_policy(seed, shape):
    return np.random.default_rng(seed).dirichlet(np.ones(shape[-1]), shape[:-1])


def strings(automaton, start, policy):
    """Return every utterance's score and its probability under a (T, S, V) policy, by walking the machine."""
    scores, chances = [], []

    def walk(t, state, score, chance):
        if state == CLOSED or t == automaton.horizon:
            scores.append(score)
            chances.append(chance)
            return
        for token in range(automaton.next.shape[1]):
            onward = automaton.next[state, token], score + automaton.gain[state, token]
            walk(t + 1, *onward, chance * policy[t, state, token])

    walk(0, start, automaton.empty, 1.0)
    return np.array(scores), np.array(chances)


def spread(automaton, policy):
    """Return a policy of (S, V) or (T, S, V) as (T, S, V)."""
    return np.broadcast_to(policy, (automaton.horizon, *automaton.next.shape))


machines = pytest.mark.parametrize(
    "automaton", [machine(seed, masked) for seed in range(5) for masked in (False, True)]
)


@machines
def test_the_optimum_is_the_best_string_and_the_policy_says_it(automaton):
    best, actions = exact.solve(automaton), exact.best_actions(automaton)
    for row, start in enumerate(automaton.start):
        scores, _ = strings(automaton, start, spread(automaton, automaton.uniform()))
        assert best[row] == pytest.approx(scores.max())
    np.testing.assert_allclose(exact.evaluate(automaton, np.eye(TOKENS)[actions]), best)
    for row, said in enumerate(exact.best_utterances(automaton)):
        state, score = automaton.start[row], automaton.empty
        for token in said:
            state, score = automaton.next[state, token], score + automaton.gain[state, token]
        assert score == pytest.approx(best[row]) and (state == CLOSED or len(said) == HORIZON)


@machines
@pytest.mark.parametrize("shape", [(STATES, TOKENS), (HORIZON, STATES, TOKENS)])
def test_a_policys_value_is_its_mean_over_strings(automaton, shape):
    policy = random_policy(1, shape)
    values = exact.evaluate(automaton, policy)
    for row, start in enumerate(automaton.start):
        scores, chances = strings(automaton, start, spread(automaton, policy))
        assert chances.sum() == pytest.approx(1.0) and values[row] == pytest.approx(scores @ chances)


@pytest.mark.parametrize(
    ("gain", "legal", "chosen"),
    [
        ([0.0, 1.0, 1.0], None, 2),
        ([0.0, 1.0, 1.0], [True, True, False], 1),
        ([0.0, 1.0, 1.0], [True, False, False], 2),  # a mistake may be the best that can be done
        ([1.0, 1.0, 1.0], [True, True, False], 1),
    ],
)
def test_of_equal_tokens_the_last_legal_one_is_the_best(gain, legal, chosen):
    mask = None if legal is None else np.array([legal])
    automaton = Automaton(np.full((1, 3), CLOSED), np.array([gain]), np.zeros(1, int), 1, legal=mask)
    assert exact.best_actions(automaton).tolist() == [[chosen]]
    assert exact.best_utterances(automaton) == [[chosen]]


@machines
def test_uniform_is_uniform_over_legal_tokens(automaton):
    legal = np.ones(automaton.next.shape, bool) if automaton.legal is None else automaton.legal
    expected = [[may / sum(row) for may in row] for row in legal.tolist()]
    np.testing.assert_allclose(automaton.uniform(), expected)


def prior_of(automaton, seed):
    """Return a reference with full support, and what is left of it on the legal tokens."""
    reference = random_policy(seed, automaton.next.shape)
    restricted = reference * (automaton.uniform() > 0)
    return reference, restricted / restricted.sum(axis=1, keepdims=True)


@machines
@pytest.mark.parametrize("beta", [0.1, 1.0, 10.0])
def test_the_regularised_optimum_is_the_tilted_reference(automaton, beta):
    reference, prior = prior_of(automaton, 2)
    point, policy = exact.regularized(automaton, reference, beta)
    values, rewards, kls = [], [], []
    for start in automaton.start:
        scores, chances = strings(automaton, start, spread(automaton, prior))
        weights = chances * np.exp(scores / beta)
        tilted = weights / weights.sum()
        some = tilted > 0
        values.append(beta * np.log(weights.sum()))
        rewards.append(tilted @ scores)
        kls.append(tilted[some] @ np.log(tilted[some] / chances[some]))
        np.testing.assert_allclose(strings(automaton, start, policy)[1], tilted, atol=1e-12)
    assert point.beta == beta
    assert point.value == pytest.approx(np.mean(values))
    assert point.reward == pytest.approx(np.mean(rewards))
    assert point.kl == pytest.approx(np.mean(kls))
    assert point.value == pytest.approx(point.reward - beta * point.kl)
    assert exact.evaluate(automaton, policy).mean() == pytest.approx(point.reward)


@machines
def test_the_frontier_goes_from_the_optimum_to_the_reference(automaton):
    reference, prior = prior_of(automaton, 3)
    points = exact.frontier(automaton, reference, np.geomspace(1e-4, 1e6, 30).tolist())
    rewards, kls = np.array([[point.reward, point.kl] for point in points]).T
    best = [strings(automaton, start, spread(automaton, prior)) for start in automaton.start]
    assert rewards[0] == pytest.approx(np.mean([scores[chances > 0].max() for scores, chances in best]), abs=1e-3)
    assert rewards[-1] == pytest.approx(exact.evaluate(automaton, prior).mean(), abs=1e-4)
    assert kls[-1] == pytest.approx(0.0, abs=1e-9) and (kls >= -1e-12).all()
    assert (np.diff(rewards) <= 1e-12).all() and (np.diff(kls) <= 1e-12).all()


@pytest.mark.parametrize("end", [None, 2])
def test_spelling_pays_each_right_token_its_share(end):
    wanted = np.array([[0, 1, 2], [2, -1, -1], [1, 2, -1]])
    automaton = exact.spelling(wanted, 3, end)
    shares = (wanted >= 0).sum(axis=1)
    for row, start in enumerate(automaton.start):
        scores, chances = strings(automaton, start, spread(automaton, automaton.uniform()))
        expected = []
        for said in itertools.product(range(3), repeat=3):
            spoken = said if end not in said else said[: said.index(end) + 1]
            expected.append(sum(a == b for a, b in zip(spoken, wanted[row], strict=False)) / shares[row])
        assert scores @ chances == pytest.approx(np.mean(expected))
        assert scores.max() == pytest.approx(max(expected)) and sorted(set(scores)) == pytest.approx(
            sorted(set(expected))
        )


def test_values_are_means_over_prompts_with_their_errors():
    automaton = machine(0)
    best, uniform = exact.solve(automaton), exact.evaluate(automaton, automaton.uniform())
    values = exact.values(automaton, "enumerated")
    assert (values.optimal, values.random) == pytest.approx((best.mean(), uniform.mean()))
    assert (values.optimal_error, values.random_error, values.prompts, values.states) == (0.0, 0.0, 3, STATES)
    weighted = exact.values(automaton, "symmetry", [0.5, 0.2, 0.3])
    assert weighted.optimal == pytest.approx(best @ [0.5, 0.2, 0.3]) and weighted.method == "symmetry"
    sampled = exact.values(automaton, "sampled")
    assert sampled.random_error == pytest.approx(np.std(uniform, ddof=1) / np.sqrt(3))
    assert sampled.optimal_error == pytest.approx(np.std(best, ddof=1) / np.sqrt(3))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gain": np.zeros((STATES, 2))}, r"\(S, V\) arrays of one shape, got \[\(4, 2\), \(4, 3\)\]"),
        ({"legal": np.ones((1, TOKENS), bool)}, r"one shape, got \[\(1, 3\), \(4, 3\)\]"),
        ({"next": np.zeros(3, int), "gain": np.zeros(3)}, r"got \[\(3,\)\]"),
        ({"next": np.full((STATES, TOKENS), STATES)}, r"states are 0\.\.3 .* got \d\.\.4"),
        ({"next": np.full((STATES, TOKENS), -2)}, r"got -2\.\."),
        ({"start": np.array([CLOSED])}, r"got -1\.\."),
        ({"legal": np.arange(STATES)[:, None] != np.full((STATES, TOKENS), 2)}, "state 2 has no legal token"),
    ],
)
def test_machines_that_make_no_sense_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(machine(0), **changes)


def test_a_machine_too_large_says_how_many_states_it_has():
    with pytest.raises(exact.TooLarge, match="1,000,000 states x 50 tokens x 11 positions = 5.5e"):
        exact.check_size(1_000_000, 50, 11)
    with pytest.raises(exact.TooLarge, match="4,000,000 states"):
        exact.spelling(np.zeros((100_000, 40), np.int64), 100)
    with pytest.raises(exact.TooLarge, match="4 states"):
        replace(machine(0), horizon=10**9)


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        (np.ones((TOKENS, STATES)), r"shape \(4, 3\) \(S, V\) or \(4, 4, 3\) \(T, S, V\), got \(3, 4\)"),
        (np.ones((STATES, TOKENS)), r"sum to 1, got sums 3.0\.\.3.0"),
        (np.tile([1.5, -0.5, 0.0], (STATES, 1)), "not negative"),
    ],
)
def test_what_is_no_policy_is_refused(policy, message):
    with pytest.raises(ValueError, match=message):
        exact.evaluate(machine(0), policy)


def test_what_is_no_reference_is_refused():
    automaton = machine(0)
    lacking = np.tile([0.5, 0.5, 0.0], (STATES, 1))
    with pytest.raises(ValueError, match="gives token 2 no probability in state 0: .* smooth it"):
        exact.regularized(automaton, lacking, 1.0)
    with pytest.raises(ValueError, match=r"a reference has the shape \(4, 3\) \(S, V\), got \(4, 4, 3\)"):
        exact.regularized(automaton, spread(automaton, automaton.uniform()), 1.0)
    masked = replace(automaton, legal=lacking > 0)
    assert np.isfinite(exact.regularized(masked, lacking, 1.0)[0].kl)


@pytest.mark.parametrize("beta", [0.0, -1.0, np.inf, np.nan])
def test_a_price_is_positive_and_finite(beta):
    automaton = machine(0)
    with pytest.raises(ValueError, match="price of a nat, positive and finite, got"):
        exact.regularized(automaton, automaton.uniform(), beta)
