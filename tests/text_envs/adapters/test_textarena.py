import copy
import os
import pickle
import random
import re
import string
import subprocess
import sys
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv

from text_envs import TokenEnv, TokenVectorEnv, UtteranceEnv, UtteranceVectorEnv
from text_envs.adapters import textarena
from text_envs.adapters.textarena import EXCLUDED, GAMES, TextArena
from text_envs.tokenizer import ByteTokenizer, CharacterTokenizer

ta = pytest.importorskip("textarena")
ROOT = Path(__file__).parents[3]
ID = "text_envs/TextArena-v0"
SLOW = {"RushHour-v0", "Set-v0", "Sokoban-v0", "Sudoku-v0-hard", "Sudoku-v0-medium"}
VERY_SLOW = {"Sokoban-v0-medium"}
MOVES = ["up", "[left]", "down", "right"]


def episode(env, moves, seed=None):
    """Return the observations and rewards of one episode of a single environment."""
    seen, over = [env.reset(seed=seed)[0]], False
    while not over:
        observation, reward, over, _, info = env.step(next(moves))
        seen += [observation, reward, info]
    return seen


def walk(seed):
    rng = random.Random(seed)
    while True:
        yield rng.choice(MOVES)


def test_halving_finds_the_number():
    env = gym.make(ID, level="utterance")
    context, _ = env.reset(seed=3)
    low, high, over, rewards = 1, 20, False, []
    while not over:
        guess = (low + high) // 2
        context, reward, over, _, info = env.step(f"[{guess}]")
        rewards.append(reward)
        low, high = (guess + 1, high) if "higher" in context[-40:] else (low, guess - 1)
    assert rewards[-1] == 1.0 and not any(rewards[:-1])
    assert info["game_over"] and info["game_reason"].startswith("Congratulations")


@pytest.mark.parametrize("game", ["GuessTheNumber-v0", "FrozenLake-v0", "Mastermind-v0", "LightsOut-v0"])
def test_the_context_is_what_textarena_shows(game):
    """Games that draw nothing after they began: textarena's own loop is the slow twin."""
    seeds = []

    class Begun(TextArena):
        def sample(self, random):
            samples = super().sample(random)
            seeds.extend(samples.columns["game_seed"].tolist())
            return samples

    env = UtteranceEnv(Begun(game=game))
    context, _ = env.reset(seed=5)
    state = random.getstate()
    theirs = ta.make(game)
    theirs.reset(num_players=1, seed=seeds[-1])
    over, reward = False, 0.0
    for k in range(40):
        assert context == f"{theirs.get_observation()[1][1:]}\n[Player] "
        move = ("[3]", "[down]", "[1 2 3 4]", "[right]", "[2 2]")[k % 5]
        context, reward, over, _, info = env.step(move)
        assert theirs.step(move)[0] is over
        if over:
            break
    rewards, game_info = theirs.close()
    random.setstate(state)
    assert over and reward == rewards[0] and info["game_reason"] == game_info[0]["reason"]


def test_every_game_begins_and_takes_moves():
    for game in sorted(set(GAMES) - SLOW - VERY_SLOW):
        env = UtteranceVectorEnv(TextArena(game=game), 2)
        contexts, _ = env.reset(seed=1)
        assert all(text.startswith("[GAME] ") and text.endswith("[Player] ") for text in contexts)
        for move in ("", "1 1", "²"):
            _, reward, *_ = env.step((move, move))
            assert np.isfinite(reward).all(), game


@pytest.mark.slow
@pytest.mark.parametrize("game", sorted(SLOW))
def test_slow_games_begin(game):
    assert UtteranceEnv(TextArena(game=game)).reset(seed=1)[0].endswith("[Player] ")


def test_the_lists_are_textarenas():
    ids = {id for id in ta.envs.registration.ENV_REGISTRY if not id.endswith(("-raw", "-train"))}
    assert set(GAMES) <= ids and set(EXCLUDED) <= ids
    assert not set(GAMES) & set(EXCLUDED) and len(set(GAMES)) == len(GAMES)


def test_an_episode_knows_nothing_of_the_one_before():
    env = UtteranceEnv(TextArena(game="2048-v0"))
    episode(env, walk(0), seed=1)
    again = episode(env, walk(1))
    assert again[0].count("[GAME]") == 2 and "[Player] up" not in again[0]
    assert episode(UtteranceEnv(TextArena(game="2048-v0")), walk(0), seed=1) != again


