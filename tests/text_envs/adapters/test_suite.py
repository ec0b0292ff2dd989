import random

import numpy as np
import pytest

from text_envs.adapters.suite import import_suite, isolated, refuse_unknown


def draws():
    return random.random(), np.random.random()


def test_a_block_draws_from_its_seed_and_leaves_no_trace(capsys):
    random.seed(1)
    np.random.seed(1)
    expected = [draws(), draws()]
    random.seed(1)
    np.random.seed(1)
    found = [draws()]
    with isolated(2**64 - 1):
        inside = draws()
        print("the suites print")
    with pytest.raises(KeyError), isolated(3):
        random.seed(0)
        raise KeyError
    found.append(draws())
    assert found == expected and capsys.readouterr().out == ""
    with isolated(2**64 - 1):
        assert draws() == inside
    with isolated(2**63 - 1):
        assert draws() != inside


def test_a_missing_suite_names_the_extra():
    with pytest.raises(ImportError, match=r"package no-such-suite.*pip install 'text-envs\[suites\]'"):
        import_suite("no_such_suite", "no-such-suite")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("chess", "game='chess' is left out: it needs two players; choose another game"),
        ("2049", "game='2049' is not known; the nearest are 2048"),
        ("???", "game='\\?\\?\\?' is not known; there are 2048, snake"),
    ],
)
def test_an_unknown_name_says_what_there_is(name, message):
    with pytest.raises(ValueError, match=message):
        refuse_unknown("game", name, ["snake", "2048"], {"chess": "it needs two players"})


def test_a_known_name_passes():
    refuse_unknown("game", "snake", ["snake"], {})
