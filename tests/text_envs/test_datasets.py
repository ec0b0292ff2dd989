import csv
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from text_envs.datasets import Prompts, load_prompts

texts = st.text(st.characters(exclude_categories=["Cs", "Cc"])).filter(str.strip)


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    return path


@settings(deadline=None)
@given(st.lists(st.tuples(texts, texts), min_size=1))
def test_files_give_back_what_was_written(tmp_path_factory, records):
    folder = tmp_path_factory.mktemp("prompts")
    expected = Prompts(tuple(t for t, _ in records), {"note": tuple(n for _, n in records)})
    with (folder / "a.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("text", "note"), *records])
    assert load_prompts(folder / "a.csv") == expected
    write(folder / "a.jsonl", "".join(json.dumps({"text": t, "note": n}) + "\n" for t, n in records))
    assert load_prompts(str(folder / "a.jsonl")) == expected
    write(folder / "a.txt", "\r\n\n".join(t for t, _ in records))
    assert load_prompts(folder / "a.txt").texts == tuple(t.strip() for t, _ in records)


def test_columns_and_byte_order_marks(tmp_path):
    path = write(tmp_path / "a.csv", '\ufefftitle,rating\n"two\nlines, quoted",3\n')
    assert load_prompts(path, column="title") == Prompts(("two\nlines, quoted",), {"rating": ("3",)})
    path = write(tmp_path / "a.jsonl", '{"text": "a", "n": 1}\n\n{"text": "b", "m": 2}\n')
    assert load_prompts(path).columns == {"n": (1, None), "m": (None, 2)}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", '{"text": "a"}\n{"text": "b"\n', 'a.jsonl:2: not JSON: .*the line is \'{"text": "b"\\\\n\''),
        ("a.jsonl", '{"text": "a"}\n["b"]\n', "a.jsonl:2: a line is an object"),
        (
            "a.jsonl",
            '{"text": "a"}\n\n{"prompt": "b", "n": 1}\n',
            "a.jsonl:3: no column 'text', only 'prompt', 'n'",
        ),
        ("a.jsonl", '{"text": 3}\n', "a.jsonl:1: 'text' is a text with at least one word, got 3"),
        ("a.jsonl", '{"text": "a\\ud800"}\n', "a.jsonl:1: 'text' holds a lone surrogate, .* at 1, .*mend it with"),
        ("a.jsonl", "{}\n".format("[" * 200_000), r"a.jsonl:1: too deeply nested .*the line is '\[{200}'$"),
        ("a.csv", "text,n,n,text,m\na,1,2,b,3\n", "a.csv:1: the header has 'text', 'n' more than once; rename"),
        ("a.jsonl", "\n", "a.jsonl: no prompts"),
        ("a.csv", "title,n\na,1\n", "a.csv:2: no column 'text', only 'title', 'n'; pass column="),
        ("a.csv", "text,n\na,1\nb\n", "a.csv:3: 1 fields under a header of 2, text, n"),
        ("a.csv", "text,n\na,1\nb,2,3\n", "a.csv:3: 3 fields under a header of 2"),
        ("a.csv", 'text,n\n"a"b,1\n', "a.csv:2: not CSV"),
        ("a.csv", "text,n\n ,1\n", "a.csv:2: 'text' is a text with at least one word, got ' '"),
        ("a.csv", "", "a.csv: no prompts"),
        ("a.txt", b"fine\n\xff\n", "a.txt:2: not UTF-8"),
        ("a.txt", "", "a.txt: no prompts"),
        ("a.docx", "x", "the suffix is '.docx'; prompts are read from .txt, .csv, .jsonl"),
    ],
)
def test_what_does_not_parse_is_named_by_file_and_line(tmp_path, name, content, message):
    with pytest.raises(ValueError, match=message):
        load_prompts(write(tmp_path / name, content))


def test_a_source_that_does_not_exist_is_named():
    with pytest.raises(
        FileNotFoundError, match=r"'reviews' is neither a file nor a named source \(movie_reviews\)"
    ):
        load_prompts("reviews")


def test_lists_and_prompts_pass():
    assert load_prompts(["a", "b"]).texts == ("a", "b")
    assert load_prompts(prompts := Prompts(("a",))) is prompts
    assert len(load_prompts()) == 60


def test_a_suffix_may_be_in_capitals(tmp_path):
    assert load_prompts(write(tmp_path / "A.TXT", "a\n")).texts == ("a",)


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


def test_a_fifth_is_for_testing():
    prompts = Prompts(tuple(map(str, range(5000))))
    assert len(prompts.split("test")) == pytest.approx(1000, abs=120)


def test_wrong_splits_are_refused():
    with pytest.raises(ValueError, match="got 'validation'"):
        Prompts(("a",)).split("validation")
    with pytest.raises(ValueError, match="none of the 1 prompts falls into the test split"):
        Prompts(("a",)).split("test")
