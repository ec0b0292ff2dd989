import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from benchmarks.baselines import RandomAgent
from benchmarks.evaluation import action_masks, attribute, evaluate, make_env, normalize


class Steps(gym.Env):
    """Ends after as many steps as `reset` draws, which are seen; a reward of 1 a step.

    Its attributes have the names of ours and other meanings, as those of other projects may.
    """

    tokenizer, vocab_size, action_masks = "gpt2", 7, True

    observation_space = spaces.Box(0, 9, (1,), np.int64)
    action_space = spaces.Discrete(2)

    def __init__(self, clean=None, text=False, normalize=True):
        self.clean, self.text, self.normalize = clean, text, normalize

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.length = self.left = int(self.np_random.integers(1, 6))
        return np.array([self.left]), {}

    def step(self, action):
        self.left -= 1
        over = self.left == 0
        info = {"reward_clean": self.clean} if over and self.clean is not None else {}
        if over and self.text:
            info |= {"prompt": f"{self.length} steps", "completion": "done"}
        return np.array([self.left]), 1.0, over, False, info


class Memory:
    """An agent with a state, as recurrent policies have; it checks what it is given."""

    def __init__(self):
        self.calls = 0

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        if state is None:
            assert self.calls == 0 and episode_start.all()
            state = np.zeros(len(observation), int)
        state = np.where(episode_start, observation[:, 0], state)  # the length of the episode
        assert (state >= observation[:, 0]).all() and (episode_start == (state == observation[:, 0])).all()
        self.calls += 1
        return np.zeros(len(observation), int), state


@pytest.fixture(scope="module", autouse=True)
def registered():
    gym.register("own_tests/Steps-v0", entry_point=Steps)
    yield
    del gym.registry["own_tests/Steps-v0"]


def random_agent():
    return RandomAgent(np.random.default_rng(0))


def test_any_environment_pays_its_plain_return_and_has_no_text():
    env = make_env("own_tests/Steps-v0", 5, {})
    result = evaluate(random_agent(), env, 50, seed=1, deterministic=False)
    assert len(result.returns) == 50 and set(result.returns) == {1.0, 2.0, 3.0, 4.0, 5.0}
    assert result.episodes == [] and result.worst_to_best(3) == [] and normalize(env, 3.0) is None
    again = evaluate(random_agent(), env, 50, seed=1, deterministic=False)
    assert np.array_equal(result.returns, again.returns)


@pytest.mark.parametrize(("normalize_", "score"), [(lambda value: None, None), (lambda value: value / 4, 0.5)])
def test_a_normalize_of_another_project(normalize_, score):
    assert normalize(make_env("own_tests/Steps-v0", 2, {"normalize": normalize_}), 2.0) == score


def test_a_normalize_that_returns_no_number_is_told():
    env = make_env("own_tests/Steps-v0", 2, {"normalize": lambda value: "much"})
    with pytest.raises(TypeError, match=r"normalize\(2\) returned 'much', not a number"):
        normalize(env, 2.0)


def test_clean_rewards_and_texts_of_others_are_taken():
    env = make_env("own_tests/Steps-v0", 3, {"clean": 0.25, "text": True})
    result = evaluate(random_agent(), env, 12, seed=1, deterministic=False)
    assert set(result.returns) == {0.25}
    assert {episode.completion for episode in result.episodes} == {"done"}
    assert len({episode.prompt for episode in result.episodes}) > 1


def test_an_agent_that_returns_actions_alone_is_told():
    class Bare:
        def predict(self, observations, deterministic=False):
            return np.zeros(len(observations), int)

    with pytest.raises(TypeError, match=r"Bare.predict returned a ndarray, not \(actions, state\) as every SB3"):
        evaluate(Bare(), make_env("own_tests/Steps-v0", 2, {}), 4, seed=0, deterministic=True)


def test_recurrent_agents_get_their_state_and_the_beginnings():
    agent = Memory()
    evaluate(agent, make_env("own_tests/Steps-v0", 4, {}), 40, seed=0, deterministic=True)
    assert agent.calls > 20


def test_an_engine_equals_single_environments():
    keywords = {"vocab_size": 4, "length": 3, "dense": True, "reward_noise": 0.5, "reward_scale": 3.0}
    engine = make_env("text_envs/Copy-v0", 6, keywords)
    singles = gym.vector.SyncVectorEnv(
        [lambda: gym.make("text_envs/Copy-v0", **keywords)] * 6, autoreset_mode=gym.vector.AutoresetMode.SAME_STEP
    )
    one, other = (evaluate(random_agent(), env, 24, seed=2, deterministic=False) for env in (engine, singles))
    assert np.array_equal(one.returns, other.returns) and one.episodes == other.episodes
    assert normalize(engine, 0.5) == normalize(singles, 0.5) is not None


def test_masks_of_a_batch_of_singles_and_of_environments_without():
    names = ("text_envs/Brackets-v0", {})
    engine = make_env(names[0], 2, names[1])
    singles = gym.vector.SyncVectorEnv([lambda: gym.make(names[0])] * 2)
    for env in (engine, singles):
        env.reset(seed=0)
    assert np.array_equal(action_masks(engine), action_masks(singles))
    steps = make_env("own_tests/Steps-v0", 3, {})
    assert action_masks(steps).tolist() == [[True, True]] * 3
    assert attribute(steps, "task") is None and attribute(singles, "vocab_size") == engine.vocab_size
