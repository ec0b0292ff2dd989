import gymnasium as gym
import numpy as np
import pytest

import text_envs  # noqa: F401  (registers the ids)
from text_envs.tasks.base import Score, Task, a_bool, at_least, count, pad
from text_envs.tokenizer import CharacterTokenizer


class Silent(Task):
    """A task without known values."""

    def sample(self, random):
        raise NotImplementedError

    def score(self, said):
        return Score(np.zeros(len(said)))


def make(**keywords):
    return Silent(CharacterTokenizer("ab"), **{"max_prompt_tokens": 2, "max_new_tokens": 3, **keywords})


def test_the_context_has_room_for_prompt_and_budget():
    assert make().context_length == 5
    assert make(context_length=9).context_length == 9


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"max_prompt_tokens": 0}, "max_prompt_tokens is at least 1, got 0"),
        ({"max_new_tokens": 0}, "max_new_tokens is at least 1, got 0"),
        ({"context_length": 4}, "context_length is at least 5, got 4"),
    ],
)
def test_rooms_too_small_are_refused(keywords, message):
    with pytest.raises(ValueError, match=message):
        make(**keywords)


@pytest.mark.parametrize("value", [1.0, "1", None, True])
def test_sizes_are_integers(value):
    with pytest.raises(TypeError, match="size is an integer"):
        at_least(0, value, "size")


@pytest.mark.parametrize("value", ["no", "false", 0, 1, None])
@pytest.mark.parametrize(
    ("id", "name"),
    [
        ("Brackets", "masked"),
        ("Arithmetic", "reverse"),
        ("Sentiment", "lazy"),
        ("Summarize", "lazy"),
        ("Style", "chat_template"),
        ("Copy", "dense"),
    ],
)
def test_a_keyword_that_is_true_or_false_is_no_text(id, name, value):
    with pytest.raises(TypeError, match=f"{name} is True or False, got {value!r}"):
        gym.make(f"text_envs/{id}-v0", **{name: value})


def test_truth_may_be_numpys():
    assert a_bool(np.bool_(False), "lazy") is False and a_bool(True, "lazy") is True


@pytest.mark.parametrize("name", ["optimal_return", "random_return"])
def test_a_value_nobody_knows_is_an_error(name):
    with pytest.raises(NotImplementedError, match="Silent has no exact values"):
        getattr(make(), name)()


def test_pads_ragged_rows():
    tokens, lengths = pad([[1], [], [2, 3]], 9)
    assert tokens.tolist() == [[1, 9], [9, 9], [2, 3]] and lengths.tolist() == [1, 0, 2]
    assert pad([[], []], 9)[0].shape == (2, 0)


def test_counts_hits():
    hits = np.random.default_rng(0).random((50, 13)) < 0.5
    np.testing.assert_array_equal(count(hits), hits.sum(axis=1))
