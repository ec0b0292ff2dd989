"""Lipogram: scores against a set of words, exact values against every utterance."""

import numpy as np
import pytest

from text_envs import TokenEnv, UtteranceEnv
from text_envs.tasks.lipogram import WORDS, Lipogram

TINY = {"words": ["a", "ab", "ba", "bb"], "letters": "ab"}


def points(text, allowed):
    """Return the characters with which the text goes on to be allowed words with spaces between them."""
    total, word = 0, ""
    for character in text:
        if word is None:  # a mistake waits for its space
            word = "" if character == " " else None
        elif character == " ":
            total, word = (total + 1, "") if word in allowed else (total, None)
        else:
            word += character
            total, word = (total + 1, word) if any(a.startswith(word) for a in allowed) else (total, None)
    return total


def texts_of(task, rng, count):
    """Yield texts of words of the list, beginnings of words and letters at random."""
    letters = [piece for piece in task.tokenizer.vocabulary[:-2]]
    for _ in range(count):
        words = rng.choice(WORDS, rng.integers(4)).tolist() + ["".join(rng.choice(letters, rng.integers(3)))]
        if words[0]:
            words.append(words[0][: rng.integers(len(words[0]) + 1)])
        yield (" " * rng.integers(1, 3)).join(words)[: task.max_new_tokens]


def test_scores_are_those_of_a_set_of_words():
    task = Lipogram()
    env, seen = UtteranceEnv(task), set()
    for seed, text in enumerate(texts_of(task, np.random.default_rng(0), 600)):
        letter, _ = env.reset(seed=seed)
        allowed = {word for word in WORDS if letter not in word}
        reward = env.step(text)[1]
        assert reward == points(text, allowed) / 16, (letter, text)
        seen.add(reward)
    assert len(seen) > 10


@pytest.mark.parametrize(
    ("text", "earned"),
    [
        ("", 0),
        ("su", 2),
        ("sun ", 4),
        ("sun s", 5),
        ("sun  sky sky", 7),
        (" sun sun", 3),
        ("sux sun", 5),
        ("me sky", 4),
    ],
)
def test_what_goes_on_to_be_allowed_words_is_paid(text, earned):
    env = UtteranceEnv(Lipogram(letters="e"))
    assert env.reset(seed=0)[0] == "e"
    assert env.step(text)[1] == earned / 16


def test_dense_pays_each_right_token():
    task = Lipogram(words=["sun", "sung"], letters="e", length=10)
    env = TokenEnv(task, dense=True)
    env.reset(seed=0)
    rewards = [env.step(token)[1] for token in task.codec.encode("sung sue s")]
    np.testing.assert_allclose(np.array(rewards) * 10, [1, 1, 1, 1, 1, 1, 1, 0, 0, 1])


def test_the_machine_is_the_environment(check_enumeration):
    check_enumeration(Lipogram(**TINY, length=6))
    check_enumeration(Lipogram(length=3), seeds=range(2))


def test_values_are_those_of_simulation(check_simulation):
    task = Lipogram()
    check_simulation(task)
    assert 0 < task.random_return() < 0.1
    assert task.optimal_return() == 1


def test_the_best_says_allowed_words_to_the_end():
    task = Lipogram(words=["oak", "plum", "elder"], letters="d", length=10)
    env = UtteranceEnv(task)
    env.reset(seed=0)
    best = task.codec.decode(task.demonstrate(env.unwrapped._engine.said())[0])
    assert len(best) == 10 and points(best, {"oak", "plum"}) == 10


def test_the_list_is_what_it_says():
    assert len(set(WORDS)) == len(WORDS) >= 150
    assert all(word.isalpha() and word.islower() and len(word) <= 5 for word in WORDS)
    assert Lipogram().vocab_size == 26 + 2  # every letter, space and end
    assert all(sum(letter not in word for word in WORDS) > 50 for letter in "etaoin")


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"words": "sun moon"}, "words are a list of words without white space, got 'sun moon'"),
        ({"words": ["sun", "full moon"]}, "got 'full moon'"),
        ({"words": ["sun", ""]}, "got ''"),
        ({"words": []}, "no word of the list does without 'e'"),
        ({"words": ["tea", "sun"], "letters": "au"}, None),
        ({"words": ["tea", "ten"], "letters": "ae"}, "no word of the list does without 'e'; add one or forbid"),
        ({"letters": ""}, "letters are different ones, at least one and no space, got ''"),
        ({"letters": "ee"}, "got 'ee'"),
        ({"letters": "e "}, "got 'e '"),
        ({"length": 0}, "length is at least 1, got 0"),
    ],
)
def test_impossible_lists_are_refused(keywords, message):
    if message is None:
        assert Lipogram(**keywords).optimal_return() > 0
        return
    with pytest.raises(ValueError, match=message):
        Lipogram(**keywords)
