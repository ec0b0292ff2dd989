import gymnasium as gym
import pytest

from text_envs.rewards import Length
from text_envs.tasks.keywords import Keywords, Listed, Used, covered


def earned(said, **keywords):
    env = gym.make("text_envs/Keywords-v0", level="utterance", prompts=["river boat wind"], **keywords).unwrapped
    assert env.reset(seed=1)[0] == "river boat wind"
    *_, info = env.step(said)
    return info["reward_clean"], info["reward_terms"]


def test_the_words_are_wanted_in_a_sentence_and_not_in_a_list():
    assert earned("the wind takes the boat near a river")[0] == 1.0
    assert earned("river boat wind") == (0.75, {"used": 1.0, "listed": 1.0, "repeated": 0.0})
    assert earned("")[0] == 0.0


def test_repetition_costs():
    value, terms = earned("the boat and the boat and the boat")
    assert terms == {"used": pytest.approx(1 / 3), "listed": 0.0, "repeated": pytest.approx(4 / 7)}
    assert value == pytest.approx(1 / 3 - 0.25 * 4 / 7)


def test_case_and_punctuation_do_not_matter():
    assert Used()(["Dog park"], ["The DOG, in a park."]) == [1.0]
    assert Used()(["...", "dog"], ["", "dogs"]) == [1.0, 0.0]
    assert Listed()(["a b", "a b", "a b"], ["A, b!", "a", "a x b a"]) == [1.0, 0.0, pytest.approx(1 / 3)]
    assert covered(set(), ["a"]) == 1.0


def test_more_words_are_shown_when_asked():
    assert {len(text.split()) for text in Keywords().prompts.texts} == {3}
    assert {len(text.split()) for text in Keywords(prompt_words=5).prompts.texts} == {5}
    assert Keywords(prompts=["a b c d"]).prompts.texts == ("a b c d",)


def test_every_prompt_can_be_answered_in_the_default_vocabulary():
    task = Keywords(prompt_words=5)
    for text in task.prompts.texts:
        said = " the ".join(text.split())
        assert len(task.codec.encode(said)) < task.max_new_tokens
        assert task.reward([text], [said])[0] >= 0.9


def test_a_reward_of_the_users():
    assert isinstance(Keywords(reward="text_envs.rewards:Length").reward, Length)
