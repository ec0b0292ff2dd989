import copy
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.rows import RowError, RowWarning, open_for_append, read_rows
from benchmarks.suites import SCHEMA

UNREAD = {"schema", "fit_steps", "scale", "comparisons", "low", "high"}  # by a report
RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "run" / "rows.jsonl"
    with open_for_append(path) as rows:
        rows.append({"key": "a", "text": "line\nbreak ⏎ ü"})
        rows.append({"key": "b"})
    return path


def test_rows_come_back(path):
    assert read_rows(path) == [{"key": "a", "text": "line\nbreak ⏎ ü"}, {"key": "b"}]
    assert len(path.read_text().splitlines()) == 2


def test_half_of_a_surrogate_pair_comes_back(path):
    with open_for_append(path) as rows:
        rows.append({"key": "half", "text": "\ud83d"})
    assert read_rows(path)[-1] == {"key": "half", "text": "\ud83d"}


def test_a_torn_line_that_cannot_be_kept_stays_where_it_is(path, small_files):
    torn = path.read_bytes() + b'{"key": "torn'
    path.write_bytes(torn)
    with small_files(5), pytest.raises(RowError, match=r"rows\.torn cannot be written .* make room"):
        with open_for_append(path):
            pass
    assert path.read_bytes() == torn


def test_no_file_no_rows(tmp_path):
    assert read_rows(tmp_path / "absent.jsonl") == []


@pytest.mark.parametrize("torn", [b'{"key": "c', b'{"key": "c", "x": "\xc3', b"{"])
def test_a_torn_last_line_costs_nothing_else(path, torn):
    whole = path.read_bytes()
    path.write_bytes(whole + torn)
    with pytest.warns(RowWarning, match=r"rows\.jsonl:3: the last line is torn"):
        assert [row["key"] for row in read_rows(path)] == ["a", "b"]
    for _ in range(2):
        with pytest.warns(RowWarning, match=r"its last line was torn; it is kept in rows\.torn"):
            with open_for_append(path):
                pass
        assert path.read_bytes() == whole
        path.write_bytes(whole + torn + b" again")
    with pytest.warns(RowWarning), open_for_append(path) as rows:
        rows.append({"key": "d"})
    assert [row["key"] for row in read_rows(path)] == ["a", "b", "d"]
    assert path.read_bytes().startswith(whole)
    lines = [torn, torn + b" again", torn + b" again"]  # each was kept
    assert path.with_suffix(".torn").read_bytes() == b"".join(line + b"\n" for line in lines)


def test_a_whole_last_line_without_newline_is_kept(path):
    path.write_bytes(path.read_bytes() + b'{"key": "c"}')
    assert [row["key"] for row in read_rows(path)] == ["a", "b", "c"]
    with open_for_append(path) as rows:
        rows.append({"key": "d"})
    assert [row["key"] for row in read_rows(path)] == ["a", "b", "c", "d"]


@pytest.mark.parametrize(
    "bad",
    [
        b"not json\n",
        b"[1]\n",
        b'{"no": "key"}\n',
        b"\xff\n",
        b'{"key": "x", "mean": NaN}\n',
        b'{"key": "x", "mean": 1e999}\n',
        b'{"key": "x", "mean": 1' + b"0" * 400 + b"}\n",
        b'{"key": "x", "mean": 1' + b"0" * 5000 + b"}\n",
        b"[" * 100_000 + b"\n",
    ],
    ids=lambda bad: bad[:30].decode("latin-1"),
)
def test_a_bad_line_is_named(path, bad):
    path.write_bytes(path.read_bytes() + bad + b'{"key": "z"}\n')
    before = path.read_bytes()
    with pytest.raises(RowError, match=r"rows\.jsonl:3: not a"):
        read_rows(path)
    assert path.read_bytes() == before


