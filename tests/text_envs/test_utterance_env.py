from string import ascii_lowercase

import gymnasium as gym
import pytest
from gymnasium.error import InvalidAction, ResetNeeded
from hypothesis import given, settings
from hypothesis import strategies as st

import text_envs
from text_envs import ByteTokenizer, CharacterTokenizer, UtteranceEnv
from text_envs.rewards import Length
from text_envs.spaces import UnicodeText
from text_envs.tasks.copy import Copy


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(text_envs.task_ids()), st.integers(0, 2**70), st.text())
def test_any_text_is_an_action_or_refused_with_a_message(id, seed, text):
    env = gym.make(id, level="utterance").unwrapped
    context, _ = env.reset(seed=seed)
    assert context in env.observation_space
    if text in env.action_space:
        after, reward, terminated, _, info = env.step(text)
        assert terminated or env.task.turns != 1
        assert after in env.observation_space and after.startswith(context)
        assert reward == info["reward_clean"]
        if env.task.codec.unknown(text):
            assert reward == env.task.invalid_reward and (after == context or env.task.turns != 1)
    else:
        with pytest.raises(InvalidAction, match="lone surrogate|characters, more than"):
            env.step(text)


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (3, "a int; pass a str"),
        (None, "NoneType; pass a str"),
        ("a\ud800", r"lone surrogate, '\\ud800' at 1.*mend it with"),
        ("a" * 65_537, "has 65537 characters, more than the 65536 of an action; shorten it"),
    ],
)
def test_an_action_outside_the_space_is_refused_and_changes_nothing(action, message):
    env = UtteranceEnv(Copy())
    prompt, _ = env.reset(seed=1)
    with pytest.raises(InvalidAction, match=message):
        env.step(action)
    assert env.step(prompt)[1] == 1.0


def test_a_short_text_is_a_partial_utterance():
    env = UtteranceEnv(Copy())
    prompt, _ = env.reset(seed=1)
    context, reward, terminated, _, _ = env.step(prompt[:2])
    assert (context, reward, terminated) == (prompt + prompt[:2], 0.25, True)


def test_the_budget_cuts_a_longer_text(stars):
    env = UtteranceEnv(stars)
    prompt, _ = env.reset(seed=1)
    assert env.step("*****")[:3] == (prompt + "*****", 5.0, True)
    with pytest.raises(ResetNeeded):
        env.step("*")
    words = gym.make("text_envs/Sentiment-v0", level="utterance", max_new_tokens=2).unwrapped
    context, _ = words.reset(seed=1)
    assert words.step("good good good")[4]["completion"] == "good good"


@pytest.mark.parametrize(
    "tokenizer", [None, CharacterTokenizer(ascii_lowercase + " .?'", end=True), ByteTokenizer()]
)
def test_the_budget_cuts_a_longer_text_whatever_the_tokenizer(tokenizer):
    keywords = {"tokenizer": tokenizer, "level": "utterance", "max_new_tokens": 4, "reward": Length()}
    env = gym.make("text_envs/Sentiment-v0", **keywords).unwrapped
    batch = gym.make_vec("text_envs/Sentiment-v0", num_envs=2, **keywords)
    env.reset(seed=1)
    batch.reset(seed=1)
    text = "good " * 13_000
    context, reward, terminated, _, info = env.step(text)
    assert terminated and context in env.observation_space and reward == len(info["completion"].split())
    assert info["completion"].strip() == ("good" if tokenizer else "good good good good")
    infos = batch.step((text, "a"))[4]["final_info"]
    assert infos["completion"][0] == info["completion"] and infos["reward_clean"][0] == reward
    with pytest.raises(InvalidAction, match="row 1: action .* more than the 65536 of an action"):
        batch.step(("a", text * 2))


def test_sampled_actions_are_about_as_long_as_the_budget():
    env = UtteranceEnv(Copy(length=5))
    env.action_space.seed(1)
    assert {len(env.action_space.sample()) for _ in range(100)} == set(range(6))
    batch = gym.make_vec("text_envs/Copy-v0", num_envs=3, level="utterance", length=5)
    assert max(len(text) for text in batch.action_space.sample()) <= 5
    assert batch.single_action_space == env.action_space == UnicodeText(2**16)
    long = gym.make("text_envs/Copy-v0", level="utterance", length=70_000).action_space
    assert long.max_length == long.longest_sample == 70_000


def test_several_turns(guess_number):
    env = UtteranceEnv(guess_number)
    env.reset(seed=3)
    context, reward, terminated, _, info = env.step("99")
    assert context.endswith("99<") and not terminated and info["reward_clean"] == -0.1
    env.step("99")
    assert env.step("99")[2]


def test_renders():
    env = UtteranceEnv(Copy(length=2), render_mode="ansi")
    prompt, _ = env.reset(seed=1)
    env.step("ab")
    assert env.render() == f"prompt: {prompt}\n  said: ab"
