import json
import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from text_envs.feedback import exchange
from text_envs.feedback.database import Database
from text_envs.feedback.exchange import Imported, export_comparisons, export_ratings, import_file
from text_envs.feedback.records import Comparison, Completion, Pair, Rating
from text_envs.feedback.store import Store

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
TIMES = st.floats(0, 2e9)
PAIRS = st.builds(Pair, TEXTS, TEXTS.map(lambda text: text + "a"), TEXTS.map(lambda text: text + "b"), TEXTS, TEXTS)
NAMES = st.sampled_from(["Ann", "Böb", "<b>Cid</b>"])
COMPARISONS = st.lists(
    st.builds(Comparison, PAIRS, st.sampled_from(["a", "b", "tie"]), NAMES, TIMES, st.none() | TIMES),
    max_size=6,
    unique_by=lambda c: (frozenset(c.pair.completions), c.annotator),
)
RATINGS = st.lists(
    st.builds(Rating, st.builds(Completion, TEXTS, TEXTS), st.floats(-9, 9), NAMES, TIMES, st.none() | TIMES),
    max_size=6,
    unique_by=lambda r: (r.completion, r.annotator),
)


def lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def write(path, *records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def meaning(comparison):
    """Return what it says, whichever completion is called a."""
    best = comparison.swapped() if comparison.choice == "b" else comparison
    both = best.pair.completions if best.choice == "a" else frozenset(best.pair.completions)
    return both, comparison.annotator, comparison.when, comparison.seconds


@settings(max_examples=15, deadline=None)
@given(COMPARISONS, RATINGS)
def test_what_was_exported_is_imported_again(comparisons, ratings):
    with tempfile.TemporaryDirectory() as folder:
        one, two = Database(f"{folder}/one.db"), Database(f"{folder}/two.db")
        with one, two:
            first, second = Store(one), Store(two)
            first.add_comparisons(comparisons)
            with one.transaction() as connection:
                assert all([first.add_rating(rating, connection) for rating in ratings])
            path = Path(folder, "exchanged.jsonl")
            assert export_comparisons(first, path, extra=exchange.EXTRA, ties=True) == len(comparisons)
            assert import_file(second, path).comparisons == len(comparisons)
            assert import_file(second, path) == Imported(known=len(comparisons))
            assert set(map(meaning, first.comparisons())) == set(map(meaning, second.comparisons()))
            export_ratings(first, path, extra=exchange.EXTRA)
            import_file(second, path)
            said = [
                {
                    (r.completion.prompt, r.completion.text, r.value, r.annotator, r.when, r.seconds)
                    for r in store.ratings()
                }
                for store in (first, second)
            ]
            assert said[0] == said[1] and len(said[0]) == len(ratings)


def test_the_export_is_what_trl_reads(store, pairs, tmp_path):
    store.add_comparisons(
        [Comparison(pairs[0], "a", "Ann"), Comparison(pairs[1], "b", "Ann"), Comparison(pairs[2], "tie", "Ann")]
    )
    path = tmp_path / "comparisons.jsonl"
    assert export_comparisons(store, path) == 2
    assert lines(path) == [
        {"prompt": "Which?", "chosen": "this 0", "rejected": "that 0"},
        {"prompt": "Which?", "chosen": "that 1", "rejected": "this 1"},
    ]
    datasets = pytest.importorskip("datasets")
    data = datasets.Dataset.from_json(str(path), cache_dir=str(tmp_path / "cache"))
    assert list(data) == lines(path)
    assert export_comparisons(store, path, ties=True, extra=["policies"]) == 3
    assert lines(path)[1:] == [
        {"prompt": "Which?", "chosen": "that 1", "rejected": "this 1", "tie": False, "chosen_policy": "dqn",
         "rejected_policy": "ppo"},
        {"prompt": "Which?", "chosen": "this 2", "rejected": "that 2", "tie": True, "chosen_policy": "ppo",
         "rejected_policy": "dqn"},
    ]  # fmt: skip
    assert set(datasets.Dataset.from_json(str(path), cache_dir=str(tmp_path / "other"))["tie"]) == {True, False}


def test_all_kinds_of_lines_are_taken_in(store, tmp_path):
    path = write(
        tmp_path / "all.jsonl",
        {
            "prompt": "Q",
            "completion_a": "1",
            "completion_b": "2",
            "policy_a": "ppo",
            "chosen": None,
            "rejected": None,
        },
        {"prompt": "Q", "completions": ["3", "4", "5"], "policies": ["x", "y", None]},
        {"prompt": "Q", "chosen": "6", "rejected": "7", "source": "elsewhere"},
        {"prompt": "Q", "chosen": "7", "rejected": "6"},
        {"prompt": "Q", "chosen": "7", "rejected": "6", "tie": True, "annotator": "Ann", "when": 5, "seconds": 1},
        {"prompt": "Q", "completion": "8", "rating": 2},
    )
    assert import_file(store, path) == Imported(pairs=5, comparisons=3, ratings=1)
    assert import_file(store, path) == Imported(known=8)
    assert [(p.completion_a, p.completion_b, p.policy_a, p.policy_b) for p in store.pairs()] == [
        ("1", "2", "ppo", None), ("3", "4", "x", "y"), ("3", "5", "x", None), ("4", "5", "y", None),
        ("6", "7", None, None),
    ]  # fmt: skip
    assert [(c.choice, c.when) for c in store.comparisons()][2] == ("tie", 5)
    names = [counts.name for counts in store.counts()]
    assert names == ["answers in all.jsonl", "answers in all.jsonl, 2", "Ann"]
    assert [c.choice for c in store.comparisons()] == ["a", "b", "tie"]


def test_the_forgotten_are_left_out(store, pairs, tmp_path):
    store.add_comparisons([Comparison(pairs[0], "a", name) for name in ("Ann", "Bob")])
    path = tmp_path / "all.jsonl"
    export_comparisons(store, path, extra=["annotator", "policies"])
    store.forget("Ann")
    assert import_file(store, path) == Imported(known=1, forgotten=1)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"prompt": "Q"', "2: not JSON"),
        ("[1]", "2: a line is an object"),
        ("\udcff", "2: not UTF-8"),
        ('{"chosen": "a", "rejected": "b"}', '2: "prompt" is a text, and there is none'),
        ('{"prompt": [{"role": "user"}], "chosen": "a", "rejected": "b"}', '2: "prompt" is a text, and got'),
        ('{"prompt": "Q", "chosen": "a"}', """2: a line has .* this has 'prompt', 'chosen'"""),
        ('{"prompt": "Q", "chosen": "a", "rejected": "a"}', "2: both completions are 'a'"),
        ('{"prompt": "Q", "chosen": "\\ud800", "rejected": "a"}', "2: completion holds a lone surrogate"),
        ('{"prompt": "Q", "chosen": 1, "rejected": "a"}', "2: completion is a text, got 1"),
        ('{"prompt": "Q", "chosen": "a", "rejected": "b", "tie": 1}', '2: "tie" is true or false, got 1'),
        ('{"prompt": "Q", "chosen": "a", "rejected": "b", "annotator": 1}', "2: an annotator's name is a text"),
        ('{"prompt": "Q", "chosen": "a", "rejected": "b", "when": "now"}', "2: when is a finite number, got 'now'"),
        (
            json.dumps({"prompt": "Q", "completions": list(map(str, range(101)))}),
            '2: "completions" has 101 texts, which make 5,050 pairs',
        ),
        ('{"prompt": "Q", "completions": ["a"]}', '2: "completions" is a list of at least two'),
        (
            '{"prompt": "Q", "completions": ["a", "b"], "policies": ["x"]}',
            '2: "policies" is a list of one for each',
        ),
        ('{"prompt": "Q", "completion": "a", "rating": NaN}', "2: rating is a finite number, got nan"),
        (
            '{"prompt": "Q", "chosen": "z", "rejected": "y", "annotator": "Ann"}',
            "2: 'Ann' has compared pair 1 before",
        ),
    ],
)
def test_a_line_that_is_wrong_is_named_and_nothing_is_imported(store, tmp_path, line, message):
    path = tmp_path / "wrong.jsonl"
    first = {"prompt": "Q", "chosen": "y", "rejected": "z", "annotator": "Ann"}
    path.write_bytes(json.dumps(first).encode() + b"\n" + os.fsencode(line) + b"\n")
    with pytest.raises(ValueError, match=f"wrong.jsonl:{message}"):
        import_file(store, path)
    assert store.progress().pairs == 0 and store.counts() == []


