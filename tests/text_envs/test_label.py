import json
from time import sleep

import pytest

from text_envs.__main__ import main
from text_envs.label import told_while
from text_envs.rewards.chat import Usage

pytest.importorskip("openai")


def longer(asked):
    a, b = len(asked.text("completion A")), len(asked.text("completion B"))
    return asked.verdict("A" if a > b else "B" if b > a else "TIE")


def lines(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_pairs_become_comparisons(serve, tmp_path, capsys):
    pairs = lines(
        *(tmp_path / "pairs.jsonl", {"prompt": "p", "a": "long", "b": "x", "id": 3}),
        *({"prompt": "q", "a": "\u2028", "b": "long"}, {"prompt": "r", "a": "x", "b": "y"}),
    )
    (tmp_path / "rubric.txt").write_text("It is long.")
    out, server = tmp_path / "new" / "comparisons.jsonl", serve(longer)
    command = ["judge", pairs, "--model", "m", "--base-url", server.url, "--out", str(out)]
    assert main([*command, "--rubric", str(tmp_path / "rubric.txt")]) == 0
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").split("\n")[:-1]]
    first = {"prompt": "p", "chosen": "long", "rejected": "x"}
    assert rows == [first, {"prompt": "q", "chosen": "long", "rejected": "\u2028"}]
    told = capsys.readouterr().out
    assert "2 of 3 pairs" in told and "1 ties" in told and "disagree on 0%" in told and "6 requests" in told
    assert "It is long." in str(server.bodies[0])
    assert main([*command, "--ties", "--overwrite"]) == 0
    last = json.loads(out.read_text(encoding="utf-8").rstrip("\n").rpartition("\n")[2])
    assert last == {"prompt": "r", "chosen": "x", "rejected": "y", "tie": True}


def test_a_judge_compares_the_pairs_that_people_compare(serve, tmp_path, capsys):
    texts = {"completion_a": "", "completion_b": "long 😀"}, {"completion_a": "\u0301", "completion_b": "א"}
    pairs = lines(tmp_path / "pairs.jsonl", *({"prompt": "p", **both, "policy_b": "ppo"} for both in texts))
    out, people = str(tmp_path / "judged.jsonl"), str(tmp_path / "people.db")
    assert main(["judge", pairs, "--model", "m", "--base-url", serve(longer).url, "--out", out, "--ties"]) == 0
    assert main(["feedback", "init", people]) == 0
    assert main(["feedback", "import", people, pairs]) == 0
    capsys.readouterr()
    assert main(["feedback", "import", people, out, "--annotator", "judge m"]) == 0
    assert "0 pairs, 2 comparisons" in capsys.readouterr().out, "the same pairs"
    assert main(["feedback", "export", people, str(tmp_path / "again.jsonl"), "--ties"]) == 0
    judged, again = ([json.loads(line) for line in open(path)] for path in (out, tmp_path / "again.jsonl"))
    assert [row["chosen"] for row in again] == ["long 😀", "\u0301"] and again[1]["tie"]
    assert judged[0] == {"prompt": "p", "chosen": "long 😀", "rejected": "", "chosen_policy": "ppo"}


@pytest.mark.parametrize("terminal", [True, False])
def test_a_terminal_is_told_how_far_it_is(terminal, capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: terminal)
    usage = Usage(requests=9, faults=2, unreadable=1, cached=4)
    with told_while(usage, 20, seconds=0.01):
        sleep(0.1)
    told = capsys.readouterr().err
    assert ("10 of 20 questions asked, 3 asked again" in told) if terminal else not told


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "holds no pairs"),
        ('{"prompt": "p", "a": "x"}\n', "pairs.jsonl:1 holds no texts prompt, a and b"),
        ('{"prompt": "p", "a": "x", "b": 3}\n', "pairs.jsonl:1 holds no texts prompt, a and b"),
        ("prompt\n", "pairs.jsonl:1: not JSON"),
    ],
)
def test_other_files_are_told_and_nothing_is_written(tmp_path, capsys, monkeypatch, content, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pairs.jsonl").write_text(content)
    assert main(["judge", "pairs.jsonl", "--model", "m", "--base-url", "http://127.0.0.1:1/v1"]) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "judged.jsonl").exists()


def test_a_judge_that_fails_is_told_in_a_line(serve, tmp_path, capsys):
    pairs = lines(tmp_path / "pairs.jsonl", {"prompt": "p", "a": "x", "b": "y"})
    server = serve(lambda asked: (404, {}, b'{"error": "no such model"}'))
    assert main(["judge", pairs, "--model", "m", "--base-url", server.url]) == 2
    error = capsys.readouterr().err
    assert (
        error.startswith("text-envs: error: 'm' was asked")
        and "no such model" in error
        and "Traceback" not in error
    )


def test_a_budget_stops_the_command_and_the_cache_lets_it_go_on(serve, tmp_path, capsys):
    """An answer costs 1,000 prompt and 100 completion tokens: 0.0012 at these prices."""
    pairs = lines(tmp_path / "pairs.jsonl", *({"prompt": "p", "a": "x" * i, "b": ""} for i in range(1, 4)))
    out, server = tmp_path / "out.jsonl", serve(longer)
    command = ["judge", pairs, "--model", "m", "--base-url", server.url, "--out", str(out), "--concurrency", "1"]
    command += ["--cache", str(tmp_path / "cache.sqlite"), "--prices", "1", "2"]
    assert main([*command, "--budget", "0.003"]) == 2
    assert "the budget of 0.003 for 'm' is spent" in capsys.readouterr().err
    assert len(server.bodies) == 3 and not out.exists()
    assert main([*command, "--budget", "1"]) == 0
    told = capsys.readouterr().out
    assert "3 requests, 3 answers from the cache" in told and "0.0036 spent" in told
    assert main([*command, "--budget", "1"]) == 2
    assert f"--out {out} is there already" in capsys.readouterr().err
    assert main([*command, "--budget", "1", "--overwrite"]) == 0
    assert main([*command[:-3], "--budget", "1", "--overwrite"]) == 2
    assert "needs prices" in capsys.readouterr().err
