import csv
import json
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from text_envs import readers
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
        (
            "a.jsonl",
            '{"text": "a"}\n{"text": "b", "n": {"m": 1, "m": 2}}\n',
            "a.jsonl:2: .* an object has 'm' more than once",
        ),
        ("a.jsonl", '{"text": "a", "text": "b"}\n', "a.jsonl:1: .* an object has 'text' more than once; rename"),
        ("a.csv", "text,n,n,text,m\na,1,2,b,3\n", "a.csv:1: the header has 'text', 'n' more than once; rename"),
        ("a.jsonl", "\n", "a.jsonl: no prompts"),
        ("a.csv", "title,n\na,1\n", "a.csv:2: no column 'text', only 'title', 'n'; pass column=$"),
        ("a.csv", "Text,n\na,1\n", "a.csv:2: no column 'text', only 'Text', 'n'; pass column='Text'"),
        ("a.csv", 'te"xt,"n"m\na,1\n', "a.csv:1: not CSV"),
        ("a.csv", "text,n\na,1\nb\n", "a.csv:3: 1 fields under a header of 2, text, n"),
        ("a.csv", "text,n\na,1\nb,2,3\n", "a.csv:3: 3 fields under a header of 2"),
        ("a.csv", 'text,n\n"a"b,1\n', "a.csv:2: not CSV"),
        ("a.csv", "text,n\n ,1\n", "a.csv:2: 'text' is a text with at least one word, got ' '"),
        ("a.csv", "", "a.csv: no prompts"),
        ("a.txt", b"fine\n\xff\n", "a.txt:2: not UTF-8"),
        ("a.txt", "", "a.txt: no prompts"),
        ("a.docx", "x", "the suffix is '.docx'; prompts are read from .txt, .csv, .jsonl, .parquet"),
    ],
)
def test_what_does_not_parse_is_named_by_file_and_line(tmp_path, name, content, message):
    with pytest.raises(ValueError, match=message):
        load_prompts(write(tmp_path / name, content))


@pytest.mark.parametrize("lazy", [False, True])
def test_a_field_of_a_csv_file_may_be_long(tmp_path, lazy):
    before = csv.field_size_limit(131_072)
    try:
        path = write(tmp_path / "a.csv", f"text,n\nshort,1\n{'a' * 200_000},2\n")
        assert load_prompts(path, lazy=lazy).texts[1] == "a" * 200_000
        csv.field_size_limit(2**25)
        load_prompts(path, lazy=lazy)
        assert csv.field_size_limit() == 2**25  # never lowered
    finally:
        csv.field_size_limit(before)


def test_an_endless_field_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(readers, "LONGEST_FIELD", 32)
    before = csv.field_size_limit(0)
    try:
        with pytest.raises(ValueError, match="a.csv:3: not CSV: field .* limit .32.; close the quote .* as .jsonl"):
            load_prompts(write(tmp_path / "a.csv", f'text\na\n"{"a" * 40}'))
    finally:
        csv.field_size_limit(before)


def test_a_suffix_may_be_in_capitals(tmp_path):
    assert load_prompts(write(tmp_path / "A.TXT", "a\n")).texts == ("a",)


def test_the_output_dataset_of_gpt2_is_read_as_it_is(tmp_path):
    said = [{"id": 7, "ended": True, "length": 3, "text": "One.\n\nTwo."}]
    said.append({"id": 8, "ended": False, "length": 1024, "text": "On and on"})
    path = write(tmp_path / "small-117M.test.jsonl", "".join(json.dumps(record) + "\n" for record in said))
    expected = Prompts(("One.\n\nTwo.", "On and on"), {"id": (7, 8), "ended": (True, False), "length": (3, 1024)})
    assert load_prompts(path) == expected
    write(path, json.dumps({"id": 9, "ended": True, "length": 0, "text": ""}) + "\n" + path.read_text("utf-8"))
    with pytest.raises(ValueError, match="test.jsonl:1: 'text' is a text with .* got ''.*skip_blank=True"):
        load_prompts(path)
    assert load_prompts(path, skip_blank=True) == expected


@pytest.fixture
def parquet(tmp_path):
    """Return a function that writes columns to a .parquet file."""
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    def save(path=tmp_path / "a.parquet", **columns):
        parquet.write_table(pyarrow.table(columns), path, row_group_size=2)
        return path

    return save


def test_parquet_files_give_back_what_was_written(parquet):
    path = parquet(text=["a", "b\nc", "d"], n=[1, None, 3], tags=[["x"], [], None])
    assert load_prompts(path) == Prompts(("a", "b\nc", "d"), {"n": (1, None, 3), "tags": (["x"], [], None)})
    assert load_prompts(parquet(title=["a"]), column="title") == Prompts(("a",))


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"texts": ["a"]}, "a.parquet: row 1: no column 'text', only 'texts'; pass column='texts'"),
        ({"text": ["a", "b", " "]}, "a.parquet: row 3: 'text' is a text with at least one word, got ' '"),
        ({"text": ["a", None]}, "a.parquet: row 2: 'text' is a text with at least one word, got None"),
        ({"text": []}, "a.parquet: no prompts in it"),
    ],
)
def test_what_is_wrong_in_a_parquet_file_is_named_by_row(parquet, columns, message):
    with pytest.raises(ValueError, match=message):
        load_prompts(parquet(**columns))


@pytest.mark.parametrize("lazy", [False, True])
def test_two_columns_of_one_name_are_refused(tmp_path, lazy):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    table = pyarrow.Table.from_arrays([pyarrow.array([text]) for text in "abc"], names=["text", "n", "text"])
    parquet.write_table(table, path := tmp_path / "a.parquet")
    with pytest.raises(ValueError, match="a.parquet has 'text' more than once; rename"):
        load_prompts(path, lazy=lazy)


def test_damaged_parquet_files_are_refused(parquet, tmp_path):
    path = parquet(text=["a few words"] * 2000)
    content = path.read_bytes()
    for damaged in (content[:-9], content[4:], b"text\na\n", b"", content[:4] + bytes(40) + content[44:]):
        with pytest.raises(ValueError, match=r"a.parquet: damaged, or not Parquet \(read \d+ rows, then: "):
            load_prompts(write(path, damaged))


def test_without_pyarrow_the_extra_is_named(parquet, monkeypatch):
    path = parquet(text=["a"])
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match=r"a.parquet: .* pyarrow: pip install 'text-envs\[data\]'"):
        load_prompts(path)
