import gymnasium as gym
import numpy as np
import pytest
from gymnasium.error import InvalidAction, ResetNeeded
from hypothesis import given, settings
from hypothesis import strategies as st

import text_envs
from text_envs import TokenEnv
from text_envs.tasks.copy import Copy


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(text_envs.task_ids()), st.integers(0, 2**70), st.data())
def test_contexts_only_grow_whatever_is_said(id, seed, data):
    env = gym.make(id).unwrapped
    before, _ = env.reset(seed=seed)
    terminated = False
    for _ in range(60):
        if terminated:
            break
        length = int((before != env.vocab_size).sum())
        action = data.draw(st.integers(0, env.vocab_size - 1))
        after, reward, terminated, truncated, info = env.step(action)
        assert after in env.observation_space and not truncated
        np.testing.assert_array_equal(after[:length], before[:length])
        closed = "reward_clean" in info
        replied = closed and env.task.turns != 1  # a game's answer follows the utterance
        assert after[length] == action and (replied or (after[length + 1 :] == env.vocab_size).all())
        assert closed >= terminated and reward == info.get("reward_clean", 0.0)
        before = after


@pytest.mark.parametrize("action", [16, -1, 2.0, "a", None, True, np.True_, np.array([1]), np.array(1.0)])
def test_an_action_outside_the_space_is_refused_and_changes_nothing(action):
    env = TokenEnv(Copy())
    before, _ = env.reset(seed=1)
    with pytest.raises(InvalidAction, match=r"is not an integer in 0\.\.15; an action is a token id"):
        env.step(action)
    assert env.step(3)[0].tolist() == [*before[:8], 3, *before[9:]]


@pytest.mark.parametrize("action", [3, np.int32(3), np.int64(3), np.array(3)])
def test_integers_of_any_kind_are_actions(action):
    env = TokenEnv(Copy())
    env.reset(seed=1)
    assert env.step(action)[0][8] == 3


def test_steps_need_an_episode():
    env = TokenEnv(Copy(length=1))
    with pytest.raises(ResetNeeded):
        env.step(0)
    env.reset()
    env.step(0)
    with pytest.raises(ResetNeeded):
        env.step(0)


def test_a_generator_of_the_users_seeds_the_episodes():
    prompts = []
    for seed in (1, 1, 2):
        env = TokenEnv(Copy())
        env.np_random = np.random.default_rng(seed)
        prompts.append(env.reset()[0].tolist())
    assert prompts[0] == prompts[1] != prompts[2]


def test_masks_are_reported_where_there_are_any(guess_number):
    env = TokenEnv(guess_number)
    _, info = env.reset(seed=1)
    np.testing.assert_array_equal(info["action_mask"], env.action_masks())
    assert info["action_mask"] in gym.spaces.MultiBinary(14)
    terminated = False
    while not terminated:
        *_, terminated, _, info = env.step(int(np.flatnonzero(env.action_masks())[-1]))
        assert ("action_mask" in info) != terminated
    assert "action_mask" not in TokenEnv(Copy()).reset()[1]
    assert TokenEnv(Copy()).action_masks().all()


def test_agents_see_the_task():
    env = TokenEnv(Copy(vocab_size=4))
    assert (env.vocab_size, env.end_token_id, env.tokenizer.decode([0, 1])) == (4, None, "ab")
    assert (env.random_return(), env.optimal_return()) == (0.25, 1.0)
    assert (env.normalize(0.25), env.normalize(1.0)) == (0.0, 1.0)


def test_normalising_needs_something_to_learn():
    env = TokenEnv(Copy())
    env.task.random_return = env.task.optimal_return
    with pytest.raises(ValueError, match="both earn 1.0"):
        env.normalize(0.5)


def test_renders(capsys):
    env = gym.make("text_envs/Copy-v0", length=2, render_mode="ansi")
    env.reset(seed=1)
    env.step(0)
    frame = env.render()
    assert frame.splitlines()[1] == "  said: a"
    env = gym.make("text_envs/Copy-v0", length=2, render_mode="human")
    env.reset(seed=1)
    env.step(0)
    assert capsys.readouterr().out.endswith(frame + "\n")
    assert env.render() is None and capsys.readouterr().out == frame + "\n"
    assert gym.make("text_envs/Copy-v0").unwrapped.render() is None
