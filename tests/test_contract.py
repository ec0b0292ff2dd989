"""What every registered environment promises, whatever its task."""

import copy
import os
import pickle
import subprocess
import sys
import warnings
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from hypothesis import given, settings
from hypothesis import strategies as st

import text_envs

ROOT = Path(__file__).parents[1]
IDS = text_envs.task_ids()
DIAGNOSTICS = [
    f"text_envs/{name}-v0"
    for name in (
        *("Bandit", "Copy", "Reverse", "Sort", "Recall", "Password", "Delay", "Brackets", "Arithmetic", "Pattern"),
        *("Lipogram", "NGram"),
    )
]
EXACT = [
    *DIAGNOSTICS,
    *(f"text_envs/{name}-v0" for name in ("GuessNumber", "TwentyQuestions", "Mastermind", "Wordle")),
]
LEVELS = ("token", "utterance")
ids = pytest.mark.parametrize("id", IDS)
levels = pytest.mark.parametrize("level", LEVELS)


def some_actions(env, steps, rows, seed=0):
    """Return (steps, rows) token ids, or texts of random length."""
    rng = np.random.default_rng(seed)
    task = env.unwrapped.task
    if isinstance(env.unwrapped, text_envs.TokenEnv | text_envs.TokenVectorEnv) and not isinstance(
        env.unwrapped, text_envs.UtteranceVectorEnv
    ):
        return rng.integers(0, task.vocab_size, (steps, rows))
    visible = [i for i in range(task.vocab_size) if i != task.end_token_id]
    return [
        tuple(task.codec.decode(rng.choice(visible, rng.integers(0, task.max_new_tokens + 1))) for _ in range(rows))
        for _ in range(steps)
    ]


def trajectory(env, actions):
    return [env.reset(seed=11), *(env.step(action) for action in actions)]


def plain(value):
    """Return nested values as what compares with ==."""
    if isinstance(value, dict):
        return {key: plain(part) for key, part in value.items()}
    if isinstance(value, tuple | list):
        return [plain(part) for part in value]
    return [str(value.dtype), plain(value.tolist())] if isinstance(value, np.ndarray) else value


@ids
@levels
def test_gymnasiums_checker_has_nothing_to_say(id, level):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(gym.make(id, level=level).unwrapped)


@ids
def test_stable_baselines_checker_has_nothing_to_say(id):
    checker = pytest.importorskip("stable_baselines3.common.env_checker")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        checker.check_env(gym.make(id))
        checker.check_env(gym.make(id, dense=True).unwrapped)


@ids
@levels
@pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP])
def test_one_seed_is_one_trajectory_alone_in_sync_in_async_and_in_the_engine(id, level, mode):
    keywords = {"level": level, "dense": True}
    engine = gym.make_vec(id, num_envs=3, autoreset_mode=mode, **keywords)
    actions = some_actions(engine, 20, 3)
    expected = plain(trajectory(engine, actions))
    makers = [lambda: gym.make(f"text_envs:{id}", **keywords)] * 3
    assert plain(trajectory(SyncVectorEnv(makers, autoreset_mode=mode), actions)) == expected
    apart = AsyncVectorEnv(makers, autoreset_mode=mode, shared_memory=level == "token")
    assert plain(trajectory(apart, actions)) == expected
    apart.close()


@ids
@levels
def test_a_row_is_the_single_environment_of_its_seed(id, level):
    batch = gym.make_vec(id, num_envs=5, level=level)
    actions = some_actions(batch, 20, 5)
    rows = trajectory(batch, actions)
    for row in (0, 4):
        env = gym.make(id, level=level)
        observation, _ = env.reset(seed=11 + row)
        assert plain(observation) == plain(rows[0][0][row])
        for said, (observations, rewards, terminated, _, infos) in zip(actions, rows[1:], strict=True):
            observation, reward, over, _, info = env.step(said[row])
            assert (reward, over) == (rewards[row], terminated[row])
            if over:
                assert plain(observation) == plain(infos["final_obs"][row])
                assert info["reward_clean"] == infos["final_info"]["reward_clean"][row]
                observation, _ = env.reset()
            assert plain(observation) == plain(observations[row])


@ids
@levels
@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))])
def test_copies_go_on_alike_and_apart(id, level, duplicate):
    for env in (gym.make(id, level=level), gym.make_vec(id, num_envs=1, level=level)):
        actions = some_actions(env, 30, 1)
        if isinstance(env, gym.Env):
            actions = [action[0] for action in actions]
        env.reset(seed=3)
        env.step(actions[0])
        twin = duplicate(env)
        for action in actions[1:]:
            if isinstance(env, gym.Env) and not env.unwrapped._running:
                assert plain(env.reset()) == plain(twin.reset())
            assert plain(env.step(action)) == plain(twin.step(action))


