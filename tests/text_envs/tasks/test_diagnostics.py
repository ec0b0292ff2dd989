"""Copy, Reverse and Password: scores against strings compared in Python, closed forms against enumeration."""

import itertools

import gymnasium as gym
import numpy as np
import pytest

from text_envs import CandidateVectorActions, TokenVectorEnv, UtteranceEnv, UtteranceVectorEnv
from text_envs.tasks.copy import Copy
from text_envs.tasks.password import Password
from text_envs.tasks.reverse import Reverse


def fraction(said, wanted):
    return sum(a == b for a, b in zip(said, wanted, strict=False)) / len(wanted)


def earned(task, prompt_seed, said):
    env = UtteranceEnv(task)
    prompt, _ = env.reset(seed=prompt_seed)
    return prompt, env.step(said)[1]


@pytest.mark.parametrize("said", ["", "a", "abc", "abcab", "cbacb"])
@pytest.mark.parametrize("seed", range(5))
def test_copy_and_reverse_count_right_positions(said, seed):
    prompt, reward = earned(Copy(vocab_size=3, length=5), seed, said)
    assert reward == fraction(said, prompt)
    prompt, reward = earned(Reverse(vocab_size=3, length=5), seed, said)
    assert reward == fraction(said, prompt[::-1])


def test_password_pays_the_whole_secret_only():
    task = Password(vocab_size=3, length=4)
    secret = task.codec.decode(task.secret)
    everything = ["".join(said) for said in itertools.product("abc", repeat=4)]
    assert [said for said in everything if earned(task, 0, said)[1] == 1.0] == [secret]
    assert {earned(task, 0, said)[1] for said in everything} == {0.0, 1.0}


@pytest.mark.parametrize("dense", [False, True])
def test_a_text_that_breaks_off_is_no_password(dense):
    task = Password(vocab_size=3, length=4)
    env = UtteranceVectorEnv(task, 5, dense=dense)
    env.reset(seed=0)
    secret = task.codec.decode(task.secret)
    assert env.step(tuple(secret[:said] for said in range(5)))[1].tolist() == [0, 0, 0, 0, 1]
    env = CandidateVectorActions(UtteranceVectorEnv(task, 2, dense=dense), [secret[:3], secret], k=2)
    env.reset(seed=0)
    assert env.step(np.array([0, 1]))[1].tolist() == [0, 1]


def test_a_partial_password_scores_while_it_is_right():
    env = TokenVectorEnv(Password(vocab_size=2, length=4), 2, dense=True)
    env.reset()
    secret = env.task.secret
    said = np.stack([secret, np.where(np.arange(4) < 2, secret, 1 - secret)], axis=1)
    rewards = np.array([env.step(step)[1] for step in said])
    np.testing.assert_allclose(rewards.T, [[0.25] * 4, [0.25, 0.25, -0.5, 0.0]])


def test_the_secret_belongs_to_the_environment():
    def secret(**keywords):
        return tuple(Password(length=8, **keywords).secret)

    assert secret() == secret(secret_seed=0)
    assert len({secret(secret_seed=seed) for seed in range(20)}) == 20
    prompts = {gym.make("text_envs/Password-v0", level="utterance").reset(seed=seed)[0] for seed in range(5)}
    assert prompts == {"a"}


@pytest.mark.parametrize("task", [Copy, Reverse, Password])
def test_closed_forms_equal_enumeration(task):
    task = task(vocab_size=3, length=3)
    texts = ["".join(said) for said in itertools.product("abc", repeat=3)]
    env = UtteranceEnv(task)
    env.reset(seed=5)
    earned = []
    for text in texts:
        env.reset(seed=5)
        earned.append(env.step(text)[1])
    assert np.mean(earned) == pytest.approx(task.random_return())
    assert max(earned) == task.optimal_return()


@pytest.mark.parametrize("task", [Copy, Reverse, Password])
@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"vocab_size": 1}, "vocab_size is at least 2, got 1"),
        ({"vocab_size": 5000}, "1 to 4096 symbols, got 5000"),
        ({"length": 0}, "length is at least 1, got 0"),
    ],
)
def test_impossible_sizes_are_refused(task, keywords, message):
    with pytest.raises(ValueError, match=message):
        task(**keywords)


def test_a_negative_secret_seed_is_refused():
    with pytest.raises(ValueError, match="non-negative integer, got -1"):
        Password(secret_seed=-1)
