"""The batched environments against Gymnasium's SyncVectorEnv of the single ones, value for value."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.error import InvalidAction, ResetNeeded
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import TimeLimit

from text_envs import TokenEnv, TokenVectorEnv, UtteranceEnv, UtteranceVectorEnv
from text_envs.datasets import Prompts
from text_envs.rewards import Length, Repetition, WeightedSum
from text_envs.tasks.copy import Copy
from text_envs.tasks.text import TextTask
from text_envs.tokenizer import WordTokenizer


def text_task():
    """Words, prompts of two lengths, and a reward of two terms, one of which does not always apply."""

    def starts_with_good(prompts, completions, **columns):
        return [None if not text else float(text.startswith("good")) for text in completions]

    prompts = Prompts(("the film", "a very very long film"), {"rating": (1.0, 2.0)})
    tokenizer = WordTokenizer.from_texts(prompts.texts, words=["good", "bad"])
    reward = WeightedSum(
        {"length": (Length(), 0.1), "good": (starts_with_good, 1.0), "again": (Repetition(1), -1.0)}
    )
    return TextTask(prompts, tokenizer, reward, max_new_tokens=4)


TASKS = {"copy": lambda: Copy(vocab_size=3, length=3), "text": text_task, "guess": None, "stars": None}
B = 5


@pytest.fixture(params=TASKS)
def task(request, guess_number, stars):
    return {"guess": lambda: guess_number, "stars": lambda: stars}.get(request.param, TASKS[request.param])()


def limited(make, limit):
    return make if limit is None else lambda: TimeLimit(make(), limit)


@pytest.mark.parametrize("limit", [None, 2, 4])
@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("mode", AutoresetMode)
@pytest.mark.parametrize("level", ["token", "utterance"])
def test_equals_gymnasiums_own_vectorisation(task, level, mode, dense, limit, same):
    single, batched = {"token": (TokenEnv, TokenVectorEnv), "utterance": (UtteranceEnv, UtteranceVectorEnv)}[level]
    slow = SyncVectorEnv([limited(lambda: single(task, dense=dense), limit)] * B, autoreset_mode=mode)
    fast = batched(task, B, dense=dense, autoreset_mode=mode, max_episode_steps=limit)
    same(fast.reset(seed=7), slow.reset(seed=7), "reset")
    assert fast.metadata == slow.metadata
    assert (fast.single_action_space, fast.action_space) == (slow.single_action_space, slow.action_space)
    assert (fast.single_observation_space, fast.observation_space) == (
        slow.single_observation_space,
        slow.observation_space,
    )
    rng = np.random.default_rng(0)
    for step in range(25):
        actions = rng.integers(0, task.vocab_size, B)
        if level == "utterance":
            shown = rng.integers(0, task.vocab_size, (B, rng.integers(0, task.max_new_tokens + 1)))
            actions = tuple(task.codec.decode(ids) for ids in shown)
        ours, theirs = fast.step(actions), slow.step(actions)
        same(ours, theirs, f"step {step}")
        over = theirs[2] | theirs[3]
        if mode is AutoresetMode.DISABLED and over.any():
            same(
                fast.reset(options={"reset_mask": over}), slow.reset(options={"reset_mask": over}), f"reset {step}"
            )


def test_resets_of_some_rows_take_seeds_and_leave_the_others(same):
    fast, slow = TokenVectorEnv(Copy(), B), SyncVectorEnv([lambda: TokenEnv(Copy())] * B)
    for seed, mask in [
        ([5, 4, 3, 2, 1], None),
        ([None, 9, None, 9, None], None),
        (3, [True, False, True, False, False]),
        (None, [False, True, False, True, True]),
        ([1, None, 2, None, None], [True, True, False, False, False]),
    ]:
        same(
            fast.reset(seed=seed, options=mask and {"reset_mask": np.array(mask)}),
            slow.reset(seed=seed, options=mask and {"reset_mask": np.array(mask)}),
        )


def test_without_a_seed_rows_and_runs_differ():
    observations = np.concatenate([TokenVectorEnv(Copy(), 3).reset()[0] for _ in range(2)])
    assert len(np.unique(observations, axis=0)) == 6


def test_what_is_returned_is_the_callers(guess_number):
    env = TokenVectorEnv(guess_number, 2)
    observations, infos = env.reset(seed=1)
    observations[:] = 0
    infos["action_mask"][:] = False
    again, _, terminated, _, infos = env.step(np.array([1, 2]))
    assert (again[:, 0] == 12).all() and infos["action_mask"].any()
    terminated[:] = True
    env.action_masks()[:] = False
    assert env.action_masks().any() and not env.step(np.array([1, 2]))[2].any()


def test_an_episodes_last_observation_survives_the_next_steps():
    env = TokenVectorEnv(Copy(length=1), 2)
    env.reset(seed=1)
    infos = env.step(np.array([3, 4]))[4]
    kept = [row.copy() for row in infos["final_obs"]]
    env.step(np.array([5, 6]))
    assert [row.tolist() for row in infos["final_obs"]] == [row.tolist() for row in kept]
    assert [row[1] for row in kept] == [3, 4]


@pytest.mark.parametrize(
    ("actions", "message"),
    [
        ([0, 1, 16], r"row 2: action 16 is not an integer in 0\.\.15"),
        ([0, -1, 1], "row 1: action -1"),
        ([0, 1], r"shape \(2,\).*pass 3 integers"),
        ([0.0, 1.0, 2.0], "dtype float64"),
        ([[0], [1], [2]], r"shape \(3, 1\)"),
    ],
)
def test_actions_outside_the_space_are_refused_and_change_nothing(actions, message):
    env = TokenVectorEnv(Copy(), 3)
    before = env.reset(seed=1)[0]
    with pytest.raises(InvalidAction, match=message):
        env.step(np.array(actions))
    np.testing.assert_array_equal(env.step(np.zeros(3, int))[0][:, :8], before[:, :8])


@pytest.mark.parametrize(
    ("actions", "message"),
    [
        (("a", "b"), "pass 3 texts"),
        ("abc", "pass 3 texts"),
        (("a", "b\ud800", "c"), "row 1: .*lone surrogate"),
        (("a", "b", 3), "row 2: action 3 is a int"),
    ],
)
def test_utterances_outside_the_space_are_refused(actions, message):
    env = UtteranceVectorEnv(Copy(), 3)
    env.reset(seed=1)
    with pytest.raises(InvalidAction, match=message):
        env.step(actions)


def test_rows_in_reset_may_be_given_any_action():
    env = TokenVectorEnv(Copy(length=1), 2, autoreset_mode="NextStep")
    env.reset(seed=1)
    assert env.step(np.array([0, 0]))[2].all()
    observations, rewards, terminated, _, _ = env.step(np.array([99, -1]))
    assert not rewards.any() and not terminated.any() and (observations[:, 1] == 16).all()


def test_an_ended_row_must_be_reset_where_nothing_does_it():
    env = TokenVectorEnv(Copy(length=1), 2, autoreset_mode=AutoresetMode.DISABLED)
    with pytest.raises(ResetNeeded, match="call reset"):
        env.step(np.array([0, 0]))
    env.reset(seed=1)
    env.step(np.array([0, 0]))
    env.reset(options={"reset_mask": np.array([True, False])})
    with pytest.raises(ResetNeeded, match=r"rows \[1\] have ended.*reset_mask"):
        env.step(np.array([0, 0]))


@pytest.mark.parametrize(
    ("mask", "error"),
    [
        ([True, False], TypeError),
        (np.array([1, 0]), TypeError),
        (np.array([True]), ValueError),
        (np.array([False, False]), ValueError),
    ],
)
def test_wrong_reset_masks_are_refused(mask, error):
    env = TokenVectorEnv(Copy(), 2)
    env.reset()
    with pytest.raises(error, match="reset_mask"):
        env.reset(options={"reset_mask": mask})


def test_the_first_reset_is_of_all_rows():
    with pytest.raises(ResetNeeded, match="first reset begins all rows"):
        TokenVectorEnv(Copy(), 2).reset(options={"reset_mask": np.array([True, False])})


def test_a_seed_per_row_is_asked_for():
    with pytest.raises(ValueError, match="3 seeds for 2 rows"):
        TokenVectorEnv(Copy(), 2).reset(seed=[1, 2, 3])


@pytest.mark.parametrize(
    "kind", [np.array, list, tuple, lambda seeds: [*map(np.int64, seeds)], lambda seeds: seeds]
)
def test_seeds_come_in_any_sequence_of_integers(kind, same):
    seeds = range(5, 8)
    same(TokenVectorEnv(Copy(), 3).reset(seed=kind(seeds)), TokenVectorEnv(Copy(), 3).reset(seed=np.int64(5)))
    assert TokenEnv(Copy()).reset(seed=np.int64(5))[0].tolist() == TokenEnv(Copy()).reset(seed=5)[0].tolist()


@pytest.mark.parametrize("seed", [1.5, "12", [1, 2.0], np.array([1.0, 2.0]), {1, 2}])
def test_seeds_that_are_not_integers_are_refused(seed):
    for env in (TokenEnv(Copy()), TokenVectorEnv(Copy(), 2)):
        with pytest.raises(TypeError, match="a seed is a non-negative integer, got"):
            env.reset(seed=seed)
    with pytest.raises(TypeError, match=r"a seed is a non-negative integer, got 1.5 \(float\)"):
        gym.make("text_envs/Password-v0", secret_seed=1.5)


@pytest.mark.parametrize(
    "keywords",
    [{"max_episode_steps": 0}, {"max_episode_steps": 2.5}, {"render_mode": "rgb"}, {"autoreset_mode": "never"}],
)
def test_impossible_settings_are_refused(keywords):
    with pytest.raises((ValueError, TypeError), match=next(iter(map(str, keywords.values())))):
        TokenVectorEnv(Copy(), 2, **keywords)


def test_renders_every_row(capsys):
    env = gym.make_vec("text_envs/Copy-v0", num_envs=2, length=2, render_mode="ansi")
    env.reset(seed=1)
    frames = env.render()
    assert len(frames) == 2 and all(frame.startswith("prompt: ") for frame in frames)
    env = gym.make_vec("text_envs/Copy-v0", num_envs=2, length=2, render_mode="human")
    env.reset(seed=1)
    assert capsys.readouterr().out == "\n".join(frames) + "\n"
    assert env.render() is None and capsys.readouterr().out == "\n".join(frames) + "\n"