@ids
@pytest.mark.parametrize("dense", [False, True])
def test_a_text_earns_the_same_token_by_token(id, dense):
    tokens = gym.make(id, dense=dense).unwrapped
    texts = gym.make(id, level="utterance", dense=dense).unwrapped
    for seed, (text,) in enumerate(some_actions(texts, 30, 1)):
        tokens.reset(seed=seed)
        texts.reset(seed=seed)
        end = [] if tokens.end_token_id is None else [tokens.end_token_id]
        ids = tokens.task.codec.encode(text) + end
        # without an end token it closes as a text only, so token by token it is completed
        short = not end and len(ids) < tokens.task.max_new_tokens
        ids += np.random.default_rng(seed).integers(tokens.vocab_size, size=tokens.task.max_new_tokens).tolist()
        total, info = 0.0, {}
        while "reward_clean" not in info:
            observation, reward, terminated, _, info = tokens.step(ids.pop(0))
            total += reward
        context, reward, over, _, other = texts.step(text)
        if short:
            assert reward <= total + 1e-12  # what is not said is worth no more than what might have been
            continue
        assert total == pytest.approx(reward, abs=1e-12) and plain(info) == plain(other) and over == terminated
        assert tokens.tokenizer.decode(observation[observation != tokens.vocab_size]) == context


def returns_of_random(id, episodes, rows=1000):
    """Return the clean returns of episodes whose tokens are uniform over the legal ones."""
    env = gym.make_vec(id, num_envs=rows)
    rng = np.random.default_rng(0)
    env.reset(seed=1)
    running, finished = np.zeros(rows), []
    while len(finished) < episodes:
        legal = env.action_masks()
        *_, infos = env.step(np.argmax(rng.random(legal.shape) * legal, axis=1))
        running += np.where(infos.get("_reward_clean", False), infos.get("reward_clean", 0.0), 0.0)
        if "final_info" in infos:
            over = infos["_final_info"]
            running[over] += infos["final_info"]["reward_clean"][over]
            finished += running[over].tolist()
            running[over] = 0.0
    return np.array(finished)


@pytest.mark.parametrize("id", EXACT)
def test_the_exact_random_return_is_that_of_random_play(id):
    task = gym.make(id).unwrapped.task
    returns = returns_of_random(id, 10_000)
    error = np.hypot(returns.std() / np.sqrt(len(returns)), task.values.random_error)
    assert abs(returns.mean() - task.random_return()) < 4 * error + 1e-9


@pytest.mark.parametrize("id", EXACT)
def test_demonstrations_earn_the_exact_optimum(id):
    episodes = 2_000
    env = gym.make_vec(id, num_envs=episodes, autoreset_mode=AutoresetMode.DISABLED, level="utterance")
    env.reset(seed=1)
    engine, task = env._engine, env.task
    returns, live = np.zeros(episodes), np.arange(episodes)
    while live.size:
        said = task.demonstrate(engine.said(live))
        outcome = engine.utter([task.codec.decode(ids) for ids in said], live)
        returns[outcome.closed] += outcome.clean
        live = live[~outcome.terminated]
    error = np.hypot(returns.std() / np.sqrt(episodes), task.values.optimal_error)
    assert abs(returns.mean() - task.optimal_return()) < 4 * error + 1e-9
    assert task.optimal_return() > task.random_return()


@pytest.mark.parametrize("id", [id for id in IDS if id not in EXACT])
@pytest.mark.parametrize("name", ["random_return", "optimal_return"])
def test_a_value_that_is_not_known_is_an_error(id, name):
    with pytest.raises((NotImplementedError, text_envs.exact.TooLarge), match="exact"):
        getattr(gym.make(id).unwrapped, name)()


@ids
def test_candidates_are_the_same_alone_in_sync_and_in_the_engine(id):
    checker = pytest.importorskip("stable_baselines3.common.env_checker")
    keywords = {"level": "candidate", "propose": "random", "k": 3}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        checker.check_env(gym.make(id, **keywords))
    actions = np.random.default_rng(0).integers(0, 3, (12, 3))
    mode = AutoresetMode.SAME_STEP
    engine = gym.make_vec(id, num_envs=3, autoreset_mode=mode, **keywords)
    alone = SyncVectorEnv([lambda: gym.make(id, **keywords)] * 3, autoreset_mode=mode)
    assert plain(trajectory(engine, actions)) == plain(trajectory(alone, actions))


def of_seven(values):
    """Return the first seven rows of what `plain` made of an array or a tuple; of a dict nothing."""
    if isinstance(values, dict):
        return None
    return values[1][:7] if isinstance(values[1], list) else values[:7]


