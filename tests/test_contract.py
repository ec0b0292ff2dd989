"""What every registered environment promises, whatever its task."""

import copy
import pickle
import warnings

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv

import text_envs

IDS = text_envs.task_ids()
NO_CLOSED_FORM = ["text_envs/Sentiment-v0"]
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
        if not end and len(ids) < tokens.task.max_new_tokens:
            continue  # only a whole utterance can be said token by token
        total, terminated = 0.0, False
        while not terminated:
            observation, reward, terminated, _, info = tokens.step(ids.pop(0))
            total += reward
        context, reward, _, _, other = texts.step(text)
        assert total == pytest.approx(reward, abs=1e-12) and info == other
        assert tokens.tokenizer.decode(observation[observation != tokens.vocab_size]) == context


@pytest.mark.parametrize("id", [id for id in IDS if id not in NO_CLOSED_FORM])
def test_closed_forms_equal_simulation(id):
    env = gym.make_vec(id, num_envs=4000, vocab_size=3, length=3)
    env.reset(seed=1)
    for actions in np.random.default_rng(0).integers(0, 3, (3, 4000)):
        *_, infos = env.step(actions)
    returns = infos["final_info"]["reward_clean"]
    error = returns.std() / np.sqrt(len(returns))
    assert abs(returns.mean() - env.random_return()) < 4 * error
    assert returns.max() == env.optimal_return() and returns.min() >= 0


@pytest.mark.parametrize("id", NO_CLOSED_FORM)
@pytest.mark.parametrize("name", ["random_return", "optimal_return"])
def test_a_value_without_closed_form_is_an_error(id, name):
    with pytest.raises(NotImplementedError, match=name):
        getattr(gym.make(id).unwrapped, name)()


@ids
@levels
def test_every_id_takes_the_knobs_and_keeps_the_clean_reward(id, level):
    def run(**keywords):
        env = gym.make_vec(id, num_envs=4, level=level, **keywords)
        steps = trajectory(env, some_actions(env, 30, 4))[1:]
        finals = [step[4]["final_info"]["reward_clean"] for step in steps if "final_info" in step[4]]
        return sum(step[1] for step in steps), np.array(finals)

    plain_return, clean = run()
    for keywords in ({"reward_scale": 2.0}, {"reward_delay": 2}, {"dense": True}, {"reward_noise": 0.1}):
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
