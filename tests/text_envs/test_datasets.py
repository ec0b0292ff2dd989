import unicodedata

import gymnasium as gym
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import text_envs  # noqa: F401  (registers the ids)
from text_envs.datasets import Prompts, load_prompts

texts = st.text(st.characters(exclude_categories=["Cs", "Cc"])).filter(str.strip)


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("movie_review", "did you mean 'movie_reviews'"),
        ("owner/name", 'pass a path, a name, a list of texts or "hub:owner/name"'),
    ],
)
def test_a_source_that_does_not_exist_is_named(name, remedy):
    with pytest.raises(
        FileNotFoundError, match=rf"'{name}' is .* \(movie_reviews, product_reviews, .*\); {remedy}"
    ):
        load_prompts(name)


def test_lists_and_prompts_pass():
    assert load_prompts(["a", "b"]).texts == ("a", "b")
    assert load_prompts(prompts := Prompts(("a",))) is prompts
    assert len(load_prompts()) == 60


COLUMNS = {"title": ["one", "two"], "rating": [1, 2]}


def test_a_dict_of_columns_is_read_by_their_names():
    prompts = load_prompts(COLUMNS, column="title")
    assert prompts.texts == ("one", "two") and dict(prompts.columns) == {"rating": (1, 2)}
    env = gym.make("text_envs/Sentiment-v0", level="utterance", prompts=COLUMNS, column="title")
    assert env.reset(seed=1)[0] in COLUMNS["title"]


def test_a_data_frame_is_its_columns():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(COLUMNS, index=[7, 3])
    prompts = load_prompts(frame, column="title")
    assert prompts.texts == ("one", "two") and dict(prompts.columns) == {"rating": (1, 2)}
    assert type(prompts.columns["rating"][0]) is int
    with pytest.raises(ValueError, match="the columns 'title', 'rating' twice; rename"):
        load_prompts(pandas.concat([frame, frame], axis=1), column="title")


@pytest.mark.parametrize(
    ("columns", "error", "message"),
    [
        (COLUMNS, ValueError, "prompts: row 1: no column 'text', only 'title', 'rating'; pass column="),
        ({"text": ["a", " "]}, ValueError, "prompts: row 2: 'text' is a text with at least one word"),
        ({"text": ["a"], "rating": [1, 2]}, ValueError, "got the lengths {'text': 1, 'rating': 2}"),
        ({"text": "a b"}, TypeError, "column 'text' of the prompts is a list of values, got 'a b'"),
        ({"text": ["a"], 3: [1]}, TypeError, "named by texts, got 3"),
        ({}, ValueError, "prompts: no prompts in it"),
    ],
)
def test_columns_that_hold_no_prompts_are_refused(columns, error, message):
    with pytest.raises(error, match=message):
        load_prompts(columns)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (["a", ""], "prompt 1 is a text with at least one word, got ''"),
        (["a", 3], "prompt 1 is a text with at least one word, got 3"),
        (["a", "b\ud800"], "prompt 1 holds a lone surrogate, .* at 1, .*mend it with"),
    ],
)
def test_lists_of_other_things_are_refused(bad, message):
    with pytest.raises(ValueError, match=message):
        load_prompts(bad)


def test_what_is_no_source_is_refused():
    with pytest.raises(TypeError, match="got 3; pass a list of texts or a path"):
        load_prompts(3)
    with pytest.raises(FileNotFoundError, match="prompts='a{190,199} is neither a file"):
        load_prompts("a" * 5000 + ".txt")
    with pytest.raises(FileNotFoundError, match="prompts='' is neither a file"):
        load_prompts("")  # not the folder one stands in


def test_blank_texts_can_be_left_out():
    assert load_prompts(["a", " ", None], skip_blank=True).texts == ("a",)
    with pytest.raises(ValueError, match="prompt 1 is a text .*, got 3"):
        load_prompts(["a", 3], skip_blank=True)
    with pytest.raises(ValueError, match="no prompts"):
        load_prompts([" "], skip_blank=True)


def test_a_generator_can_be_read_once():
    prompts = (text for text in ["a", "b"])
    assert load_prompts(prompts).texts == ("a", "b")
    with pytest.raises(ValueError, match="no prompts: <generator .*read once.*pass a list"):
        load_prompts(prompts)


def test_columns_are_as_long_as_the_texts():
    with pytest.raises(ValueError, match="'n' has 1 values for 2 texts"):
        Prompts(("a", "b"), {"n": (1,)})
    with pytest.raises(ValueError, match="no prompts"):
        Prompts(())


def test_first_words_and_repetitions():
    prompts = Prompts(("One  two three", "one TWO four", "one"), {"n": (1, 2, 3)})
    assert prompts.first_words(2).texts == ("One two", "one TWO", "one")
    assert prompts.first_words(2).unique() == prompts.first_words(2)  # other case: another text
    assert prompts.first_words(1).unique() == Prompts(("One", "one"), {"n": (1, 2)})


@given(st.lists(texts, min_size=40, unique=True), st.data())
def test_splits_are_disjoint_complete_and_stable(all_texts, data):
    prompts = Prompts(tuple(all_texts)).unique()
    parts = {}
    for part in ("train", "test"):
        try:
            parts[part] = set(prompts.split(part).texts)
        except ValueError:
            parts[part] = set()
    assert parts["train"] | parts["test"] == set(prompts.texts) and not parts["train"] & parts["test"]
    some = Prompts(tuple(data.draw(st.lists(st.sampled_from(all_texts), min_size=1))))
    for text in some.texts:
        part = "test" if text in parts["test"] else "train" if text in parts["train"] else None
        assert part is None or text in some.split(part).texts


@given(texts, st.sampled_from(["NFC", "NFD", "NFKC", "NFKD"]), st.sampled_from([" ", "\t", "\u2003", "\u00a0\n"]))
@example("é ﬁ Å ǆ", "NFKD", " ")
@example("\u0345\u0313 ᾳ", "NFD", " ")  # casefolding takes the marks apart from their order
def test_other_spellings_of_a_text_are_in_the_same_split(text, form, space):
    spellings = (unicodedata.normalize(form, text), text.casefold(), space + space.join(text.split(" ")) + space)
    prompts = Prompts((text, *spellings))
    parts = [part for part in ("train", "test") if _has(prompts, part)]
    assert len(parts) == 1 and len(prompts.split(parts[0])) == len(prompts)


def _has(prompts, part):
    try:
        return bool(len(prompts.split(part)))
    except ValueError:
        return False


def test_splits_of_earlier_versions_stand():
    prompts = Prompts(("The film", "Čapek", "to  BE", "日本語", "straße", "naïve", "five"))
    assert prompts.split("test").texts == ("to  BE", "straße", "five")


def test_a_fifth_is_for_testing():
    prompts = Prompts(tuple(map(str, range(5000))))
    assert len(prompts.split("test")) == pytest.approx(1000, abs=120)


def test_wrong_splits_are_refused():
    with pytest.raises(ValueError, match="got 'validation'"):
        Prompts(("a",)).split("validation")
    with pytest.raises(ValueError, match="none of the 1 prompts falls into the test split"):
        Prompts(("a",)).split("test")
