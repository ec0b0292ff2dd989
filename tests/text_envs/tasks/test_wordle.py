from collections import Counter

import numpy as np
import pytest

from text_envs import UtteranceEnv
from text_envs.tasks.wordle import Wordle
from text_envs.words import FIVE_LETTERS


def marks(secret, guess):
    """Mark a guess with a tally of the secret's letters that no green mark accounts for."""
    left = Counter(s for s, g in zip(secret, guess, strict=True) if s != g)
    shown = ""
    for s, g in zip(secret, guess, strict=True):
        if s == g:
            shown += "G"
        else:
            shown += "Y" if left[g] else "-"
            left[g] -= left[g] > 0
    return shown


@pytest.mark.parametrize(
    ("secret", "guess", "expected"),
    [
        ("apple", "apple", "GGGGG"),
        ("brick", "phone", "-----"),
        ("angle", "llama", "Y-Y--"),  # one l, one a: the second of each is marked as absent
        ("llama", "angle", "Y--Y-"),
        ("abbey", "babes", "YYGG-"),
        ("abide", "added", "GY-Y-"),  # one d, shown once
        ("eerie", "geese", "-GY-G"),
        ("these", "geese", "--GGG"),  # both e are green before the first could be yellow
        ("speed", "eerie", "YY---"),
        ("aabbb", "bbaaa", "YYYY-"),
    ],
)
def test_repeated_letters(secret, guess, expected):
    env = UtteranceEnv(Wordle(words=[secret, guess, "zzzzz"]))
    env.reset(seed=0)
    env._engine.said().columns["secret"][0] = env.task.words.index(secret)
    assert marks(secret, guess) == expected
    assert env.step(guess)[0] == f"?{guess}{expected}"


def test_answers_are_those_of_a_tally():
    task = Wordle(words=["".join(row) for row in np.random.default_rng(0).choice(list("abc"), (60, 5))])
    for i, secret in enumerate(task.words):
        codes = task.answer(np.full(len(task.words), i), np.arange(len(task.words)))
        assert [task.codec.decode(task._replies[code]) for code in codes] == [marks(secret, g) for g in task.words]


def test_the_words_of_this_project():
    assert len(set(FIVE_LETTERS)) == len(FIVE_LETTERS) >= 100
    assert Wordle().words == sorted(FIVE_LETTERS)


def test_only_letters_that_continue_a_word_are_legal():
    env = UtteranceEnv(Wordle(words=["able", "ably", "bake"], length=4))
    _, info = env.reset(seed=0)
    legal = [env.task.codec.decode([i]) for i in np.flatnonzero(info["action_mask"])]
    assert legal == ["a", "b"]
    assert env.step("abba")[0] == "?abb?"


def test_words_of_a_file(tmp_path):
    path = tmp_path / "words.txt"
    path.write_text("Able\nbake\n\nit's\ncake\nbakes\nBAKE\n", encoding="utf-8")
    task = Wordle(words=path, length=4)
    assert task.words == ["able", "bake", "cake"] and task.length == 4


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        (
            {"words": ["able", "bakes"]},
            "1 of the 2 words have 5 letters, and Wordle needs 2 to 100,000; pass other",
        ),
        ({"length": 4}, "0 of the [0-9]+ words have 4 letters"),
        ({"length": 1}, "length is at least 2, got 1"),
        ({"length": 11}, "length is at most 10, got 11"),
    ],
)
def test_impossible_words_are_refused(keywords, message):
    with pytest.raises(ValueError, match=message):
        Wordle(**keywords)


def test_a_missing_file_is_named():
    with pytest.raises(FileNotFoundError, match="no_such_list.txt"):
        Wordle(words="no_such_list.txt")
