"""Lipogram: scores against a set of words, exact values against every utterance."""

import numpy as np
import pytest

from text_envs import TokenEnv, UtteranceEnv
from text_envs.tasks.lipogram import WORDS, Lipogram

TINY = {"words": ["a", "ab", "ba", "bb"], "letters": "ab"}


def points(text, allowed):
    """Return the letters in allowed words, less the other words but for an unfinished last one."""
    *finished, last = text.split(" ")
    total = sum(len(word) if word in allowed else -1 for word in finished if word)
    if last in allowed:
        return total + len(last)
    return total - (not any(word.startswith(last) for word in allowed))


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
    assert min(seen) < 0 and len(seen) > 10


@pytest.mark.parametrize(
    ("text", "earned"),
    [("", 0), ("sun", 3), ("su", 0), ("su ", -1), ("sun sun", 6), ("  sun ", 3), ("sunx", -1), ("sunx xx sky", 1)],
)
def test_words_earn_their_letters(text, earned):
    env = UtteranceEnv(Lipogram(letters="e"))
    assert env.reset(seed=0)[0] == "e"
    assert env.step(text)[1] == earned / 16


def test_dense_pays_a_word_when_it_is_one():
    task = Lipogram(words=["sun", "sung"], letters="e", length=8)
    env = TokenEnv(task, dense=True)
    env.reset(seed=0)
    rewards = [env.step(token)[1] for token in task.codec.encode("sunge s ")]
    np.testing.assert_allclose(np.array(rewards) * 8, [0, 0, 3, 1, -5, 0, 0, -1])


def test_the_machine_is_the_environment(check_enumeration):
    check_enumeration(Lipogram(**TINY, length=6))
    check_enumeration(Lipogram(length=3), seeds=range(2))


def test_values_are_those_of_simulation(check_simulation):
    task = Lipogram()
    check_simulation(task)
    assert task.random_return() < 0 < task.optimal_return() < 1


def test_the_best_are_the_longest_words():
    task = Lipogram(words=["oak", "plum", "elder"], letters="ed", length=9)
    env = UtteranceEnv(task)
    env.reset(seed=0)
    best = task.demonstrate(env.unwrapped._engine.said())[0]
    assert task.codec.decode(best) == "plum plum"
    assert task.optimal_return() == pytest.approx(8 / 9)


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
