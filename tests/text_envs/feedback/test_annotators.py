"""Simulated annotators: answers are as frequent as their probabilities say, biases point where they should."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from text_envs.feedback.annotators import FIRST, SECOND, TIE, Annotator, scale_of_noise, simulate

REWARDS = np.array([[1.0, 0.0], [0.0, 2.0], [0.5, 0.5]])
NUMBERS = st.floats(-20, 20)


def test_probabilities_are_those_of_bradley_terry_and_rao_kupper():
    theta, person = 1.8, Annotator(scale=2.0, tie_threshold=math.log(1.8))
    for (first, second), found in zip(REWARDS, person.probabilities(REWARDS), strict=True):
        a, b = math.exp(2 * first), math.exp(2 * second)
        wins, loses = a / (a + theta * b), b / (b + theta * a)
        np.testing.assert_allclose(found, [wins, loses, 1 - wins - loses], rtol=1e-12)


@pytest.mark.parametrize(
    "person",
    [
        Annotator(scale=1.5),
        Annotator(tie_threshold=0.7),
        Annotator(lapse=0.4),
        Annotator(lapse=0.4, tie_threshold=0.7),
        Annotator(position_bias=1.0, length_bias=0.2),
    ],
)
def test_answers_are_as_frequent_as_their_probabilities(person):
    lengths, n = np.array([[3, 1], [2, 2], [1, 9]]), 20_000
    answers = person.choose(np.repeat(REWARDS, n, 0), np.random.default_rng(0), np.repeat(lengths, n, 0))
    for drawn, expected in zip(answers.reshape(3, n), person.probabilities(REWARDS, lengths), strict=True):
        frequencies = np.bincount(drawn, minlength=3) / n
        np.testing.assert_allclose(frequencies, expected, atol=5 * 0.5 / math.sqrt(n))


@given(NUMBERS, NUMBERS, st.floats(0, 5), st.floats(0, 1), st.floats(0, 5), NUMBERS)
def test_probabilities_are_a_distribution(a, b, scale, lapse, threshold, position):
    person = Annotator(scale=scale, lapse=lapse, tie_threshold=threshold, position_bias=position)
    (found,) = person.probabilities([[a, b]])
    assert (found >= 0).all() and found.sum() == pytest.approx(1)
    assert (found[TIE] > 0) == (threshold > 0) or scale * abs(a - b) + abs(position) > 30  # underflow


def test_biases_point_where_they_should():
    same = np.zeros((1, 2))
    (by_place,) = Annotator(position_bias=1.0).probabilities(same)
    (by_length,) = Annotator(length_bias=0.5).probabilities(same, [[4, 10]])
    assert by_place[FIRST] > 0.7 and by_length[SECOND] > 0.9
    with pytest.raises(ValueError, match="length_bias=0.5 needs the texts' lengths"):
        Annotator(length_bias=0.5).probabilities(same)


def test_best_accuracy_is_what_the_best_ranking_reaches():
    rng = np.random.default_rng(1)
    person = Annotator(scale=1.0, position_bias=0.8, lapse=0.1, tie_threshold=0.3)
    gold = rng.normal(size=(200, 2))
    hits = decided = 0
    for _ in range(300):
        turned = rng.random(len(gold)) < 0.5
        answers = person.choose(np.where(turned[:, None], gold[:, ::-1], gold), rng)
        wins = np.where(turned, answers == SECOND, answers == FIRST)  # the first column's text
        said = answers != TIE
        hits += (wins == (gold[:, 0] > gold[:, 1]))[said].sum()
        decided += said.sum()
    assert hits / decided == pytest.approx(person.best_accuracy(gold), abs=0.006)


def test_a_length_bias_can_turn_the_best_ranking_around():
    gold, lengths = [[1.0, 0.0]], [[1, 10]]
    person = Annotator(length_bias=0.5)
    assert person.best_accuracy(gold, lengths) == pytest.approx(person.probabilities(gold, lengths)[0, SECOND])


def test_the_scale_of_a_noise_has_that_noise():
    gold = np.random.default_rng(0).normal(size=(500, 2))
    for noise in (0.01, 0.1, 0.4):
        wrong = Annotator(scale=scale_of_noise(gold, noise)).probabilities(-np.sort(-gold, axis=1))[:, SECOND]
        assert wrong.mean() == pytest.approx(noise, rel=1e-6)
    assert Annotator(scale=scale_of_noise(gold, 0.0)).best_accuracy(gold) == pytest.approx(1, abs=1e-3)
    with pytest.raises(ValueError, match="noise=0.5"):
        scale_of_noise(gold, 0.5)
    with pytest.raises(ValueError, match="0 pairs that differ"):
        scale_of_noise([[1.0, 1.0]], 0.1)


def length(prompts, completions, **columns):
    return [float(len(completion)) for completion in completions]


def test_simulated_comparisons_follow_the_reward_and_the_generator():
    pairs = [("a" * (i % 5), "b" * (i % 3)) for i in range(60)]
    sure = Annotator(scale=1e3)
    records = simulate(["p"] * 60, pairs, length, sure, np.random.default_rng(0))
    assert all(len(r["chosen"]) >= len(r["rejected"]) and not r["tie"] for r in records)
    assert {r["chosen"][:1] for r in records if len(r["chosen"]) == len(r["rejected"]) == 1} == {"a", "b"}
    assert records == simulate(["p"] * 60, pairs, length, sure, np.random.default_rng(0))
    ties = simulate(["p"] * 60, pairs, length, Annotator(tie_threshold=50), np.random.default_rng(0))
    assert all(r["tie"] and {r["chosen"], r["rejected"]} == set(p) for r, p in zip(ties, pairs, strict=True))


@pytest.mark.parametrize(
    ("keywords", "told"),
    [
        ({"scale": -1}, "scale=-1"),
        ({"lapse": 1.5}, "lapse=1.5"),
        ({"position_bias": math.nan}, "position_bias=nan"),
    ],
)
def test_numbers_out_of_range_are_refused(keywords, told):
    with pytest.raises(ValueError, match=told):
        Annotator(**keywords)


def test_rewards_must_be_pairs_of_finite_numbers():
    for wrong in ([1.0, 2.0], [[1.0, math.inf]], [[1.0, 2.0, 3.0]]):
        with pytest.raises(ValueError, match=r"of shape \(n, 2\)"):
            Annotator().probabilities(wrong)