def test_other_files_and_fields_are_refused(store, tmp_path):
    with pytest.raises(ValueError, match="preferences are read from .jsonl files"):
        import_file(store, tmp_path / "pairs.csv")
    with pytest.raises(FileNotFoundError):
        import_file(store, tmp_path / "pairs.jsonl")
    for extra in ("when", ["name"]):
        with pytest.raises(ValueError, match="extra fields are of annotator, when, seconds, policies"):
            export_comparisons(store, tmp_path / "out.jsonl", extra=extra)
    assert not (tmp_path / "out.jsonl").exists()


def test_an_export_that_fails_leaves_the_old_file(store, pairs, tmp_path):
    store.add_comparisons([Comparison(pair, "a", "Ann") for pair in pairs])
    path = tmp_path / "out.jsonl"
    path.write_text("old")
    path.chmod(0o640)

    def broken():
        yield "line\n"
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        exchange._write_whole(path, broken())
    assert path.read_text() == "old" and os.listdir(tmp_path).count("out.jsonl") == 1
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".new")]
    export_comparisons(store, path)
    assert len(lines(path)) == 5 and path.stat().st_mode & 0o777 == 0o640


def test_a_device_is_written_and_not_replaced(store, pairs, tmp_path):
    store.add_comparisons([Comparison(pairs[0], "a", "Ann")])
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    assert export_comparisons(store, pipe) == 1
    assert json.loads(os.read(reader, 1000))["chosen"] == "this 0" and pipe.is_fifo()
    os.close(reader)
