"""Choosing among proposed utterances: the batch against Gymnasium's own, both against the texts' environments."""

import copy
import json
import pickle
import warnings

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.error import InvalidAction, ResetNeeded
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import TimeLimit

import text_envs
from text_envs import CandidateActions, CandidateVectorActions, TokenEnv, UtteranceEnv, UtteranceVectorEnv
from text_envs.proposers import CandidateError
from text_envs.tasks.copy import Copy

B = 5


def some(contexts, k, rngs):
    """Propose 1 to k texts of 1 or 2 letters or digits; which depends on the context and the generator."""
    alphabets = ["0123456789" if "?" in context else "abc" for context in contexts]
    return [
        ["".join(rng.choice(list(alphabet), rng.integers(1, 3))) for _ in range(rng.integers(1, k + 1))]
        for alphabet, rng in zip(alphabets, rngs, strict=True)
    ]


@pytest.fixture(params=["copy", "guess"])
def task(request, guess_number):
    return {"copy": Copy(vocab_size=3, length=3), "guess": guess_number}[request.param]


@pytest.mark.parametrize("propose", [some, "random"])
@pytest.mark.parametrize("limit", [None, 1, 2])
@pytest.mark.parametrize("mode", AutoresetMode)
def test_equals_gymnasiums_own_vectorisation(task, mode, limit, propose, same):
    def single():
        env = UtteranceEnv(task, dense=True, reward_noise=0.1)
        return CandidateActions(env if limit is None else TimeLimit(env, limit), propose, k=3)

    slow = SyncVectorEnv([single] * B, autoreset_mode=mode)
    fast = UtteranceVectorEnv(task, B, dense=True, reward_noise=0.1, autoreset_mode=mode, max_episode_steps=limit)
    fast = CandidateVectorActions(fast, propose, k=3)
    same(fast.reset(seed=7), slow.reset(seed=7), "reset")
    assert fast.metadata == slow.metadata
    for name in ("single_action_space", "action_space", "single_observation_space", "observation_space"):
        assert getattr(fast, name) == getattr(slow, name)
    rng = np.random.default_rng(0)
    for step in range(12):
        actions = rng.integers(0, 3, B)  # absent ones too
        ours, theirs = fast.step(actions), slow.step(actions)
        same(ours, theirs, f"step {step}")
        np.testing.assert_array_equal(fast.action_masks(), slow.call("action_masks"))
        assert fast.candidates == list(slow.get_attr("candidates"))
        over = theirs[2] | theirs[3]
        if mode is AutoresetMode.DISABLED and over.any():
            same(
                fast.reset(options={"reset_mask": over}), slow.reset(options={"reset_mask": over}), f"reset {step}"
            )


@pytest.mark.parametrize("rows", [1, 7, 64])
def test_a_row_is_the_single_environment_of_its_seed(rows):
    keywords = {"level": "candidate", "propose": "random", "k": 3}
    batch = gym.make_vec("text_envs/Sentiment-v0", num_envs=rows, **keywords)
    env = gym.make("text_envs/Sentiment-v0", **keywords)
    np.testing.assert_array_equal(batch.reset(seed=11)[0][-1], env.reset(seed=11 + rows - 1)[0])
    for action in (2, 0, 1):
        observations, rewards, *_, infos = batch.step(np.full(rows, action))
        last, reward, *_ = env.step(action)
        np.testing.assert_array_equal(infos["final_obs"][-1], last)
        assert reward == rewards[-1]
        np.testing.assert_array_equal(observations[-1], env.reset()[0])


def test_processes_of_their_own_see_the_same(same):
    keywords = {"level": "candidate", "propose": "random", "k": 3}
    makers = [lambda: gym.make("text_envs:text_envs/Copy-v0", **keywords)] * 3
    apart = AsyncVectorEnv(makers, autoreset_mode=AutoresetMode.SAME_STEP)
    batch = gym.make_vec("text_envs/Copy-v0", num_envs=3, **keywords)
    same(batch.reset(seed=5), apart.reset(seed=5))
    for _ in range(3):
        same(batch.step(np.array([0, 1, 2])), apart.step(np.array([0, 1, 2])))
    apart.close()


