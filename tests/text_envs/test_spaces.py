import copy
import pickle
import sys

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv
from gymnasium.vector.utils import batch_space, concatenate, create_empty_array, iterate
from hypothesis import given
from hypothesis import strategies as st

from text_envs.spaces import UnicodeText, first_surrogate


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_contains_any_unicode_text(text):
    assert text in UnicodeText(len(text))
    assert not text or text not in UnicodeText(len(text) - 1)
    assert text not in UnicodeText(len(text) + 1, min_length=len(text) + 1)


@given(st.text(), st.characters(categories=["Cs"]), st.text())
def test_contains_no_lone_surrogate(before, surrogate, after):
    text = before + surrogate + after
    assert text not in UnicodeText(len(text))
    assert first_surrogate(text) <= len(before)


@pytest.mark.parametrize("value", [None, 3, b"bytes", ["a"], np.array("a")])
def test_contains_only_strings(value):
    assert value not in UnicodeText(8)


def test_samples_are_members_seeded_and_of_every_length():
    space = UnicodeText(5, min_length=2, seed=1)
    texts = [space.sample() for _ in range(300)]
    assert all(text in space for text in texts)
    assert {len(text) for text in texts} == {2, 3, 4, 5}
    assert texts == [
        text for s in [UnicodeText(5, min_length=2, seed=1)] for text in [s.sample() for _ in range(300)]
    ]
    assert max(map(ord, "".join(texts))) > 0xFFFF
    assert len(space.sample(mask=(3, None))) == len(space.sample(probability=(3, None))) == 3


def test_samples_may_be_shorter_than_the_longest_text():
    space = UnicodeText(100, longest_sample=3)
    assert {len(space.sample()) for _ in range(100)} == {0, 1, 2, 3}
    assert "a" * 100 in space and len(space.sample(mask=(50, None))) == 50
    with pytest.raises(ValueError, match=r"longest_sample is in 2\.\.5, got 6"):
        UnicodeText(5, min_length=2, longest_sample=6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mask": (None, np.ones(3, np.int8))}, "cannot weigh single characters"),
        ({"mask": (9, None)}, r"length 9 is outside 0\.\.5"),
        ({"mask": (1, None), "probability": (1, None)}, "not both"),
    ],
)
def test_sample_refuses_what_it_cannot_do(arguments, message):
    with pytest.raises(ValueError, match=message):
        UnicodeText(5).sample(**arguments)


def test_equality_repr_and_copies():
    space = UnicodeText(5)
    assert space == UnicodeText(5) == copy.deepcopy(space) == pickle.loads(pickle.dumps(space))
    assert space != UnicodeText(6) and space != UnicodeText(5, min_length=1) and space != spaces.Text(5)
    assert repr(space) == "UnicodeText(0, 5)"


def test_never_builds_a_set_of_all_characters():
    space = UnicodeText(5)
    assert len(pickle.dumps(space)) < 2000
    assert sum(sys.getsizeof(value) for value in vars(space).values()) < 5000
    for name in ("character_set", "character_list", "characters"):
        with pytest.raises(NotImplementedError, match="builds no character"):
            getattr(space, name)
    with pytest.raises(NotImplementedError, match="ord"):
        space.character_index("a")


@pytest.mark.parametrize(
    "use",
    [
        lambda s: spaces.flatdim(s),
        lambda s: spaces.flatten_space(s),
        lambda s: spaces.flatten(s, "text"),
        lambda s: spaces.unflatten(s, np.zeros(3)),
        lambda s: spaces.flatten(spaces.Dict(a=s), {"a": "text"}),
    ],
)
def test_refuses_to_be_flattened(use):
    with pytest.raises(ValueError, match='cannot be flattened.*level="token"'):
        use(UnicodeText(5))
    assert not UnicodeText(5).is_np_flattenable


def test_batches_as_a_tuple():
    space = UnicodeText(5)
    batch = batch_space(space, 3)
    assert isinstance(batch, spaces.Tuple) and all(type(part) is UnicodeText for part in batch)
    assert len(set(batch_space(UnicodeText(9, min_length=9), 3).sample())) == 3
    texts = ("a", "ž", "")
    assert tuple(iterate(batch, texts)) == texts
    assert concatenate(space, texts, create_empty_array(space, 3)) == texts
    assert create_empty_array(UnicodeText(5, min_length=2), 3) == ("  ",) * 3
    assert spaces.utils.is_space_dtype_shape_equiv(space, UnicodeText(5))
    assert not spaces.utils.is_space_dtype_shape_equiv(space, UnicodeText(6))


def make():
    return gym.make("text_envs:text_envs/Copy-v0", level="utterance")


def test_asynchronous_vectorisation_needs_shared_memory_off_and_says_so():
    with pytest.raises(ValueError, match="shared_memory=False") as caught:
        AsyncVectorEnv([make, make])
    assert "UnicodeText" in str(caught.value.__cause__)
    apart, together = AsyncVectorEnv([make, make], shared_memory=False), SyncVectorEnv([make, make])
    for seed in (1, 2):
        assert apart.reset(seed=seed)[0] == together.reset(seed=seed)[0]
    apart.close()