def test_a_row_without_a_text_key_is_named(path):
    path.write_bytes(path.read_bytes() + b'{"key": ["y"]}\n')
    with pytest.raises(RowError, match=r"rows\.jsonl:3: not a row: key: \['y'\] is not of type 'string'"):
        read_rows(path)


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("failure", "key trial when error"),
        (
            "result",
            "key suite experiment seed wall_seconds started threads versions revision hardware samples",
        ),
    ],
)
def test_a_row_lacks_none_of_its_fields(kind, fields, tmp_path, quick_rows):
    whole = {**quick_rows[0], "trial": "Copy / PPO / seed 0", "when": "2025-01-01", "error": "no"}
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(whole) + "\n")
    assert read_rows(path, kind) == [whole]
    for name in fields.split():
        lacking = {key: value for key, value in whole.items() if key != name}
        path.write_text(f"{json.dumps(whole)}\n{json.dumps(lacking)}\n")
        with pytest.raises(RowError, match=rf"rows\.jsonl:2: not a {kind}: '{name}' is a (requ|depend)"):
            read_rows(path, kind)


def numbers_in(value, path=()):
    """Yield where in a row numbers are, the first of each list."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from numbers_in(inner, (*path, name))
    elif isinstance(value, list):
        for inner in value[:1]:
            yield from numbers_in(inner, (*path, 0))
    elif isinstance(value, int | float):
        yield path


@pytest.mark.parametrize("suite", ["core", "frontier", "real", "feedback", "granularity"])
def test_no_number_that_was_measured_may_be_a_text(suite, tmp_path):
    kept = [json.loads(line) for line in (RESULTS / suite / "rows.jsonl").read_text(encoding="utf-8").splitlines()]
    by_shape = {str([(name, type(value)) for name, value in row.items()]): row for row in kept}
    path = tmp_path / "rows.jsonl"
    for row in by_shape.values():
        for *outer, last in numbers_in(row):
            if outer[:1] in (["experiment"], ["training"]) or last in UNREAD or outer[-1:] == ["steps"]:
                continue
            damaged = copy.deepcopy(row)
            inner = damaged
            for name in outer:
                inner = inner[name]
            inner[last] = "x"
            path.write_text(json.dumps(damaged) + "\n")
            with pytest.raises(RowError, match=rf"{path}:1: not a result: .*'x' is not of type"):
                read_rows(path, "result")


@pytest.mark.parametrize(
    ("where", "value", "told"),
    [
        ("evaluation", None, "evaluation: None is not of type 'object'"),
        ("evaluation.greedy", None, "evaluation.greedy: None is not of type 'object'"),
        ("evaluation.sampled.normalized", "x", r"evaluation.sampled.normalized: 'x' is not of type "),
        ("evaluation.sampled", {}, "evaluation.sampled: 'episodes' is a required property"),
        ("experiment.task", 3, "experiment.task: 3 is not of type 'string'"),
        ("experiment", {}, "experiment: 'task' is a required property"),
        ("hardware", {}, "hardware: 'cpu' is a required property"),
        ("seed", True, "seed: True is not of type 'integer'"),
        ("seed", -1, "seed: -1 is less than the minimum of 0"),
        ("started", "yesterday", "started: 'yesterday' does not match"),
        ("curve", [[1, 0.5, 0.2]], r"curve\[0\]: \[1, 0.5, 0.2\] is too short"),
        ("curve", [[1, 0.5, 0.2, "x" * 500]], r"curve\[0\]\[3\]: 'x+ \.\.\. x+' is not of type "),
        ("curve", [[0, 0.5, 0.2, None]], r"curve\[0\]\[0\]: 0 is less than the minimum of 1"),
        ("curve", [[i, 0.5, 0.2, None] for i in (1, 3, 3)], "curve: its steps do not increase: 3, then 3"),
        ("experiment.task", "\ud800", "experiment.task: '.*' does not match"),
        ("cpu_seconds", "x", "cpu_seconds: 'x' is not of type 'number'"),
        ("experiment.trial", "benchmarks.frontier:trial", "'measurement' is a required property"),
        ("experiment.trial", "benchmarks.suite_granularity:x", "'tokens' is a required property"),
        ("experiment.trial", "benchmarks.feedback_loop:trial", "'(points|checkpoints)' is a required property"),
        ("experiment.trial", "benchmarks.feedback_movies:trial", "'movies' is a required property"),
        ("experiment.trial", "benchmarks.real:train_ppo", "'(measurement|completions)' is a required property"),
        ("samples", [{"prompt": "a"}], r"samples\[0\]: 'completion' is a required property"),
    ],
)  # fmt: skip
def test_a_damaged_field_is_named(where, value, told, tmp_path, quick_rows):
    row = copy.deepcopy(quick_rows[0])
    *outer, last = where.split(".")
    inner = row
    for name in outer:
        inner = inner[name]
    inner[last] = value
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row) + "\n")
    with pytest.raises(RowError, match=rf"^{path}:1: not a result: {told}.*; mend or delete this line$"):
        read_rows(path, "result")


def test_what_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(RowError, match="cannot be written .*; choose another --out"):
        with open_for_append(tmp_path / "file" / "rows.jsonl"):
            pass


def test_two_writers_are_refused(path):
    with open_for_append(path), pytest.raises(RowError, match="another run is writing"):
        with open_for_append(path):
            pass


def test_nan_is_refused_and_nothing_is_written(path):
    before = path.read_bytes()
    with open_for_append(path) as rows, pytest.raises(ValueError):
        rows.append({"key": "n", "value": float("nan")})
    assert path.read_bytes() == before


def test_each_row_is_one_line_of_json(path):
    for line in path.read_text(encoding="utf-8").splitlines():
        assert "key" in json.loads(line)


@pytest.mark.parametrize("schema", [SCHEMA + 1, "later", [3], str(SCHEMA), True])
def test_rows_of_another_schema_are_kept_apart(path, schema):
    with open_for_append(path) as rows:
        rows.append({"key": "c", "schema": schema})
        rows.append({"key": "d", "schema": SCHEMA})
    before = path.read_bytes()
    with pytest.warns(RowWarning, match=r"rows of another version are left out \(schema .*; they stay in the file"):
        assert [row["key"] for row in read_rows(path)] == ["a", "b", "d"]
    assert path.read_bytes() == before


def test_a_row_of_another_schema_may_look_different(path, quick_rows):
    path.write_text(json.dumps({"schema": SCHEMA + 1, "id": 3}) + "\n" + json.dumps(quick_rows[0]) + "\n")
    with pytest.warns(RowWarning):
        assert read_rows(path, "result") == [quick_rows[0]]


def test_a_disk_without_room_costs_the_row_only(path, small_files):
    before = path.read_bytes()
    with open_for_append(path) as rows:
        with small_files(len(before) + 20), pytest.raises(RowError, match="38 bytes could not be .* make room"):
            rows.append({"key": "long", "text": "x" * 10})
        assert path.read_bytes() == before
        rows.append({"key": "c"})
    assert [row["key"] for row in read_rows(path)] == ["a", "b", "c"]


KILLED = """
import os, signal, sys
from pathlib import Path
from benchmarks.rows import open_for_append

def half(descriptor, line, write=os.write):
    write(descriptor, line[: len(line) // 2])
    os.kill(os.getpid(), signal.SIGKILL)

with open_for_append(Path(sys.argv[1])) as rows:
    rows.append({"key": "a"})
    os.write = half
    rows.append({"key": "b"})
"""


def test_killed_while_a_row_is_written(tmp_path):
    path = tmp_path / "rows.jsonl"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    killed = subprocess.run([sys.executable, "-c", KILLED, str(path)], env=environment)
    assert killed.returncode == -signal.SIGKILL
    with pytest.warns(RowWarning, match="torn"), open_for_append(path) as rows:
        assert read_rows(path) == [{"key": "a"}]
        rows.append({"key": "b"})
    assert read_rows(path) == [{"key": "a"}, {"key": "b"}]
    assert path.with_suffix(".torn").read_bytes() == b'{"key"\n'
