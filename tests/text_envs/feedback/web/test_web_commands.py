"""Accounts from a terminal: passwords are typed or piped, never given as an argument."""

import getpass
import io
import sys

import pytest

from text_envs.__main__ import main
from text_envs.feedback.accounts import ADMIN, ANNOTATOR


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def account(database, monkeypatch):
    """Run `feedback account`, with something piped in."""

    def account(command, *arguments, piped="", stdin=io.StringIO):
        monkeypatch.setattr(sys, "stdin", stdin(piped))
        return main(["feedback", "account", command, str(database.path), *arguments])

    return account


def test_accounts_are_made_listed_and_taken_away(account, accounts, capsys):
    assert account("add", "ann", piped="correct horse\nmore\n") == 0
    assert account("add", "chief", "--admin", piped="correct horse") == 0
    assert [(one.name, one.role) for one in accounts.all()] == [("ann", ANNOTATOR), ("chief", ADMIN)]
    assert accounts.verify("ann", "correct horse") is not None
    assert account("password", "ann", piped="battery staple\r\n") == 0
    assert accounts.verify("ann", "correct horse") is None
    assert accounts.verify("ann", "battery staple") is not None
    capsys.readouterr()
    assert account("list") == 0
    told = capsys.readouterr().out
    assert "ann" in told and "admin" in told and "p-" in told and "argon2" not in told
    assert account("remove", "ann") == 0
    assert [one.name for one in accounts.all()] == ["chief"]


@pytest.mark.parametrize(
    ("command", "name", "piped", "told"),
    [
        ("add", "ann", "correct horse", "'ann' has an account"),
        ("add", " ann ", "correct horse", "'ann' has an account"),
        ("add", "bob", "short", "10 to 1,000 characters, this one 5"),
        ("add", "bob", "", "this one 0"),
        ("add", "bob", "x" * 1_001, "this one 1,001"),
        ("add", "", "correct horse", "visible characters"),
        ("add", "two\nlines", "correct horse", "visible characters"),
        ("add", "right\u202eleft", "correct horse", "visible characters"),
        ("password", "bob", "correct horse", "nobody called 'bob' has an account"),
        ("remove", "bob", "", "those who have: ['ann']"),
    ],
)
def test_what_cannot_be_done_is_told_and_changes_nothing(account, accounts, capsys, command, name, piped, told):
    accounts.add("ann", "correct horse")
    before = accounts.all()
    assert account(command, name, piped=piped) == 2
    assert told in capsys.readouterr().err
    assert accounts.all() == before and accounts.verify("ann", "correct horse") is not None


def test_at_a_terminal_it_is_typed_twice(account, accounts, monkeypatch, capsys):
    typed = iter(["correct horse", "correct hose", "correct horse", "correct horse"])
    monkeypatch.setattr(getpass, "getpass", lambda prompt: next(typed))
    assert account("add", "ann", stdin=Terminal) == 2 and "two different passwords" in capsys.readouterr().err
    assert account("add", "ann", stdin=Terminal) == 0 and len(accounts.all()) == 1


def test_a_password_is_no_argument(account, capsys):
    with pytest.raises(SystemExit):
        account("add", "ann", "correct horse")
    with pytest.raises(SystemExit):
        account("add", "ann", "--password", "correct horse")


def test_one_password_however_it_was_typed(accounts):
    accounts.add("ann", "pässword 10")
    assert accounts.verify("ann", "pa\u0308ssword 10") is not None


def test_a_name_is_one_however_it_was_typed(accounts):
    accounts.add("pär", "correct horse")
    assert accounts.verify("pa\u0308r ", "correct horse") is not None
