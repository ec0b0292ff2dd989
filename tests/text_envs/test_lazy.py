import csv
import json
import pickle
import tracemalloc
from copy import deepcopy

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from text_envs.datasets import Prompts, load_prompts

texts = st.text(st.characters(exclude_categories=["Cs"])).filter(str.strip)
notes = st.text(st.characters(exclude_categories=["Cs", "Cc"]))


def in_memory(prompts):
    assert prompts.lazy
    return Prompts(tuple(prompts.texts), {name: tuple(values) for name, values in prompts.columns.items()})


def write(path, records, mark):
    """Write (text, note) records in the format that the suffix says, blank lines between them."""
    with path.open("w", encoding="utf-8", newline="") as file:
        file.write(mark)
        if path.suffix == ".csv":
            writer = csv.writer(file)
            writer.writerow(("text", "note"))
            for record in records:
                writer.writerow(record)
                file.write("\r\n")
        elif path.suffix == ".jsonl":
            file.writelines(json.dumps({"text": text, "note": note}) + "\n\n" for text, note in records)
        else:
            file.write("\r\n\n".join(text for text, _ in records))


@pytest.mark.parametrize("suffix", [".txt", ".csv", ".jsonl"])
@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(texts, notes), min_size=1), st.sampled_from(["", "\ufeff"]), st.booleans())
def test_what_is_read_when_it_is_drawn_is_what_is_read_at_once(tmp_path_factory, suffix, records, mark, double):
    path = tmp_path_factory.mktemp("prompts") / f"a{suffix}"
    write(path, records * (1 + double), mark)
    try:
        at_once = load_prompts(path)
    except ValueError as error:  # a text of a .csv file that the reader refuses, such as one with a NUL
        with pytest.raises(ValueError) as lazily:
            load_prompts(path, lazy=True)
        assert str(lazily.value) == str(error)
        return
    prompts = load_prompts(path, lazy=True)
    assert in_memory(prompts) == at_once and not at_once.lazy
    assert [prompts.texts[i] for i in range(-len(prompts), len(prompts))] == [*at_once.texts] * 2
    assert prompts.texts[1::2] == at_once.texts[1::2]
    shown, expected = prompts.first_words(1).unique(), at_once.first_words(1).unique()
    assert in_memory(shown) == in_memory(shown.first_words(2)) == expected
    for part in ("train", "test"):
        try:
            expected_part = expected.split(part)
        except ValueError:
            continue
        assert in_memory(shown.split(part)) == expected_part


@pytest.fixture
def prompts(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "a b", "n": [1]}\n{"text": " "}\n{"text": "c", "m": 2}\n', encoding="utf-8")
    return load_prompts(path, lazy=True, skip_blank=True)


def test_records_may_lack_columns_and_texts(prompts):
    assert in_memory(prompts) == Prompts(("a b", "c"), {"n": ([1], None), "m": (None, 2)})
    assert prompts.texts[np.int64(1)] == "c" and "c" in prompts.texts
    for index in (2, -3):
        with pytest.raises(IndexError):
            prompts.texts[index]


def test_they_pickle_small_and_copies_are_the_same(prompts):
    again = pickle.loads(pickle.dumps(prompts))
    assert again.lazy and in_memory(again) == in_memory(prompts)
    assert deepcopy({"prompts": prompts})["prompts"] is prompts
    assert len(pickle.dumps(prompts)) < 2000
    shown = prompts.unique()
    assert shown.columns["n"].places is shown.columns["m"].places is shown.texts.places


def test_a_file_that_changed_is_refused(tmp_path, prompts):
    with (tmp_path / "a.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"text": "d"}\n')
    with pytest.raises(ValueError, match="a.jsonl has changed since .* load them again"):
        prompts.texts[0]


def test_memory_does_not_grow_with_the_texts(tmp_path):
    def peak(lazy):
        tracemalloc.start()
        prompts = load_prompts(path, lazy=lazy).unique().split("train")
        assert len(prompts.texts[len(prompts) // 2]) > 1000
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    path = tmp_path / "a.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for number in range(4000):
            file.write(json.dumps({"text": f"{number} " + "x" * 1000, "n": number}) + "\n")
    size = path.stat().st_size
    assert peak(lazy=False) > size > 8 * peak(lazy=True)
