"""The solver of guessing games against searches written without it."""

import itertools

import numpy as np
import pytest

from text_envs import belief
from text_envs.belief import Solver, random_value
from text_envs.exact import TooLarge

COMPARISON = {True: 1, False: 2}


def comparisons(numbers):
    """Return the answers of number guessing: 0 right, 1 lower, 2 higher."""
    return [[0 if s == g else COMPARISON[s < g] for g in range(numbers)] for s in range(numbers)]


def expectimax(answers, secrets, left, turns):
    """Return the best expected return, by trying every guess at every belief."""
    if not left or not secrets:
        return 0.0
    best = 0.0
    for guess in range(len(answers[0])):
        groups = {}
        for secret in secrets:
            groups.setdefault(answers[secret][guess], []).append(secret)
        total = left / turns * len(groups.pop(0, ()))
        total += sum(len(group) * expectimax(answers, group, left - 1, turns) for group in groups.values())
        best = max(best, total / len(secrets))
    return best


def strategies(answers, left):
    """Yield every deterministic strategy: (guess, {answer: strategy}), None when no turn is left."""
    if not left:
        yield None
        return
    after = list(strategies(answers, left - 1))
    for guess in range(len(answers[0])):
        replies = sorted({row[guess] for row in answers} - {0})
        for following in itertools.product(after, repeat=len(replies)):
            yield guess, dict(zip(replies, following, strict=True))


def earned(answers, strategy, secret, turns):
    for turn in range(turns):
        guess, following = strategy
        if answers[secret][guess] == 0:
            return 1 - turn / turns
        strategy = following[answers[secret][guess]]
    return 0.0


def some_answers(secrets, questions, answers, seed):
    """Return a random game: questions first, then a guess for each secret."""
    rng = np.random.default_rng(seed)
    table = rng.integers(1, answers + 1, (secrets, questions + secrets))
    table[np.arange(secrets), questions + np.arange(secrets)] = 0
    return table.tolist()


@pytest.mark.parametrize(
    ("answers", "turns"), [(comparisons(3), 2), (comparisons(2), 3), (some_answers(2, 1, 2, 0), 2)]
)
def test_the_best_of_all_strategies(answers, turns):
    everyone = range(len(answers))
    means = [
        np.mean([earned(answers, s, secret, turns) for secret in everyone]) for s in strategies(answers, turns)
    ]
    assert Solver(answers, turns).value() == pytest.approx(max(means), abs=1e-12)


@pytest.mark.parametrize("turns", [1, 2, 3, 4])
@pytest.mark.parametrize("seed", range(6))
def test_the_value_is_expectimaxs(turns, seed):
    answers = some_answers(secrets=4 + seed % 3, questions=seed % 4, answers=1 + seed % 3, seed=seed)
    expected = expectimax(answers, list(range(len(answers))), turns, turns)
    assert Solver(answers, turns).value() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("numbers", "turns"), [(1, 3), (2, 1), (7, 3), (8, 3), (10, 4), (100, 5), (300, 20)])
def test_numbers_are_found_by_bisection(numbers, turns):
    found = np.diff(np.minimum(2 ** np.arange(turns + 1) - 1, numbers))  # at most 2**k at turn k, from 0
    expected = found @ (1 - np.arange(turns) / turns) / numbers
    solver = Solver(comparisons(numbers), turns)
    assert solver.value() == pytest.approx(expected, abs=1e-12)
    assert solver.quick_value() == pytest.approx(expected, abs=1e-12)


def play(solver, choose, secret):
    """Return what a strategy earns on a secret, in units of 1 / turns."""
    possible = solver.everything
    for left in range(solver.turns, 0, -1):
        guess = choose(possible, left)
        parts = [part for part in solver.parts(possible, guess) if secret in part]
        if not parts:
            return left
        possible = parts[0]
    return 0


@pytest.mark.parametrize("seed", range(4))
def test_following_the_best_guesses_earns_the_value(seed):
    solver = Solver(some_answers(secrets=12, questions=3, answers=2, seed=seed), turns=5)
    for choose, value in ((solver.best, solver.value()), (solver.quick, solver.quick_value())):
        played = [play(solver, choose, secret) for secret in solver.everything]
        assert np.mean(played) / 5 == pytest.approx(value, abs=1e-12)
    assert solver.quick_value() <= solver.value()
    assert solver.worth(solver.everything, 5) == round(solver.value() * 12 * 5)
    assert solver.states > 0


def test_a_game_too_large_says_how_far_it_came(monkeypatch):
    monkeypatch.setattr(belief, "MAX_WORK", 20_000)
    solver = Solver(some_answers(40, 20, 2, 0), 8)
    with pytest.raises(TooLarge, match=r"after \d+ beliefs .* 40 secrets, 60 guesses and 8 turns; make it smaller"):
        solver.value()
    assert 0 < solver.quick_value() < 1


def test_secrets_need_guesses_of_their_own():
    with pytest.raises(ValueError, match="no guess names secret 1"):
        Solver([[0, 1], [1, 1]], 2)
    with pytest.raises(ValueError, match="guess 0 names more than one secret"):
        Solver([[0, 1], [0, 1]], 2)


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_random_guesses_by_enumeration(turns):
    chances, answers = [0.5, 0.2, 0.3], comparisons(3)
    expected = 0.0
    for said in itertools.product(range(3), repeat=turns):
        for secret in range(3):
            found = [turn for turn, guess in enumerate(said) if answers[secret][guess] == 0]
            reward = 1 - found[0] / turns if found else 0.0
            expected += np.prod([chances[guess] for guess in said]) * reward / 3
    assert random_value(chances, turns) == pytest.approx(expected, abs=1e-12)


def test_a_game_deeper_than_python_says_so_and_keeps_its_reference():
    count = 1500  # nothing tells the secrets apart: one is named a turn
    answers = np.where(np.eye(count, dtype=bool), 0, 1)
    solver = Solver(answers, turns=count)
    with pytest.raises(TooLarge, match="1,500 secrets, 1,500 guesses and 1,500 turns"):
        solver.value()
    assert solver.quick_value() == pytest.approx((count + 1) / 2 / count)
