import gymnasium as gym
import pytest

from text_envs.embedded import COMMON, PLAIN, STYLES
from text_envs.tasks.style import Kept, Marked, Style


def earned(said, **keywords):
    keywords = {"styles": ["formal"], "prompts": ["i want to know the price"], **keywords}
    env = gym.make("text_envs/Style-v0", level="utterance", **keywords).unwrapped
    context, _ = env.reset(seed=1)
    *_, info = env.step(said)
    return context, info["reward_clean"], info["reward_terms"]


def test_the_style_and_the_content_both_pay():
    context, value, terms = earned("i hereby request to know the price")
    assert context == "formal : i want to know the price"
    assert terms == {"marked": 1.0, "kept": pytest.approx(2 / 3), "repeated": 0.0}
    assert value == pytest.approx(0.5 + 0.5 * 2 / 3)
    assert earned("i want to know the price")[1] == 0.5
    assert earned("i hereby want to know the price")[1] == 0.75
    assert earned("yeah i hereby want to know the price")[1] == 0.5
    assert earned("")[1] == 0.0


def test_markers_make_it_harder():
    assert earned("i hereby want to know the price", markers=1)[1] == 1.0
    assert earned("i hereby want to know the price", markers=4)[1] == 0.625
    with pytest.raises(ValueError, match="markers is at least 1, got 0"):
        Style(markers=0)


def test_each_marker_counts_once_and_other_styles_count_against():
    said = ["Thou, THOU, thou!", "thou hath", "thou hath yeah", "yeah nope"]
    assert Marked(2)([""] * 4, said, style=["archaic"] * 4) == [0.5, 1.0, 0.5, 0.0]


def test_function_words_need_not_be_kept():
    assert Kept()(["the red car", "the red car", "it is"], ["a Red bus", "", ""]) == [0.5, 0.0, 1.0]


def test_lexicons_are_apart_from_each_other_and_from_the_prompts():
    words = [word for style in STYLES.values() for word in style]
    plain = {word for text in PLAIN for word in text.split()}
    assert len({*words}) == len(words) and not {*words} & (plain | {*COMMON})


def test_default_prompts_are_shown_in_every_style():
    env = gym.make_vec("text_envs/Style-v0", num_envs=3000, level="utterance")
    contexts, _ = env.reset(seed=1)
    assert len({*contexts}) == len(STYLES) * len(PLAIN)


@pytest.mark.parametrize(("styles", "shown"), [(["formal", "rude"], "rude"), ((), "none")])
def test_unknown_styles_are_named(styles, shown):
    with pytest.raises(ValueError, match=f"styles are some of formal, polite, archaic, casual, got {shown}"):
        Style(styles=styles)