def test_one_seed_is_one_trajectory_in_batches_of_any_kind():
    moves = [tuple(random.Random(k).choices(MOVES, k=3)) for k in range(12)]
    keywords = {"level": "utterance", "game": "2048-v0-3x3"}
    makers = [lambda: gym.make(f"text_envs:{ID}", **keywords)] * 3

    def run(env):
        found = [env.reset(seed=9)[0]]
        for move in moves:
            found += [part.tolist() if isinstance(part, np.ndarray) else part for part in env.step(move)[:3]]
        env.close()
        return found

    mode = gym.vector.AutoresetMode.SAME_STEP
    expected = run(gym.make_vec(ID, num_envs=3, **keywords))
    assert run(SyncVectorEnv(makers, autoreset_mode=mode)) == expected
    assert run(AsyncVectorEnv(makers, autoreset_mode=mode, shared_memory=False)) == expected


def test_games_that_were_forgotten_are_played_again(monkeypatch):
    """The slow twin of the memory: without one, every position is found by replaying."""
    expected = episode(UtteranceEnv(TextArena(game="2048-v0-3x3")), walk(3), seed=2)
    monkeypatch.setattr(textarena, "REMEMBERED", 1)
    assert episode(UtteranceEnv(TextArena(game="2048-v0-3x3")), walk(3), seed=2) == expected
    assert len(expected) > 20


def test_rows_of_one_seed_do_not_disturb_each_other():
    env = UtteranceVectorEnv(TextArena(game="2048-v0"), 2)
    env.reset(seed=[7, 7])
    alone = UtteranceEnv(TextArena(game="2048-v0"))
    alone.reset(seed=7)
    for move in ("up", "left", "right", "down"):
        (_, second), *_ = env.step(("down", move))
        assert second == alone.step(move)[0]


def test_rows_of_one_seed_begin_one_game_and_replay_none(monkeypatch):
    begun = []
    begin = TextArena._begin
    monkeypatch.setattr(TextArena, "_begin", lambda self, seed: begun.append(seed) or begin(self, seed))
    env = UtteranceVectorEnv(TextArena(game="2048-v0"), 8)
    env.reset(seed=[7] * 6 + [8] * 2)
    for k in range(3):  # rows go apart, two by two, and meet in what they say
        env.step(tuple(MOVES[row * k % 4] for row in range(8)))
    assert len(begun) == len(set(begun)) == 2


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))])
def test_copies_go_on_alike_and_apart(duplicate):
    env = UtteranceEnv(TextArena(game="2048-v0"))
    env.reset(seed=3)
    env.step("up")
    twin = duplicate(env)
    for move in ("left", "down", "left"):
        assert env.step(move) == twin.step(move)
    assert env.step("up")[0] != twin.step("right")[0]


@pytest.mark.parametrize("dense", [False, True])
def test_a_move_earns_the_same_token_by_token(dense):
    task = TextArena(game="FrozenLake-v0", max_new_tokens=7)  # "[right]" closes by the budget
    tokens, texts = TokenEnv(task, dense=dense), UtteranceEnv(task)
    for seed in range(3):
        tokens.reset(seed=seed)
        texts.reset(seed=seed)
        moves, over, total, expected = walk(seed), False, 0.0, 0.0
        while not over:
            move = next(moves)
            context, reward, over, _, info = texts.step(move)
            expected += reward
            for token in [*move.encode(), task.end_token_id][:7]:
                observation, reward, ended, _, other = tokens.step(token)
                total += reward
            assert (ended, other) == (over, info)
            assert task.codec.decode(observation[observation < task.vocab_size]) == context
        assert total == expected


def test_a_full_context_ends_the_episode():
    env = UtteranceEnv(TextArena(game="FrozenLake-v0", context_length=1500))
    seen = episode(env, walk(0), seed=1)
    assert seen[-2] == 0.0 and seen[-1] == {"reward_clean": 0.0, "game_over": False, "game_reason": ""}
    assert re.search(r"\[Player\] [^\n]*$", seen[-3])  # the game's words are left out
    env = TokenEnv(TextArena(game="FrozenLake-v0", context_length=900))
    env.reset(seed=1)
    over = False
    for _ in range(900):
        *_, over, _, info = env.step(65)
        if over:
            break
    assert over and not info["game_over"]


