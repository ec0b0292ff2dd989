import itertools
from collections import Counter
from functools import cache

import numpy as np
import pytest

from text_envs import UtteranceEnv
from text_envs.tasks.mastermind import Mastermind


@cache
def marks(secret, guess):
    black = sum(a == b for a, b in zip(secret, guess, strict=True))
    return black, sum((Counter(secret) & Counter(guess)).values()) - black


def naive(rows, turns):
    """Return the best expected return, searched over sets of rows."""

    @cache
    def search(possible, left):
        if left == 1:
            return 1 / turns
        best = 0.0
        for guess in rows:
            groups = {}
            for secret in possible:
                groups.setdefault(marks(secret, guess), set()).add(secret)
            found = len(groups.pop((len(guess), 0), ())) * left / turns
            best = max(best, found + sum(search(frozenset(group), left - 1) for group in groups.values()))
        return best

    return search(frozenset(rows), turns) / len(rows)


@pytest.mark.parametrize(("pegs", "colours", "turns"), [(3, 4, 2), (2, 3, 4), (3, 2, 4), (1, 5, 3)])
def test_the_optimum_is_a_naive_searchs(pegs, colours, turns):
    rows = list(itertools.product("abcdefgh"[:colours], repeat=pegs))
    task = Mastermind(pegs=pegs, colours=colours, turns=turns)
    assert task.optimal_return() == pytest.approx(naive(rows, turns), abs=1e-12)


@pytest.mark.slow
def test_the_default_rows_in_three_turns():
    rows = list(itertools.product("abcd", repeat=3))
    assert Mastermind(turns=3).optimal_return() == pytest.approx(naive(rows, 3), abs=1e-12)


def test_answers_count_pegs():
    task = Mastermind(pegs=4, colours=5, turns=1)
    rng = np.random.default_rng(0)
    rows = ["".join(row) for row in itertools.product("abcde", repeat=4)]
    for secret, guess in rng.integers(len(rows), size=(300, 2)):
        code = task.answer(np.array([secret]), np.array([guess]))[0]
        shown = task.codec.decode(task._replies[code])
        assert shown == "{}{}".format(*marks(rows[secret], rows[guess]))


def test_a_game():
    env = UtteranceEnv(Mastermind(pegs=4, colours=6, turns=3))
    env.reset(seed=0)
    env._engine.said().columns["secret"][0] = int("0122", 6)  # abcc
    assert env.step("ccba")[0] == "?ccba04"
    assert env.step("acaa")[0] == "?ccba04acaa11"
    context, reward, terminated, _, _ = env.step("abcc")
    assert (context, terminated) == ("?ccba04acaa11abcc40", True) and reward == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"pegs": 0}, "pegs is at least 1, got 0"),
        ({"pegs": 10}, "pegs is at most 9, a count of one digit, got 10"),
        ({"colours": 1}, "colours is at least 2, got 1"),
        ({"colours": 27}, "colours is at most 26, one letter each, got 27"),
        ({"colours": 20, "pegs": 5}, "20 colours on 5 pegs make 3,200,000 rows, more than 100,000; lower one"),
    ],
)
def test_impossible_sizes_are_refused(keywords, message):
    with pytest.raises(ValueError, match=message):
        Mastermind(**keywords)
