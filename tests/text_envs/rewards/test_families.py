import builtins
import pickle

import pytest

from text_envs.rewards import Keywords, Length, Repetition, VaderSentiment


@pytest.mark.parametrize(
    ("reward", "expected"),
    [
        (Length(), [0, 1, 4, 4]),
        (Keywords(["River", "hill"]), [0, 0.5, 0, 1]),
        (Repetition(1), [0, 0, 0.75, 0.25]),
        (Repetition(2), [0, 0, 2 / 3, 0]),
        (Repetition(9), [0, 0, 0, 0]),
    ],
    ids=["length", "keywords", "unigrams", "bigrams", "long"],
)
def test_lexical(reward, expected):
    assert reward([""] * 4, ["", "river", "no no no no", "hill, (RIVER), by hill,"]) == pytest.approx(expected)


def test_empty_settings_are_refused():
    with pytest.raises(ValueError, match="at least one word"):
        Keywords([])
    with pytest.raises(ValueError, match="n=0"):
        Repetition(0)


def test_sentiment_judges_the_completion_alone():
    reward = VaderSentiment()
    texts = ["I hate this", "a table", "I love this"]
    bad, none, good = reward(["wonderful"] * 3, texts)
    assert -1 <= bad < none == 0 < good <= 1
    assert pickle.loads(pickle.dumps(reward))([""] * 3, texts) == [bad, none, good]
    assert len(pickle.dumps(reward)) < 200


def test_a_missing_package_names_the_extra(monkeypatch):
    found = builtins.__import__

    def without_vader(name, *arguments, **keywords):
        if name.startswith("vaderSentiment"):
            raise ModuleNotFoundError(f"No module named {name!r}")
        return found(name, *arguments, **keywords)

    monkeypatch.setattr(builtins, "__import__", without_vader)
    with pytest.raises(ImportError, match=r"pip install 'text-envs\[rewards\]'"):
        VaderSentiment()
