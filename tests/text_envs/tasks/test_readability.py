import gymnasium as gym
import pytest

from text_envs.tasks.readability import Readability, ReadingLevel, flesch_kincaid_grade, syllables

COUNTS = {  # of everyday words
    1: "the stone stones stayed made be tree whale asked eye eyes reads time used year years states place case "
    "week hand point fact law line side house kind head friend end name face change guy air tried needs rules",
    2: "table tables wanted pages wishes people water little added houses churches judges boxes café able many "
    "city number mother money story issue service moment horses roses agreed employed simple moved-on ages people",
    3: "beautiful different government family company history president another wonderful important",
    4: "community education information television january",
    5: "characteristic evaporation university communication",
}


def test_nine_syllable_counts_in_ten_are_right():
    pairs = [(word, count) for count, words in COUNTS.items() for word in words.split()]
    wrong = [word for word, count in pairs if syllables(word) != count]
    assert len(wrong) <= len(pairs) / 10, wrong


@pytest.mark.parametrize("word", ["", "e", "the", "hmm", "žluťoučký", "3", "語", "🙂", "ed", "les"])
def test_every_word_has_a_syllable(word):
    assert syllables(word) >= 1


def test_the_grade_by_hand():
    assert flesch_kincaid_grade("The dog ran. The cat sat!") == pytest.approx(0.39 * 3 + 11.8 * 1 - 15.59)
    assert flesch_kincaid_grade("water") == pytest.approx(0.39 + 11.8 * 2 - 15.59)
    assert flesch_kincaid_grade("no end ... here") == pytest.approx(0.39 * 1.5 + 11.8 - 15.59)
    with pytest.raises(ValueError, match="a text without words has no reading level, got '...'"):
        flesch_kincaid_grade("...")


def test_the_value_falls_with_the_distance_and_rises_with_the_words():
    text = "the dog ran to the old tree now"  # 8 words of one syllable
    grade = flesch_kincaid_grade(text)
    level = ReadingLevel(tolerance=4, min_words=8)
    wanted = [grade, grade + 1, grade - 3, grade + 9]
    assert level([""] * 4, [text] * 4, grade=wanted) == pytest.approx([1, 0.75, 0.25, 0])
    assert ReadingLevel(min_words=16)([""], [text], grade=[grade]) == pytest.approx([0.5])
    assert level(["", ""], ["", "?!"], grade=[2, 2]) == [0.0, 0.0]


EASY = "the sea is warm and the boat is small . we see it from the hill when it goes"
HARD = "in spring the water of the river is a significant part of the environment , and it is cold and very deep"


@pytest.mark.parametrize(("grade", "better", "worse"), [(2, EASY, HARD), (10, HARD, EASY)])
def test_the_shown_grade_is_the_one_that_pays(grade, better, worse):
    words = f"{EASY} {HARD}".split()
    env = gym.make(
        "text_envs/Readability-v0", level="utterance", grades=[grade], prompts=[" ".join(words)]
    ).unwrapped
    rewards = []
    for said in (better, worse):
        context, _ = env.reset(seed=1)
        assert context.startswith(f"grade {grade} : ")
        rewards.append(env.step(said)[1])
    assert rewards[0] > rewards[1]


def test_default_prompts_are_shown_with_every_grade():
    env = gym.make_vec("text_envs/Readability-v0", num_envs=3000, level="utterance")
    contexts, _ = env.reset(seed=1)
    assert len({*contexts}) == 3 * len(env.task.prompts)
    assert {text.split()[1] for text in contexts} == {"2", "6", "10"}


def test_bad_settings():
    with pytest.raises(ValueError, match="grades names at least one grade"):
        Readability(grades=())
    with pytest.raises(ValueError, match="tolerance is a positive number of grades, got 0"):
        Readability(tolerance=0)
    with pytest.raises(ValueError, match="min_words is at least 1, got 0"):
        Readability(min_words=0)
