"""What the four games share: replies, invalid guesses, both levels, and exact values against play in the engine."""

import numpy as np
import pytest

from text_envs.engine import Engine
from text_envs.exact import TooLarge
from text_envs.streams import RowRandom, Stream
from text_envs.tasks import game
from text_envs.tasks.guess_number import GuessNumber
from text_envs.tasks.mastermind import Mastermind
from text_envs.tasks.twenty_questions import TwentyQuestions
from text_envs.tasks.wordle import Wordle

GAMES = [GuessNumber, TwentyQuestions, Mastermind, Wordle]
games = pytest.mark.parametrize("make", GAMES)
EPISODES = 10_000


def begun(task, rows, seed=0, **keywords):
    engine = Engine(task, rows, **keywords)
    engine.seed(range(seed, seed + rows))
    engine.begin()
    return engine


def returns(engine, say):
    """Play one episode in every row, `say(rows)` returning a token for each; return the clean returns."""
    total, live = np.zeros(engine.num_rows), np.arange(engine.num_rows)
    while live.size:
        outcome = engine.say(say(live), live)
        total[outcome.closed] += outcome.clean
        live = live[~outcome.terminated]
    return total


def assert_mean(values, expected):
    assert abs(values.mean() - expected) < 4 * values.std() / np.sqrt(len(values))


@games
def test_the_optimal_return_is_what_the_best_guesses_earn(make):
    task = make()
    engine = begun(task, EPISODES)
    total, live = np.zeros(EPISODES), np.arange(EPISODES)
    while live.size:
        said = np.array(task.demonstrate(engine.said(live)))
        for column in said.T:
            outcome = engine.say(column, live)
        total[live] += outcome.clean
        live = live[~outcome.terminated]
    assert_mean(total, task.optimal_return())
    assert task.values.method == "enumerated" and task.values.states < 1000


def test_demonstrations_read_past_what_is_no_guess():
    task = GuessNumber(numbers=30, turns=9)
    engine = begun(task, 1)
    engine.said().columns["secret"][0] = 20

    def shown():
        return task.codec.decode(task.demonstrate(engine.said())[0])

    assert shown() in ("14", "15")
    for text in ("9", "", "19", "?", "1<", "2", "22"):
        engine.utter([text])
    assert engine.context(0) == "?9??19>??1<?2?22<"
    assert shown() == "20"  # or 21; two turns are left for them
    assert engine.utter(["20"]).terminated


@games
def test_the_random_return_is_what_uniform_legal_tokens_earn(make):
    engine = begun(make(), EPISODES)
    rng = np.random.default_rng(1)

    def say(rows):
        legal = engine.action_masks()[rows]
        return (legal * rng.random(legal.shape)).argmax(axis=1)

    assert_mean(returns(engine, say), engine.task.random_return())


def test_numbers_of_unequal_chances_under_random_tokens():
    task = GuessNumber(numbers=12, turns=1)  # 0x: a tenth of a half; 10, 11: half of a half
    assert task.random_return() == pytest.approx((10 * 0.05 + 2 * 0.25) / 12)
    engine = begun(task, EPISODES)
    rng = np.random.default_rng(2)
    masks = engine.action_masks
    said = returns(engine, lambda rows: (masks()[rows] * rng.random((len(rows), task.vocab_size))).argmax(axis=1))
    assert_mean(said, task.random_return())


@games
def test_strong_play_is_between_random_and_optimal(make):
    task = make()
    assert task.random_return() < task.reference_return() <= task.optimal_return() < 1


@games
def test_a_game_is_the_same_token_by_token_and_by_utterance(make):
    task = make()
    tokens, texts = begun(task, 50), begun(task, 50)
    rng, live = np.random.default_rng(3), np.arange(50)
    while live.size:
        said = task.guesses[rng.integers(len(task.guesses), size=len(live))]
        whole = texts.utter([task.codec.decode(ids) for ids in said], live)
        parts = [tokens.say(column, live) for column in said.T]
        np.testing.assert_array_equal(tokens.tokens, texts.tokens)
        np.testing.assert_array_equal(sum(part.reward for part in parts), whole.reward)
        np.testing.assert_array_equal(parts[-1].terminated, whole.terminated)
        np.testing.assert_array_equal(parts[-1].clean, whole.clean)
        live = live[~whole.terminated]


