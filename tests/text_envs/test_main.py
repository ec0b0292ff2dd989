import io
import subprocess
import sys
from pathlib import Path

import pytest

import text_envs
from text_envs.__main__ import _keyword, main

ROOT = Path(__file__).parents[2]


def test_list_names_every_id_and_what_it_is(capsys):
    assert main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == text_envs.task_ids()
    assert "Repeat a random string." in lines[0]


def test_a_person_plays(capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("too long a text\nabca\n\n"))
    assert main(["play", "text_envs/Copy-v0", "--seed", "3", "--episodes", "2", "--set", "length=4"]) == 0
    out = capsys.readouterr().out
    assert "has 15 characters, more than the 4" in out
    assert "episode 1 earned" in out and "episode 2 earned 0.000" in out


def test_the_end_of_input_ends_the_game(capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("good\n"))
    assert main(["play", "text_envs/Sentiment-v0", "-s", "max_new_tokens=1"]) == 0
    assert "reward 0.440, completion 'good'" in capsys.readouterr().out


def test_a_reader_may_leave_before_the_end():
    command = f"set -o pipefail; {sys.executable} -m text_envs list | true"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.stderr == "" and done.returncode in (0, 1)  # 0: all was written before the reader left


@pytest.mark.parametrize("value", ["true", "True", "FALSE", "false"])
def test_truth_is_read_in_any_case(value):
    assert _keyword(f"dense={value}") == ("dense", value.lower() == "true")
    assert _keyword(f"reward=un{value}") == ("reward", f"un{value}")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no/Such-v0"], "no"),
        (["text_envs/Copy-v0", "-s", "lenght=3"], "Copy has no keyword 'lenght'"),
        (["text_envs/Copy-v0", "-s", "length"], "'length' is not of the form KEY=VALUE"),
        (["text_envs/Copy-v0", "-s", "length=many"], "length is an integer, got 'many'"),
    ],
)
def test_mistakes_are_told_without_a_traceback(capsys, arguments, message):
    assert main(["play", *arguments]) == 2
    err = capsys.readouterr().err
    assert err.startswith("text_envs: ") and message in err and "Traceback" not in err
