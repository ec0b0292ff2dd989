import gymnasium as gym
import pytest
from gymnasium.error import InvalidAction, ResetNeeded
from hypothesis import given, settings
from hypothesis import strategies as st

import text_envs
from text_envs import UtteranceEnv
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
        ("a" * 9, "has 9 characters, more than the 8"),
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