@games
def test_partial_guesses_reveal_nothing(make):
    task = make()
    engine = begun(task, 200, dense=True)
    said = task.guesses[engine.said().columns["secret"] - task.secrets]  # the secrets themselves
    rewards = np.array([engine.say(column).reward for column in said.T])
    assert (rewards[:-1] == 0).all() and (rewards[-1] == 1).all()


@games
def test_what_is_no_guess_is_asked_again_and_uses_up_its_turn(make):
    task = make(turns=2)
    engine = begun(task, 1)
    reply = int(task._replies[1, 0])
    assert not engine.action_masks()[0, reply]
    outcome = engine.say(np.array([reply]))
    assert (outcome.clean, outcome.terminated) == ([0.0], [False])
    assert engine.tokens[0, 1:3].tolist() == [reply, engine.tokens[0, 0]]
    assert engine.action_masks()[0, task.guesses[0, 0]]
    secret = task.guesses[engine.said().columns["secret"] - task.secrets]
    outcomes = [engine.say(column) for column in secret.T]
    assert (outcomes[-1].clean, outcomes[-1].terminated) == ([0.5], [True])


@games
@pytest.mark.parametrize("text", ["", "\N{SNOWMAN}"])
def test_texts_that_are_no_guess_use_up_all_turns(make, text):
    engine = begun(make(turns=3), 1)
    outcomes = [engine.utter([text]) for _ in range(3)]
    assert [outcome.terminated.item() for outcome in outcomes] == [False, False, True]
    assert not sum(outcome.clean.item() for outcome in outcomes)
    assert engine.context(0).replace(" ", "") == "????"


def test_turns_are_counted_when_a_guess_is_cut_short():
    engine = begun(GuessNumber(numbers=30, turns=2), 1)
    assert not engine.utter(["1"]).terminated
    assert engine.context(0) == "?1?"
    assert engine.utter(["29"]).terminated


@games
@pytest.mark.parametrize("distractors", [0, 3])
def test_every_length_of_episode_fits(make, distractors):
    task = make()
    engine = begun(task, 500, distractors=distractors)
    rng = np.random.default_rng(4)
    total = returns(engine, lambda rows: rng.integers(task.vocab_size, size=len(rows)))
    assert engine.length.max() <= engine.context_length == task.context_length + distractors
    assert set(np.round(total * task.turns, 9)) <= set(range(task.turns + 1))


@games
def test_candidates_are_guesses(make):
    task = make()
    every = [task.codec.decode(ids) for ids in task.guesses]
    engine = begun(task, 20)
    for k in (5, len(every), len(every) + 3):
        offered = task.candidates(engine.said(), k, RowRandom(np.arange(20), 0, Stream.PROMPT))
        assert all(len(set(texts)) == len(texts) <= k and set(texts) <= set(every) for texts in offered)
        assert k == 5 or offered == [every] * 20
        assert k > 5 or len({tuple(texts) for texts in offered}) > 10


@games
def test_guesses_become_texts_once(make, monkeypatch):
    task, random = make(), RowRandom(np.arange(20), 0, Stream.PROMPT)
    said = begun(task, 20).said()
    task.candidates(said, 3, random)
    monkeypatch.setattr(type(task.codec), "decode", None)
    assert [len(texts) for texts in task.candidates(said, len(task.guesses), random)] == [len(task.guesses)] * 20


@games
def test_a_turn_is_needed(make):
    with pytest.raises(ValueError, match="turns is at least 1, got 0"):
        make(turns=0)


def test_a_table_too_large_is_refused(monkeypatch):
    monkeypatch.setattr(game, "MAX_TABLE", 99)
    with pytest.raises(
        TooLarge, match=r"10 secrets x 10 guesses = 1.0e\+02 answers, more than 1e\+02; make the game"
    ):
        GuessNumber().optimal_return()
    assert GuessNumber().random_return() > 0
