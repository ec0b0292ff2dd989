import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import __main__ as command
from benchmarks import suites
from benchmarks.rows import open_for_append
from benchmarks.runner import ROWS

ROOT = Path(__file__).parents[2]


def test_bare_command_shows_what_there_is(capsys):
    assert command.main([]) == 0
    assert "text-envs COMMAND" in capsys.readouterr().out


def test_an_unknown_command_is_named(capsys):
    assert command.main(["trian"]) == 2
    assert "'trian'" in capsys.readouterr().err


def test_modules_of_the_current_folder_can_be_named(tmp_path):
    (tmp_path / "my_module.py").write_text(
        "import text_envs\n"
        "from text_envs.tasks.copy import Copy\n"
        "class Mine(Copy):\n"
        "    'Say it again.'\n"
        "text_envs.register_task('mine/Again-v0', 'my_module:Mine')\n"
        "def short(prompts, completions, **columns):\n"
        "    return [float(len(completion) < 9) for completion in completions]\n"
    )
    script = "import sys; from benchmarks.__main__ import main; sys.exit(main())"
    for words, shown in [
        (["info", "my_module:mine/Again-v0"], "Say it again."),
        (["info", "text_envs/Sentiment-v0", "--set", "reward=my_module:short"], "earned  "),
    ]:
        run = [sys.executable, "-P", "-c", script, *words]  # -P: as an installed command, which does not look here
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        found = subprocess.run(run, capture_output=True, text=True, cwd=tmp_path, env=environment)
        assert found.returncode == 0 and shown in found.stdout, found.stderr


@pytest.mark.parametrize("words", ["reward-model x.jsonl --out x", "bench speed", "train X"])
def test_a_package_that_is_missing_is_named_with_the_remedy(words):
    script = "import sys; sys.modules['torch'] = None; from benchmarks.__main__ import main; sys.exit(main())"
    run = [sys.executable, "-c", script, *words.split()]
    found = subprocess.run(run, capture_output=True, text=True)
    assert found.returncode == 2 and "Traceback" not in found.stderr
    assert "torch" in found.stderr and found.stderr.count("pip install 'text-envs[") == 1


def test_suites_are_listed_without_what_they_are_run_with():
    script = "import sys; sys.modules['torch'] = None; from benchmarks.__main__ import main; sys.exit(main())"
    found = subprocess.run([sys.executable, "-c", script, "bench", "list"], capture_output=True, text=True)
    assert found.returncode == 0
    assert all(f"\n{name} " in f"\n{found.stdout}" for name in suites.NAMES)


def test_a_reader_that_has_seen_enough_is_no_error():
    script = "from benchmarks.__main__ import main; main(['bench', 'list', 'core'])"
    listing = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    listing.stdout.close()
    assert listing.stderr.read() == b""
    listing.wait()
    listing.stderr.close()


def test_list_shows_the_experiments_of_a_suite(capsys):
    assert command.bench(["list", "sparse"]) == 0
    out = capsys.readouterr().out
    assert "Copy, sparse / PPO" in out and "600,000 steps" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "quikc"], "no suite is called 'quikc'; choose one of quick"),
        (["run", "quick", "--only", "absent"], "matches no experiment"),
        (
            ["run", "quick", "--agent", "absent_module:make"],
            "--agent absent_module:make: no module 'absent_module'",
        ),
        (["run", "quick", "--env", "Absent-v0"], "--env Absent-v0: "),
        (["run", "quick", "--ray", "127.0.0.1:1"], "--ray 127.0.0.1:1: no cluster can be joined there"),
        (["list", "nothing"], "no suite is called 'nothing'"),
        (["report", "no/such/folder"], "holds no rows; run a suite first"),
    ],
)
def test_mistakes_are_told_in_a_line(arguments, message, capsys):
    assert command.bench(arguments) == 2
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error


@pytest.mark.parametrize("option", ["--jobs", "--threads", "--steps", "--timeout", "--seeds"])
@pytest.mark.parametrize("value", ["0", "-1", "many"])
def test_counts_are_at_least_one(option, value, capsys):
    with pytest.raises(SystemExit, match="2"):
        command.bench(["run", "quick", option, value])
    assert f"argument {option}: {value!r} is not a whole number of at least 1" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--jobs", "--threads", "--seeds"])
def test_counts_that_are_slips_are_told(option, capsys):
    with pytest.raises(SystemExit, match="2"):
        command.bench(["run", "quick", option, "1_000_000_000_000"])
    assert f"argument {option}: 1_000_000_000_000 is more than 10,000" in capsys.readouterr().err


def test_a_broken_row_is_told_with_file_and_line(tmp_path, quick_rows, capsys):
    row = json.dumps(quick_rows[0])
    (tmp_path / ROWS).write_text(f"{row}\nbroken\n{row}\n")
    assert command.bench(["report", str(tmp_path)]) == 2
    assert "rows.jsonl:2: not a JSON object" in capsys.readouterr().err


@pytest.mark.parametrize("row", ['{"key": "y"}', '{"key": ["y"]}'])
@pytest.mark.parametrize("arguments", [["report"], ["run", "quick", "--out"]])
def test_a_row_that_is_not_whole_is_told_before_anything_is_run(row, arguments, tmp_path, capsys):
    (tmp_path / ROWS).write_text(row + "\n")
    assert command.bench([*arguments, str(tmp_path)]) == 2
    out, error = capsys.readouterr()
    assert "rows.jsonl:1: not a result: " in error and "trials to run" not in out


