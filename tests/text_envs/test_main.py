import io
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import text_envs
from text_envs.__main__ import _keyword, main

ROOT = Path(__file__).parents[2]


def test_list_is_a_table_of_every_id(capsys):
    assert main(["list"]) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split() == ["id", "family", "turns", "actions", "tokens", "optimal", "random"]
    assert [line.split()[0] for line in lines] == text_envs.task_ids()
    copy = next(line for line in lines if "Copy" in line)
    assert copy.split() == ["text_envs/Copy-v0", "diagnostic", "1", "16", "8", "1", "0.0625"]


def test_a_missing_extra_is_a_line_of_the_table(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "vaderSentiment.vaderSentiment", None)
    assert main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + len(text_envs.task_ids())
    assert "pip install 'text-envs[rewards]'" in next(line for line in lines if "Sentiment" in line)


def test_info_says_all_there_is_to_know(capsys):
    assert main(["info", "text_envs/Reverse-v0", "-s", "length=3", "-s", "vocab_size=5"]) == 0
    out = capsys.readouterr().out
    for part in (
        "Repeat a random string backwards.",
        "`Box(0, 5, (6,), int64)`",
        "Optimal return 1, uniformly random 0.2",
        "| `vocab_size` | `16` | V, number of symbols",  # said in the docstring of the parent class
        "arXiv:1506.02516",
        "Example (best play)",
    ):
        assert part in out
    told = [line.split() for line in out.splitlines() if line.startswith(("shown", "said", "earned"))]
    (_, shown), (_, said), (_, earned) = told
    assert said == shown[::-1] and earned == "1"


def test_the_page_of_all_environments_is_current(tmp_path):
    assert main(["page", str(tmp_path / "new" / "page.md")]) == 0
    made = (tmp_path / "new" / "page.md").read_text(encoding="utf-8")
    assert made == (ROOT / "docs" / "environments.md").read_text(encoding="utf-8"), (
        "run: text-envs page docs/environments.md"
    )
    assert all(f"\n## {id}\n" in made for id in text_envs.task_ids())


def test_a_person_plays(capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("a" * 70_000 + "\nabca\n\n"))
    assert main(["play", "text_envs/Copy-v0", "--seed", "3", "--episodes", "2", "--set", "length=4"]) == 0
    out = capsys.readouterr().out
    assert "has 70000 characters, more than the 65536" in out
    assert "episode 1 earned" in out and "episode 2 earned 0.000" in out
    assert "mean return" in out and "(optimal 1, random 0.0625, normalised" in out
    assert "\x1b" not in out  # colours are for terminals


def test_a_terminal_gets_colours(capsys, monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr("sys.stdin", io.StringIO("aaaa\n"))
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    assert main(["play", "text_envs/Copy-v0", "--episodes", "1", "-s", "length=4", "-s", "vocab_size=2"]) == 0
    assert "\x1b[1mepisode 1" in capsys.readouterr().out


def test_the_end_of_input_ends_the_game(capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("good\n"))
    assert main(["play", "text_envs/Sentiment-v0", "-s", "max_new_tokens=1"]) == 0
    assert "reward 0.440, completion 'good'" in capsys.readouterr().out


def test_a_game_without_standard_input_ends_at_once(capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", None)
    assert main(["play", "text_envs/Copy-v0"]) == 0
    assert "episode 1" not in capsys.readouterr().out


def no_reward(prompts, completions, **columns):
    raise OSError("the judge is gone")


def failing_reward():
    return no_reward


def test_a_reward_that_fails_is_told_and_ends_the_game(capsys, monkeypatch):
    module = ModuleType("failing_rewards")
    module.failing_reward = failing_reward
    monkeypatch.setitem(sys.modules, "failing_rewards", module)
    monkeypatch.setattr("sys.stdin", io.StringIO("good\n"))
    keywords = ["max_new_tokens=1", "reward=failing_rewards:failing_reward"]
    assert main(["play", "text_envs/Sentiment-v0", "-s", *keywords]) == 2
    assert "the judge is gone" in capsys.readouterr().err


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
        (["no/Such-v0"], "`text-envs list` shows those there are"),
        (["copy"], "did you mean text_envs/Copy-v0?"),
        (["CartPole-v1"], "CartPole"),
        (["text_envs/Copy-v0", "-s", "lenght=3"], "Copy has no keyword 'lenght'"),
        (["text_envs/Copy-v0", "-s", "length"], "'length' is not of the form KEY=VALUE"),
        (["text_envs/Copy-v0", "-s", "length=many"], "length is an integer, got 'many'"),
    ],
)
def test_mistakes_are_told_without_a_traceback(capsys, arguments, message):
    assert main(["play", *arguments]) == 2
    err = capsys.readouterr().err
    assert err.startswith("text-envs: error: ") and message in err and "Traceback" not in err


@pytest.mark.parametrize("command", ["info", "play"])
@pytest.mark.parametrize(
    ("keyword", "reason"),
    [
        ("level=token", "level='token' says nothing here: an environment is shown and played by whole utterances"),
        ("max_episode_steps=1", "max_episode_steps=1 says nothing here: a time limit stands around an environment"),
        ("id=text_envs/Sort-v0", "id='text_envs/Sort-v0' says nothing here: the id is given once"),
        ("task=text_envs.tasks.sort:Sort", "task='text_envs.tasks.sort:Sort' says nothing here: the id names it"),
    ],
)
def test_keywords_that_would_be_lost_are_refused_by_name(capsys, command, keyword, reason):
    assert main([command, "text_envs/Copy-v0", "--set", keyword]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"text-envs: error: {reason}") and err.endswith("; leave it out\n")


def test_environments_of_others_are_named_as_such(capsys):
    assert main(["info", "CartPole-v1"]) == 2
    assert "CartPole-v1 is no environment of text_envs; ours: text_envs/Bandit-v0" in capsys.readouterr().err
    assert main(["info", "text_envs/Wordle-v0", "--set", "words=no.txt", "length=4"]) == 2
    assert capsys.readouterr().err == (
        "text-envs: error: words='no.txt' is no file; pass a text file with a word a line, or the words "
        "themselves\n"
    )
