import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from text_envs.streams import RowRandom, Stream, seed_to_word

WORD = (1 << 64) - 1


def mix_in_python(x):
    x ^= x >> 30
    x = x * 0xBF58476D1CE4E5B9 & WORD
    x ^= x >> 27
    x = x * 0x94D049BB133111EB & WORD
    return x ^ x >> 31


def words_in_python(seed, episode, stream, count):
    golden = 0x9E3779B97F4A7C15
    key = mix_in_python((seed + golden) & WORD)
    for word in (episode, stream):
        key = mix_in_python(((key ^ word) + golden) & WORD)
    return [mix_in_python((key + (i + 1) * golden) & WORD) for i in range(count)]


@given(st.integers(0, WORD), st.integers(0, 2**40), st.sampled_from(Stream), st.integers(1, 2**32))
def test_equals_the_hash_written_with_python_integers(seed, episode, stream, high):
    words = words_in_python(seed, episode, stream, 3)
    assert RowRandom([seed], [episode], stream).words(3)[0].tolist() == words
    assert RowRandom([seed], [episode], stream).integers(high, 3)[0].tolist() == [w * high >> 64 for w in words]
    assert RowRandom([seed], [episode], stream).random(3)[0].tolist() == [(w >> 11) / 2**53 for w in words]


def chi_square(counts):
    expected = counts.sum() / counts.size
    return (((counts - expected) ** 2).sum() / expected - (counts.size - 1)) / np.sqrt(2 * (counts.size - 1))


@pytest.mark.parametrize("high", [2, 7, 16, 100])
@pytest.mark.parametrize("axis", ["seeds", "episodes", "index"])
def test_uniform_over_neighbouring_seeds_episodes_and_indices(high, axis):
    n = 60_000
    seeds = np.arange(n) if axis == "seeds" else np.full(1 if axis == "index" else n, 5)
    episodes = np.arange(n) if axis == "episodes" else np.zeros(len(seeds), int)
    draws = RowRandom(seeds, episodes, Stream.PROMPT).integers(high, n if axis == "index" else 1)
    assert abs(chi_square(np.bincount(draws.ravel(), minlength=high))) < 5


@pytest.mark.parametrize("step", [1, 64])
def test_neighbouring_rows_are_independent(step):
    draws = RowRandom(np.arange(40_000), 0, Stream.PROMPT).integers(8, 1)[:, 0]
    pairs = np.bincount(draws[:-step] * 8 + draws[step:], minlength=64)
    assert abs(chi_square(pairs)) < 5


def test_streams_and_sub_streams_differ():
    drawn = [RowRandom([1], [2], stream).words(4).tolist() for stream in Stream]
    drawn += [RowRandom([1], [2], Stream.REPLY).fold(turn).words(4).tolist() for turn in range(3)]
    assert len({str(words) for words in drawn}) == len(drawn)


def test_rows_do_not_depend_on_their_neighbours_or_on_how_draws_are_grouped():
    batch = RowRandom(np.arange(10), np.arange(10), Stream.PROMPT)
    alone = RowRandom([7], [7], Stream.PROMPT)
    together = batch.integers(1000, 6)[7].tolist()
    assert together == [*alone.integers(1000, 2)[0], *alone.integers(1000, 4)[0]]


def test_floats_and_normals_have_their_moments():
    random = RowRandom(np.arange(50_000), 3, Stream.NOISE)
    uniform, normal = random.random(1), random.normal(1)
    assert uniform.min() >= 0 and uniform.max() < 1
    assert uniform.mean() == pytest.approx(1 / 2, abs=0.01) and uniform.var() == pytest.approx(1 / 12, abs=0.002)
    assert normal.mean() == pytest.approx(0, abs=0.03) and normal.var() == pytest.approx(1, abs=0.03)
    assert np.isfinite(normal).all()


@given(st.integers(0, 1 << 200), st.integers(0, 1 << 200))
def test_seeds_of_any_size_become_words(a, b):
    assert 0 <= seed_to_word(a) <= WORD
    assert a > WORD or seed_to_word(a) == a
    assert a == b or seed_to_word(a) != seed_to_word(b)


@pytest.mark.parametrize("seed", [1.5, "1", None, [1], np.float64(1)])
def test_a_seed_is_an_integer(seed):
    with pytest.raises(TypeError, match="a seed is a non-negative integer, got"):
        seed_to_word(seed)


@pytest.mark.parametrize("kind", [np.int8, np.int64, np.uint64, np.array])
def test_integers_of_any_kind_are_seeds(kind):
    assert seed_to_word(kind(7)) == 7 and type(seed_to_word(kind(7))) is int


def test_a_negative_seed_is_refused():
    with pytest.raises(ValueError, match="-3; pass one such as 3"):
        seed_to_word(-3)


@pytest.mark.parametrize("high", [0, -1, 2**32 + 1])
def test_an_empty_or_too_wide_range_is_refused(high):
    with pytest.raises(ValueError, match=f"high={high}"):
        RowRandom([0], [0], Stream.PROMPT).integers(high, 1)


def test_the_hash_seed_of_python_does_not_matter():
    program = (
        "import gymnasium as gym; print(gym.make('text_envs:text_envs/Sentiment-v0').reset(seed=3)[0].tolist())"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", program],
            env=os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("0", "1")
    }
    assert len(said) == 1