def test_the_global_generators_are_left_alone():
    random.seed(5)
    np.random.seed(5)
    before = random.getstate(), np.random.get_state()[1].tolist()
    for game in sorted(set(GAMES) - SLOW - VERY_SLOW):
        episode(UtteranceEnv(TextArena(game=game)), walk(1), seed=2)
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before


def test_moves_draw_from_no_generator_of_numpys():
    """They run without isolation from it, which would cost more than the move."""
    env = UtteranceEnv(TextArena(game="Sokoban-v0"))
    env.reset(seed=1)
    before = np.random.get_state()[1].tolist()
    moves, over = walk(2), False
    while not over:
        over = env.step(next(moves))[2]
    assert np.random.get_state()[1].tolist() == before


def test_a_move_without_tokens_ends_the_episode():
    alphabet = "".join(sorted(set(string.printable) - set("\r\v\f")))
    env = UtteranceEnv(TextArena(tokenizer=CharacterTokenizer(alphabet, end=True)))
    env.reset(seed=1)
    env.step("[3]")
    assert env.step("é")[1:4] == (0.0, True, False)


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"game": "FrozenLak-v0"}, "game='FrozenLak-v0' is not known; the nearest are FrozenLake-v0"),
        ({"game": "Wordle-v0"}, "left out: it downloads a word list"),
        ({"tokenizer": ByteTokenizer(end=False)}, r"has none; pass ByteTokenizer\(\)"),
        ({"context_length": 16}, "max_prompt_tokens is at least 1, got 0"),
    ],
)
def test_bad_keywords(keywords, message):
    with pytest.raises(ValueError, match=message):
        TextArena(**keywords)


def test_rules_that_do_not_fit():
    env = TokenVectorEnv(TextArena(context_length=400), 1)
    with pytest.raises(ValueError, match="the rules of GuessTheNumber-v0 take .* context_length=400; raise it"):
        env.reset(seed=1)


def test_numbers_that_python_refuses_are_invalid_moves():
    huge = "9" * 5000
    for game in sorted(set(GAMES) - SLOW - VERY_SLOW):
        for move in (huge, f"{huge} {huge}", f"{huge} {huge} {huge}", f"{huge},{huge}", f"A {huge}"):
            env = UtteranceEnv(TextArena(game=game, max_new_tokens=20000, context_length=60000))
            env.reset(seed=1)
            _, reward, over, *_ = env.step(move)
            assert reward <= 0 or over, (game, reward)
    env = UtteranceEnv(TextArena(max_new_tokens=6000, context_length=20000))
    env.reset(seed=1)
    assert "guessed a number outside the range" in env.step(f"[{huge}]")[0]


def test_a_game_that_fails_stops_the_run(monkeypatch):
    from textarena.envs.GuessTheNumber.env import GuessTheNumberEnv

    monkeypatch.setattr(GuessTheNumberEnv, "step", lambda self, action: 1 / 0)
    env = UtteranceEnv(TextArena())
    env.reset(seed=1)
    with pytest.raises(ValueError, match="GuessTheNumber-v0 raised ZeroDivisionError.* on the move '7'"):
        env.step("7")


def test_a_missing_suite_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "textarena", None)
    with pytest.raises(ImportError, match=r"textarena.*text-envs\[suites\]"):
        TextArena()


@pytest.mark.slow
def test_string_hashes_change_nothing():
    pytest.importorskip("reasoning_gym")
    script = """
import gymnasium as gym, hashlib, text_envs
for keywords in (
    *({"id": "text_envs/ReasoningGym-v0", "dataset": name, "size": 8} for name in (
        "isomorphic_strings", "ransom_note", "polynomial_multiplication", "word_ladder", "list_functions")),
    *({"id": "text_envs/TextArena-v0", "game": name} for name in ("2048-v0", "Set-v0", "LogicPuzzle-v0")),
):
    env = gym.make_vec(**keywords, num_envs=5, level="utterance")
    digest = hashlib.sha256(repr(env.reset(seed=3)).encode())
    for move in ("[up]", "1, 2, 3", "[left]", "x*y"):
        digest.update(repr(env.step((move,) * 5)[:3]).encode())
    print(keywords, env.unwrapped.task.max_new_tokens, digest.hexdigest())
"""
    found = []
    for seed in ("1", "2"):
        variables = {**os.environ, "PYTHONHASHSEED": seed}
        done = subprocess.run(
            [sys.executable, "-c", script], env=variables, cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        found.append(done.stdout)
    assert found[0] == found[1] and len(found[0].splitlines()) == 8