@pytest.mark.parametrize("where", ["file", "file/below", "/proc/absent"])
def test_a_folder_that_cannot_be_written_is_told_in_a_line(where, tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    assert command.bench(["run", "quick", "--out", str(tmp_path / where)]) == 2
    error = capsys.readouterr().err
    assert "cannot be written" in error and "choose another --out" in error
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("arguments", [["report"], ["run", "quick", "--out"]])
def test_rows_that_are_a_folder_are_told_in_a_line(arguments, tmp_path, capsys):
    (tmp_path / ROWS).mkdir()
    assert command.bench([*arguments, str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert str(tmp_path / ROWS) in error and "Traceback" not in error


def test_an_absent_readme_is_told_before_the_report_is_drawn(tmp_path, quick_rows, capsys):
    (tmp_path / ROWS).write_text("".join(json.dumps(row) + "\n" for row in quick_rows))
    assert command.bench(["report", str(tmp_path), "--readme", str(tmp_path / "absent.md")]) == 2
    assert "absent.md: No such file" in capsys.readouterr().err
    assert not (tmp_path / "report.html").exists()


def test_a_full_disk_leaves_the_readme_and_the_old_report(tmp_path, quick_rows, small_files, capsys):
    (tmp_path / ROWS).write_text("".join(json.dumps(row) + "\n" for row in quick_rows))
    readme, page = tmp_path / "README.md", tmp_path / "report.html"
    readme.write_text("<!-- results:x -->\n<!-- /results -->\n")
    page.write_text("old")
    with small_files(3000):
        assert command.bench(["report", str(tmp_path), "--readme", str(readme)]) == 2
    assert f"{page}: File too large" in capsys.readouterr().err  # as a full disk is told: file and reason
    assert page.read_text() == "old" and readme.read_text().startswith("<!-- results:x -->")


def test_report_writes_the_page_and_renews_the_readme(tmp_path, quick_rows, capsys):
    folder, readme = tmp_path / "quick", tmp_path / "README.md"
    with open_for_append(folder / ROWS) as rows:
        for row in quick_rows:
            rows.append(row)
    readme.write_text("<!-- results:quick -->\n<!-- /results -->\n")
    assert command.main(["report", str(folder), "--readme", str(readme)]) == 0
    assert "| PPO |" in readme.read_text()
    out = capsys.readouterr().out
    assert "report.html" in out and "0.98" in out


@pytest.fixture
def some_suite(trial_module, make_suite, monkeypatch):
    """A function that makes "some" a suite of one kind of trial."""
    from benchmarks import suites

    def make(trial):
        suite = make_suite(trial)
        monkeypatch.setattr(suites, "get", lambda name: suite)

    return make


def test_a_run_with_a_failure_ends_with_status_1(some_suite, tmp_path, capsys):
    some_suite("raises")
    status = command.bench(["run", "some", "--out", str(tmp_path), "--jobs", "1"])
    out = capsys.readouterr().out
    assert status == 1
    assert "seed one does not work" in out and "failed: 1" in out


def test_what_is_left_out_is_told_once(some_suite, tmp_path, capsys):
    some_suite("quick")
    run = ["run", "some", "--out", str(tmp_path), "--jobs", "1"]
    assert command.bench([*run, "--seeds", "1"]) == 0
    with (tmp_path / ROWS).open("a") as rows:
        rows.write('{"schema": 99, "key": "later"}\n{"key": "torn')
    capsys.readouterr()
    assert command.bench([*run, "--seeds", "2"]) == 0
    out, err = capsys.readouterr()
    first, second = err.splitlines()
    assert first.startswith("text-envs: note: ") and "it is kept in rows.torn" in first
    assert second.startswith("text-envs: note: ") and "rows of another version are left out (schema 99;" in second
    assert "1 trials to run (1 have their row already)" in out
    assert (tmp_path / "rows.torn").read_text() == '{"key": "torn\n'


def test_a_full_disk_ends_the_run_and_the_same_command_goes_on(some_suite, small_files, tmp_path, capsys):
    some_suite("quick")
    run = ["run", "some", "--out", str(tmp_path), "--jobs", "1"]
    assert command.bench([*run, "--seeds", "1"]) == 0
    before = (tmp_path / ROWS).read_bytes()
    with small_files(len(before) + 100):
        assert command.bench([*run, "--seeds", "3"]) == 2
    assert "make room and give the same command again" in capsys.readouterr().err
    assert (tmp_path / ROWS).read_bytes() == before
    assert command.bench([*run, "--seeds", "3"]) == 0
    rows = [json.loads(line) for line in (tmp_path / ROWS).read_text().splitlines()]
    assert [row["value"] for row in rows] == [0, 10, 20]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((None, None, None), "4 at a time, threads of each: 1"),
        ((None, 2, None), "2 at a time, threads of each: 2"),
        ((None, None, 4), "1 at a time, threads of each: 4"),
        ((None, 8, None), "8 at a time, threads of each: 1"),
        (("local", None, 2), "Ray at local, 2 at a time, threads of each: 2"),
        (("auto", 3, None), "Ray at auto, 3 at a time, threads of each: 1"),
    ],
)
def test_the_cores_are_shared_out(words, said):
    assert command._pool(*words, timeout=None, cores=4).describe() == said
