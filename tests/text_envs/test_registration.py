import json

import gymnasium as gym
import pytest

import text_envs
from text_envs import TokenEnv, TokenVectorEnv, UtteranceEnv, UtteranceVectorEnv
from text_envs.registration import find_spec
from text_envs.tasks.copy import Copy


@pytest.mark.parametrize("id", text_envs.task_ids())
def test_levels_and_batches(id):
    for level, single, batched in [
        ("token", TokenEnv, TokenVectorEnv),
        ("utterance", UtteranceEnv, UtteranceVectorEnv),
    ]:
        assert type(gym.make(id, level=level).unwrapped) is single
        env = gym.make_vec(id, num_envs=3, level=level, vectorization_mode="vector_entry_point")
        assert type(env) is batched and env.num_envs == 3
    assert type(gym.make(f"text_envs:{id}").unwrapped) is TokenEnv
    assert type(gym.make_vec(id)) is TokenVectorEnv


def test_keywords_reach_the_task_and_the_environment():
    env = gym.make("text_envs/Copy-v0", vocab_size=5, length=3, dense=True, reward_scale=2.0).unwrapped
    assert (env.task.vocab_size, env.task.length) == (5, 3)
    observation, _ = env.reset(seed=1)
    assert env.step(int(observation[0]))[1] == pytest.approx(2 / 3)
    env = gym.make_vec("text_envs/Copy-v0", num_envs=2, length=3, autoreset_mode="NextStep", max_episode_steps=2)
    assert env.task.length == 3 and env.metadata["autoreset_mode"] is gym.vector.AutoresetMode.NEXT_STEP
    env.reset()
    env.step([0, 0])
    assert env.step([0, 0])[3].all()


@pytest.mark.parametrize("make", [gym.make, gym.make_vec])
def test_an_unknown_keyword_names_the_known_ones(make):
    with pytest.raises(TypeError) as caught:
        make("text_envs/Password-v0", lenght=3)
    assert "Password has no keyword 'lenght'" in str(caught.value)
    assert "Its own: length, secret_seed, vocab_size" in str(caught.value)
    for name in ("dense", "distractors", "level", "render_mode", "reward_noise"):
        assert name in str(caught.value).partition("Every environment's:")[2]


@pytest.mark.parametrize("make", [gym.make, gym.make_vec])
def test_an_unknown_level_is_refused(make):
    with pytest.raises(ValueError, match='level is "token", "utterance" or "candidate", got \'word\''):
        make("text_envs/Copy-v0", level="word")


def test_specs_go_through_json():
    keywords = {
        "level": "utterance",
        "reward": "text_envs.rewards:Length",
        "prompts": ["once upon a time"],
        "max_new_tokens": 3,
    }
    env = gym.make("text_envs/Sentiment-v0", **keywords)
    spec = gym.envs.registration.EnvSpec.from_json(env.spec.to_json())
    assert spec.kwargs == {"task": "text_envs.tasks.sentiment:Sentiment", **keywords}
    again = spec.make()
    again.reset(seed=1)
    assert again.step("time upon")[1] == 2.0
    json.dumps(gym.make_vec("text_envs/Copy-v0", num_envs=2, autoreset_mode="SameStep").spec.kwargs)


def test_a_task_of_the_users_own():
    try:
        text_envs.register_task("mine/Mirror-v0", "text_envs.tasks.reverse:Reverse")
        assert gym.make("mine/Mirror-v0", length=2).unwrapped.task.length == 2
        assert gym.make_vec("mine/Mirror-v0", num_envs=2).num_envs == 2
    finally:
        gym.registry.pop("mine/Mirror-v0", None)


@pytest.mark.parametrize("task", [int, "text_envs.tasks.copy", "text_envs.tasks.copy:", ":Copy"])
def test_a_task_is_registered_by_name(task):
    with pytest.raises(TypeError, match='"module:class", a string, got'):
        text_envs.register_task("mine/Wrong-v0", task)
    assert "mine/Wrong-v0" not in gym.registry


@pytest.mark.parametrize("name", ["text_envs.tasks.copy:Nope", "text_envs.tasks.copy:at_least"])
def test_a_name_that_is_no_task_is_refused_when_it_is_made(name):
    try:
        text_envs.register_task("mine/Wrong-v0", name)
        with pytest.raises(TypeError, match=f"'{name}' names no subclass of Task"):
            gym.make("mine/Wrong-v0")
    finally:
        gym.registry.pop("mine/Wrong-v0", None)


class Riddle(Copy):
    """Copy whose keywords are called as those of candidates, and of every environment, are."""

    def __init__(self, *, k=2, length=3):
        super().__init__(length=length)
        self.k = k


class Levels(Copy):
    def __init__(self, *, level=1, dense=True):
        super().__init__()


@pytest.mark.parametrize("make", [gym.make, gym.make_vec])
def test_a_keyword_of_a_task_never_goes_to_the_environment_instead(make):
    try:
        text_envs.register_task("mine/Riddle-v0", f"{__name__}:Riddle")
        text_envs.register_task("mine/Levels-v0", f"{__name__}:Levels")
        assert make("mine/Riddle-v0", k=5).unwrapped.task.k == 5
        with pytest.raises(TypeError, match="Riddle has the keyword 'k', which is .*; give it another name"):
            make("mine/Riddle-v0", level="candidate", propose=["a"])
        with pytest.raises(TypeError, match="Levels has the keyword 'dense', 'level', which"):
            make("mine/Levels-v0")
    finally:
        gym.registry.pop("mine/Riddle-v0", None)
        gym.registry.pop("mine/Levels-v0", None)


def test_keywords_of_candidates_say_which_level_they_are_for():
    with pytest.raises(TypeError, match="no keyword 'propose', 'k'; they are for level=\"candidate\""):
        gym.make("text_envs/Copy-v0", propose="random", k=3)


def test_ids_are_found_in_modules():
    assert find_spec("text_envs:text_envs/Copy-v0").id == "text_envs/Copy-v0"
    with pytest.raises(gym.error.Error, match="Coppy"):
        find_spec("text_envs/Coppy-v0")
    with pytest.raises(ImportError, match="absent"):
        find_spec("absent_module:text_envs/Copy-v0")