@pytest.mark.parametrize("limit", [None, 1])
def test_the_proposer_is_called_once_a_step(guess_number, limit):
    calls = []

    def propose(contexts, k, rngs):
        assert len(contexts) == len(rngs) and all(type(context) is str for context in contexts)
        calls.append(contexts)
        return [["1", "2"]] * len(contexts)

    env = UtteranceVectorEnv(guess_number, B, max_episode_steps=limit)
    env = CandidateVectorActions(env, propose, k=2)
    env.reset(seed=1)
    for step in range(6):
        _, _, terminated, truncated, _ = env.step(np.zeros(B, int))
        assert len(calls) == step + 2
        assert len(calls[-1]) == B + (truncated & ~terminated).sum()


def test_shows_and_says_what_was_proposed(guess_number):
    texts = UtteranceEnv(guess_number)
    env = CandidateActions(UtteranceEnv(guess_number), ["7", "42"], k=3)
    assert env.candidate_layout == (15, 3, 3)
    context, _ = texts.reset(seed=3)
    observation, info = env.reset(seed=3)
    padding, end = guess_number.vocab_size, guess_number.end_token_id
    for action, text in [(0, "7"), (1, "42")]:
        shown, candidates = env.candidate_layout.split(observation)
        assert guess_number.codec.decode(shown[shown != padding]) == context
        assert candidates.tolist() == [[7, end, padding], [4, 2, end], [padding] * 3]
        assert info["action_mask"].tolist() == env.action_masks().tolist() == [True, True, False]
        context, *others, texts_info = texts.step(text)
        observation, *same, info = env.step(action)
        assert same == others and info["reward_clean"] == texts_info["reward_clean"]
    assert env.candidates == ["7", "42"]


@pytest.mark.parametrize("every_text_has_tokens", [False, True])
def test_an_absent_candidate_says_nothing_and_earns_the_invalid_reward(guess_number, every_text_has_tokens):
    env = UtteranceEnv(guess_number)
    if every_text_has_tokens:
        env = gym.make("text_envs/Sentiment-v0", tokenizer=text_envs.ByteTokenizer(), level="utterance")
    env = CandidateActions(env, ["7"], k=2)
    env.reset(seed=1)
    before = env.unwrapped._engine.context(0)
    _, reward, _, _, info = env.step(1)
    assert reward == info["reward_clean"] == env.unwrapped.task.invalid_reward < 0
    assert env.unwrapped._engine.context(0) in (before, before + ">>")  # the game replies to nothing, too


def test_a_terminated_episode_has_no_candidates_left():
    env = CandidateActions(UtteranceEnv(Copy(length=2)), ["aa"], k=2)
    with pytest.raises(ResetNeeded, match="call reset"):
        env.step(0)
    env.reset(seed=1)
    observation, _, terminated, _, info = env.step(0)
    assert terminated and (env.candidate_layout.split(observation)[1] == 16).all()
    assert not env.action_masks().any() and "action_mask" not in info and env.candidates == []
    with pytest.raises(ResetNeeded, match="call reset"):
        env.step(0)


def test_what_is_returned_is_the_callers(task):
    env = CandidateVectorActions(UtteranceVectorEnv(task, 2), some, k=3)
    twin = copy.deepcopy(env)
    observations, infos = env.reset(seed=1)
    observations[:] = 0
    infos["action_mask"][:] = False
    env.action_masks()[:] = False
    twin.reset(seed=1)
    np.testing.assert_array_equal(env.step(np.array([0, 0]))[0], twin.step(np.array([0, 0]))[0])


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))])
@pytest.mark.parametrize("propose", [some, "random", ["a", "b", "c", "ab"]])
def test_copies_go_on_alike_and_apart(duplicate, propose, same):
    keywords = {"level": "candidate", "propose": propose, "k": 3, "length": 4}
    env = gym.make_vec("text_envs/Copy-v0", num_envs=3, **keywords)
    env.reset(seed=3)
    twin = duplicate(env)
    for actions in np.random.default_rng(0).integers(0, 3, (10, 3)):
        same(env.step(actions), twin.step(actions))
    env = gym.make("text_envs/Copy-v0", **keywords)
    env.reset(seed=3)
    twin = duplicate(env)
    same(env.step(1), twin.step(1))
    same(env.reset(), twin.reset())


def test_the_knobs_reach_the_engine():
    env = gym.make(
        "text_envs/Copy-v0", level="candidate", propose=["aa"], k=1, length=2, reward_scale=3.0, distractors=2
    )
    layout = env.get_wrapper_attr("candidate_layout")
    assert layout == (6, 1, 2) and env.observation_space.shape == (layout.width,)
    observation, _ = env.reset(seed=1)
    shown = env.get_wrapper_attr("candidate_layout").split(observation)[0][2:4]
    _, reward, _, _, info = env.step(0)
    assert reward == 3 * info["reward_clean"] == 3 * (shown == 0).mean()


