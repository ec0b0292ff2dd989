import pickle

import pytest

from text_envs.rewards import VaderSentiment


def test_sentiment_judges_the_completion_alone():
    reward = VaderSentiment()
    texts = ["I hate this", "a table", "I love this", ""]
    bad, none, good, empty = reward(["wonderful"] * 4, texts)
    assert -1 <= bad < none == empty == 0 < good <= 1
    assert pickle.loads(pickle.dumps(reward))([""] * 4, texts) == [bad, none, good, empty]
    assert len(pickle.dumps(reward)) < 200


def test_a_missing_package_names_the_extra(without):
    without("vaderSentiment")
    with pytest.raises(ImportError, match=r"pip install 'text-envs\[rewards\]'"):
        VaderSentiment()
