"""Pattern: scores against Python's calendar and regular expressions, exact values against every utterance."""

import datetime
import re

import numpy as np
import pytest

from text_envs import TokenEnv, UtteranceEnv
from text_envs.streams import RowRandom, Stream
from text_envs.tasks.pattern import Pattern

LENGTHS = {"d": 10, "t": 5, "p": 12}


def is_member(initial, text):
    if initial == "d":
        if not re.fullmatch(r"\d{4}-\d\d-\d\d", text) or text[0] == "0":
            return False
        try:
            datetime.date.fromisoformat(text)
        except ValueError:
            return False
        return True
    if initial == "t":
        return bool(re.fullmatch(r"\d\d:\d\d", text)) and int(text[:2]) < 24 and int(text[3:]) < 60
    return bool(re.fullmatch(r"[2-9]\d\d-555-01\d\d", text))


def earned(task, seed, said):
    env = UtteranceEnv(task)
    prompt, _ = env.reset(seed=seed)
    return prompt, env.step(said)[1]


def first_with(task, prompt):
    return next(seed for seed in range(1000) if UtteranceEnv(task).reset(seed=seed)[0] == prompt)


def dates():
    for month in range(14):
        for day in (0, 1, 9, 10, 28, 30, 31, 32):
            yield f"2023-{month:02}-{day:02}"
    for year in [*range(1899, 2005), *range(1000, 10000, 100)]:
        yield f"{year}-02-29"


MEMBERS_AND_OTHERS = {
    "date": ["0999-12-31", "2024-2-29", "2024-02-291", "2024:02:29", *dates()],
    "time": [*(f"{hour:02}:{minute:02}" for hour in range(26) for minute in (0, 9, 30, 59, 60)), "1:00", "12:345"],
    "phone": ["212-555-0123", "999-555-0199", "112-555-0123", "212-555-0223", "212-5550123", "212-555-01234"],
}


@pytest.mark.parametrize("kind", MEMBERS_AND_OTHERS)
def test_members_and_only_they_earn_everything(kind):
    env = UtteranceEnv(Pattern(kinds=[kind], given=0))
    outcomes = set()
    for text in MEMBERS_AND_OTHERS[kind]:
        prompt, _ = env.reset(seed=0)
        assert prompt == kind[0]
        reward = env.step(text)[1]
        assert (reward == 1.0) == is_member(kind[0], text), text
        outcomes.add(reward == 1.0)
    assert outcomes == {True, False}


@pytest.mark.parametrize(
    ("said", "right"),
    [("", 0), ("2", 1), ("24:00", 1), ("23:60", 3), ("23:5", 4), ("23:59", 6), ("23:590", 5), ("t23:59", 0)],
)
def test_what_precedes_a_mistake_counts(said, right):
    assert earned(Pattern(kinds=("time",), given=0), 0, said)[1] == right / 6


def test_what_is_given_is_not_paid_for():
    task = Pattern(kinds=("time",), given=1)
    seed = first_with(task, "t2")
    assert [earned(task, seed, said)[1] for said in ("", "4", "3", "3:59")] == [0.0, 0.0, 0.2, 1.0]


def test_dense_pays_each_right_symbol_and_the_end():
    task = Pattern(kinds=("time",), given=0)
    env = TokenEnv(task, dense=True)
    env.reset(seed=0)
    rewards = [env.step(token)[1] for token in [*task.codec.encode("09:05"), task.end_token_id]]
    np.testing.assert_allclose(rewards, 1 / 6)
    env.reset()
    rewards = [env.step(token)[1] for token in task.codec.encode("0:05")]
    np.testing.assert_allclose(rewards, [1 / 6, 0, 0, 0], atol=1e-12)


def test_prompts_begin_members_and_are_enumerated():
    task = Pattern()
    samples, method, chances = task.cases()
    shown = [task.codec.decode(row) for row in samples.tokens]
    possible = [f"{initial}{number:02}" for initial in "dtp" for number in range(100)]
    begins = {"d": range(10, 100), "t": range(24), "p": range(20, 100)}
    assert sorted(shown) == sorted(prompt for prompt in possible if int(prompt[1:]) in begins[prompt[0]])
    assert method == "enumerated" and chances.sum() == pytest.approx(1)
    drawn = task.sample(RowRandom(np.arange(30_000), 0, Stream.PROMPT))
    at = {prompt: i for i, prompt in enumerate(shown)}
    counts = np.bincount([at[task.codec.decode(row)] for row in drawn.tokens], minlength=len(shown))
    assert (abs(counts - 30_000 * chances) < 5 * np.sqrt(30_000 * chances)).all()


@pytest.mark.parametrize("given", range(5))
def test_every_date_that_begins_so_can_be_completed(given, play_optimal):
    returns, promised = play_optimal(Pattern(given=given), 200)
    np.testing.assert_allclose(returns, 1.0)
    np.testing.assert_allclose(promised, 1.0)


def test_the_machine_is_the_environment(check_enumeration):
    check_enumeration(Pattern(kinds=("time",), given=3), seeds=range(6))


def test_values_are_those_of_simulation(check_simulation):
    check_simulation(Pattern())


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"kinds": ()}, r"kinds are different ones of 'date', 'time', 'phone', got \(\)"),
        ({"kinds": ("date", "year")}, r"got \('date', 'year'\)"),
        ({"kinds": ("date", "date")}, r"got \('date', 'date'\)"),
        ({"kinds": "date"}, "got 'date'"),
        ({"given": -1}, "given is at least 0, got -1"),
        ({"given": 5}, "a time has 5 symbols, so fewer can be given, got given=5"),
    ],
)
def test_impossible_patterns_are_refused(keywords, message):
    with pytest.raises(ValueError, match=message):
        Pattern(**keywords)