def test_levels_of_an_id():
    env = gym.make("text_envs/Copy-v0", level="candidate", propose=["a"], k=2, candidate_length=3)
    assert isinstance(env.unwrapped, UtteranceEnv) and env.action_space.n == 2
    batch = gym.make_vec("text_envs/Copy-v0", num_envs=2, level="candidate", propose=["a"], max_episode_steps=3)
    assert isinstance(batch, CandidateVectorActions) and batch.single_action_space.n == 4
    assert batch.tokenizer is batch.task.tokenizer and batch.vocab_size == 16
    with pytest.raises(TypeError, match=r"no keyword 'kk'.*candidate_length, dense,.* k, .*propose"):
        gym.make("text_envs/Copy-v0", level="candidate", kk=3)
    with pytest.raises(ValueError, match='Copy has no candidates of its own; pass propose=.*"random"'):
        gym.make_vec("text_envs/Copy-v0", level="candidate")


@pytest.mark.parametrize("wrapped_by_hand", [False, True])
def test_specs_go_through_json(wrapped_by_hand):
    if wrapped_by_hand:
        env = CandidateActions(gym.make("text_envs/Copy-v0", level="utterance"), ["ab", "ba"], k=2)
    else:
        env = gym.make("text_envs/Copy-v0", level="candidate", propose=["ab", "ba"], k=2)
    again = gym.envs.registration.EnvSpec.from_json(env.spec.to_json()).make()
    np.testing.assert_array_equal(again.reset(seed=1)[0], env.reset(seed=1)[0])
    json.dumps(gym.make_vec("text_envs/Copy-v0", num_envs=2, level="candidate", propose=["a"]).spec.kwargs)


@pytest.mark.parametrize("action", [2, -1, 0.0, True, "ab", None, [0]])
def test_actions_outside_the_space_are_refused_and_change_nothing(action):
    env = CandidateActions(UtteranceEnv(Copy(length=2)), ["aa", "ab"], k=2)
    env.reset(seed=1)
    with pytest.raises(InvalidAction, match=r"is not an integer in 0\.\.1; an action is the index of a candidate"):
        env.step(action)
    assert env.step(np.int64(1))[2]


@pytest.mark.parametrize(
    ("actions", "message"),
    [
        ([0, 2], "row 1: action 2 is not"),
        ([-1, 0], "row 0: action -1"),
        ([0], "pass 2 int"),
        ([0.0, 1.0], "float64"),
    ],
)
def test_batches_of_actions_outside_the_space_are_refused(actions, message):
    env = CandidateVectorActions(UtteranceVectorEnv(Copy(length=2), 2), ["aa", "ab"], k=2)
    with pytest.raises(ResetNeeded, match="call reset"):
        env.step(np.array([0, 0]))
    env.reset(seed=1)
    with pytest.raises(InvalidAction, match=message):
        env.step(np.array(actions))
    assert env.step(np.array([0, 1]))[2].all()


def test_rows_in_reset_may_be_given_any_action():
    env = UtteranceVectorEnv(Copy(length=2), 2, autoreset_mode="NextStep")
    env = CandidateVectorActions(env, ["aa"], k=1)
    env.reset(seed=1)
    assert env.step(np.array([0, 0]))[2].all() and not env.action_masks().any()
    env.step(np.array([99, -1]))
    assert env.action_masks().all()


@pytest.mark.parametrize("env", [lambda: TokenEnv(Copy()), lambda: gym.make("CartPole-v1")])
def test_other_levels_are_refused(env):
    with pytest.raises(TypeError, match='made with level="utterance", got'):
        CandidateActions(env(), ["a"])


def test_other_batches_are_refused():
    with pytest.raises(TypeError, match='make_vec with level="utterance".*CandidateActions'):
        CandidateVectorActions(SyncVectorEnv([lambda: UtteranceEnv(Copy())]), ["a"])


@pytest.mark.parametrize("keywords", [{"k": 0}, {"k": 1.5}, {"candidate_length": 0}])
def test_impossible_sizes_are_refused(keywords):
    with pytest.raises((ValueError, TypeError), match=next(iter(keywords))):
        CandidateActions(UtteranceEnv(Copy()), ["a"], **keywords)


