import json

import pytest

from benchmarks.__main__ import main as text_envs_command
from text_envs.__main__ import main
from text_envs.feedback.keys import ENVIRONMENT

SECRET = "correct horse battery staple"
pytestmark = pytest.mark.usefixtures("quick_keys")


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(ENVIRONMENT, raising=False)

    def run(*arguments, status=0):
        assert main(["feedback", *arguments]) == status
        told = capsys.readouterr()
        assert "Traceback" not in told.err and SECRET not in told.out + told.err
        return told.out if status == 0 else told.err

    return run


LINES = [
    {"prompt": "Q", "completions": ["1", "2", "3"]},
    {"prompt": "Q", "chosen": "1", "rejected": "2", "annotator": "Ann"},
    {"prompt": "Q", "chosen": "2", "rejected": "1", "annotator": "Bob"},
    {"prompt": "Q", "chosen": "2", "rejected": "3", "annotator": "Bob", "tie": True},
    {"prompt": "Q", "completion": "1", "rating": 4, "annotator": "Ann"},
]


def test_a_database_from_its_making_to_its_export(run, tmp_path, monkeypatch):
    (tmp_path / "in.jsonl").write_text("\n".join(map(json.dumps, LINES)))
    monkeypatch.setenv(ENVIRONMENT, SECRET)
    assert run("init", "people.db") == "made people.db, encrypted\n"
    assert run("import", "people.db", "in.jsonl") == "new: 3 pairs, 3 comparisons, 1 ratings; there already: 0\n"
    status = run("status", "people.db").splitlines()
    assert status[0].startswith("people.db: sound, encrypted; audit: 1 entries, the last sealed ")
    assert status[1:3] == [
        "2 of 3 pairs compared, 3 comparisons, 0 skipped",
        "Krippendorff's alpha: 0.000, over 1 pairs that two or more have compared",
    ]
    assert status[4].split()[1:] == ["Ann", "1", "0", "0", "1", "0.00"]
    assert run("export", "people.db", "out.jsonl") == "wrote 2 comparisons to out.jsonl\n"
    assert json.loads((tmp_path / "out.jsonl").read_text().splitlines()[1])["chosen"] == "2"
    assert run("ratings", "people.db", "r.jsonl") == "wrote 1 ratings to r.jsonl\n"
    assert "their answers are deleted" in run("forget", "people.db", "Ann")
    assert "nobody's now" in run("forget", "people.db", "Bob", "--anonymise")
    assert (
        run("export", "people.db", "out.jsonl", "--ties", "--extra", "when") == "wrote 2 comparisons to out.jsonl\n"
    )
    assert "wrote people.db anew" in run("scrub", "people.db")


def test_mistakes_are_told_in_a_line(run, tmp_path, monkeypatch):
    assert "people.db is not there; make it: text-envs feedback init people.db" in run(
        "status", "people.db", status=2
    )
    assert not (tmp_path / "people.db").exists()
    run("init", "people.db")
    assert "people.db is there already" in run("init", "people.db", status=2)
    assert "no annotator is called 'Zoe'" in run("forget", "people.db", "Zoe", status=2)
    (tmp_path / "key").write_text(SECRET)
    (tmp_path / "key").chmod(0o600)
    assert "is not encrypted, but a key" in run("status", "people.db", "--key-file", "key", status=2)
    monkeypatch.setenv(ENVIRONMENT, "")
    assert f"{ENVIRONMENT}: the key of a database is a text" in run("status", "people.db", status=2)


def test_a_key_file_goes_before_the_environment(run, tmp_path, monkeypatch):
    (tmp_path / "key").write_text(SECRET)
    (tmp_path / "key").chmod(0o600)
    run("init", "people.db", "--key-file", "key")
    monkeypatch.setenv(ENVIRONMENT, "another")
    assert "wrong key" in run("status", "people.db", status=2)
    assert "encrypted" in run("status", "people.db", "--key-file", "key")


def test_text_envs_reaches_it(run, tmp_path):
    assert text_envs_command(["feedback", "init", "people.db"]) == 0
    assert (tmp_path / "people.db").exists()
