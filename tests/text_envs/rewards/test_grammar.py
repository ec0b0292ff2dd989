import pickle

import pytest

from text_envs.rewards import GrammarErrors

pytest.importorskip("harper")
TEXTS = ["", "This is an test.", "This is a test.", "this is an test of of it."]


@pytest.fixture(scope="module")
def reward():
    return GrammarErrors()


def test_findings_per_word(reward):
    assert reward(["I has"] * 4, TEXTS) == [0.0, 1 / 4, 0.0, 3 / 7]


def test_it_pickles_without_the_checker(reward):
    copy = pickle.dumps(reward)
    assert len(copy) < 300 and pickle.loads(copy)([""] * 4, TEXTS) == [0.0, 1 / 4, 0.0, 3 / 7]


def test_a_completion_is_read_after_its_prompt():
    reward = GrammarErrors(with_prompt=True, separator=" ")
    values = reward(["I seen an dog near the", "This is a", "This is an"], ["the house.", "test.", "test."])
    assert values == [1 / 2, 0.0, 0.0]  # what is found across the seam counts, what is found before it does not


def test_rules_may_be_ignored():
    assert GrammarErrors(ignore=["SentenceCapitalization"])([""], TEXTS[3:]) == [2 / 7]


def test_wrong_settings_are_refused(without):
    with pytest.raises(ValueError, match="Harper has no rule 'SpelCheck'; .*such as SpellCheck"):
        GrammarErrors(ignore=["SpelCheck"])
    with pytest.raises(ValueError, match="dialect is one of .*'british'.*got 'latin'"):
        GrammarErrors(dialect="latin")
    without("harper")
    with pytest.raises(ImportError, match=r"harper-py: pip install 'text-envs\[rewards\]'"):
        GrammarErrors()