def test_after_a_proposer_failed_all_rows_must_be_reset():
    failing = False

    def propose(contexts, k, rngs):
        if failing:
            raise OSError("model gone")
        return [["a"]] * len(contexts)

    batch = CandidateVectorActions(UtteranceVectorEnv(Copy(length=2), 2, autoreset_mode="Disabled"), propose, k=1)
    env = CandidateActions(UtteranceEnv(Copy(length=2)), propose, k=1)
    one = np.array([True, False])
    with pytest.raises(ResetNeeded, match="for all rows"):
        batch.reset(options={"reset_mask": one})
    batch.reset(seed=1)
    failing = True
    with pytest.raises(CandidateError, match=r"OSError\('model gone'\) on 1 contexts, the first '\w+'"):
        batch.reset(options={"reset_mask": one})
    with pytest.raises(CandidateError, match="propose.*model gone"):
        env.reset(seed=1)
    failing = False
    for call in (
        lambda: batch.step(np.array([0, 0])),
        lambda: batch.reset(options={"reset_mask": one}),
        lambda: env.step(0),
    ):
        with pytest.raises(ResetNeeded, match="call reset"):
            call()
    batch.reset(seed=1)
    env.reset(seed=1)
    assert batch.step(np.array([0, 0]))[2][0] and env.step(0)[2]


def test_a_failing_environment_under_disabled_can_be_reset_by_mask():
    env = CandidateVectorActions(UtteranceVectorEnv(Copy(length=2), 2, autoreset_mode="Disabled"), ["aa"], k=1)
    env.reset(seed=1)
    env.step(np.array([0, 0]))
    with pytest.raises(ResetNeeded, match="have ended"):
        env.step(np.array([0, 0]))
    env.reset(options={"reset_mask": np.array([True, False])})
    assert env.action_masks().tolist() == [[True], [False]]


def test_gymnasiums_checker_only_says_that_it_is_a_wrapper():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".*is different from the unwrapped version")
        warnings.filterwarnings("ignore", message=".*not having a spec")
        check_env(CandidateActions(UtteranceEnv(Copy()), some, k=3))
        check_env(gym.make("text_envs/Copy-v0", level="candidate", propose="random", k=3))


def test_stable_baselines_checker_has_nothing_to_say():
    checker = pytest.importorskip("stable_baselines3.common.env_checker")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        checker.check_env(CandidateActions(UtteranceEnv(Copy()), some, k=3))
        checker.check_env(gym.make("text_envs/Sentiment-v0", level="candidate", propose="random", k=3))


@pytest.mark.parametrize("algorithm", ["PPO", "DQN"])
def test_stock_stable_baselines_learns_to_choose(algorithm):
    sb3 = pytest.importorskip("stable_baselines3")
    env = gym.make("text_envs/Copy-v0", level="candidate", propose=["a", "b"], k=2, vocab_size=2, length=1)
    few = {"PPO": {"n_steps": 64, "batch_size": 64, "learning_rate": 0.01}, "DQN": {"learning_starts": 64}}[
        algorithm
    ]
    model = getattr(sb3, algorithm)("MlpPolicy", env, seed=0, device="cpu", **few)
    model.learn(512 if algorithm == "PPO" else 128)
    envs = model.get_env()
    assert envs.get_attr("candidate_layout")[0] == (2, 2, 1)
    assert envs.env_method("action_masks")[0].tolist() == [True, True]
    if algorithm == "PPO":
        observation, total = envs.reset(), 0.0
        for _ in range(50):
            observation, rewards, _, infos = envs.step(model.predict(observation, deterministic=True)[0])
            total += rewards[0]
        assert total > 45 and infos[0]["terminal_observation"].shape == (4,)


def test_the_batch_trains_under_stable_baselines():
    sb3 = pytest.importorskip("stable_baselines3")
    from agents.vec_env import VectorEnvAdapter

    env = gym.make_vec("text_envs/Copy-v0", num_envs=4, level="candidate", propose="random", k=3)
    envs = VectorEnvAdapter(env)
    model = sb3.PPO("MlpPolicy", envs, n_steps=16, batch_size=32, n_epochs=1, device="cpu").learn(64)
    assert model.num_timesteps == 64 and len(model.ep_info_buffer) == 64
    assert envs.get_attr("candidate_layout") == [env.candidate_layout] * 4
    assert envs.get_attr("tokenizer", [0]) == [env.tokenizer]
    assert np.stack(envs.env_method("action_masks")).shape == (4, 3)
    *_, infos = envs.step(np.zeros(4, int))
    assert infos[0]["terminal_observation"].shape == env.single_observation_space.shape