@ids
@levels
def test_a_row_is_the_same_in_batches_of_any_size(id, level):
    def rows(batch):
        env = gym.make_vec(id, num_envs=batch, level=level)
        return plain(trajectory(env, [tuple(action[:batch]) for action in actions]))

    actions = some_actions(gym.make_vec(id, num_envs=64, level=level), 12, 64)
    few, many = rows(7), rows(64)
    for small, large in zip(few, many, strict=True):
        for a, b in zip(small[:4], large[:4], strict=True):  # observations, rewards, ends; infos last
            assert of_seven(a) == of_seven(b)


def test_string_hashes_change_nothing():
    script = """
import hashlib, gymnasium as gym, numpy as np, text_envs
for id in text_envs.task_ids():
    env = gym.make_vec(id, num_envs=5, dense=True, distractors=2, reward_noise=0.5)
    digest = hashlib.sha256(env.reset(seed=3)[0].tobytes())
    for actions in np.random.default_rng(0).integers(0, env.unwrapped.task.vocab_size, (40, 5)):
        observation, reward, *_ = env.step(actions)
        digest.update(observation.tobytes() + reward.tobytes())
    print(id, digest.hexdigest())
"""
    found = []
    for seed in ("1", "2"):
        variables = {**os.environ, "PYTHONHASHSEED": seed}
        done = subprocess.run(
            [sys.executable, "-c", script], env=variables, cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        found.append(done.stdout)
    assert found[0] == found[1] and len(found[0].splitlines()) == len(IDS)


def test_no_global_generator_is_touched():
    import random

    random.seed(5)
    np.random.seed(5)  # noqa: NPY002
    before = random.getstate(), plain(np.random.get_state())  # noqa: NPY002
    for id in IDS:
        for level in LEVELS:
            env = gym.make_vec(id, num_envs=3, level=level, reward_noise=0.1)
            trajectory(env, some_actions(env, 12, 3))
    assert (random.getstate(), plain(np.random.get_state())) == before  # noqa: NPY002


@ids
@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_any_tokens_are_fine(id, data):
    rows = 10
    env = gym.make_vec(id, num_envs=rows, dense=data.draw(st.booleans()))
    token = st.integers(0, env.unwrapped.task.vocab_size - 1)
    env.reset(seed=data.draw(st.integers(0, 2**64)))
    for _ in range(data.draw(st.integers(1, 12))):
        actions = data.draw(st.lists(token, min_size=rows, max_size=rows))
        observation, reward, *_ = env.step(actions)
        assert observation in env.observation_space and np.isfinite(reward).all()


@ids
@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_any_text_is_fine(id, data):
    rows = 10
    env = gym.make_vec(id, num_envs=rows, level="utterance")
    text = st.text(st.characters(exclude_categories=["Cs"]), max_size=min(20, env.single_action_space.max_length))
    env.reset(seed=data.draw(st.integers(0, 2**64)))
    for _ in range(2):
        observation, reward, *_ = env.step(tuple(data.draw(st.lists(text, min_size=rows, max_size=rows))))
        assert observation in env.observation_space and np.isfinite(reward).all()


@ids
@levels
def test_every_id_takes_the_knobs_and_keeps_the_clean_reward(id, level):
    def run(**keywords):
        env = gym.make_vec(id, num_envs=4, level=level, **keywords)
        steps = trajectory(env, some_actions(env, 30, 4))[1:]
        finals = [step[4]["final_info"]["reward_clean"] for step in steps if "final_info" in step[4]]
        return sum(step[1] for step in steps), np.array(finals)

    plain_return, clean = run()
    for keywords in (
        {"reward_scale": 2.0},
        {"reward_delay": 2},
        {"dense": True},
        {"reward_noise": 0.1},
        {"distractors": 3},
    ):
        paid, same_clean = run(**keywords)
        np.testing.assert_array_equal(same_clean, clean)
        if "reward_scale" in keywords:
            np.testing.assert_allclose(paid, 2.0 * plain_return)
        if "reward_noise" in keywords:
            assert (paid != plain_return).all()


@ids
def test_trains_under_stable_baselines(id):
    stable_baselines3 = pytest.importorskip("stable_baselines3")
    model = stable_baselines3.PPO("MlpPolicy", gym.make(id), n_steps=32, batch_size=32, n_epochs=1, device="cpu")
    model.learn(64)
    assert model.num_timesteps == 64


@pytest.mark.parametrize("id", text_envs.task_ids())
def test_stable_baselines3_takes_the_id(id):
    sb3 = pytest.importorskip("stable_baselines3")
    model = sb3.PPO("MlpPolicy", id, n_steps=2, batch_size=2, device="cpu")
    assert model.get_env().get_attr("task")[0] is not None
