import json

import gymnasium as gym
import numpy as np
import pytest

from text_envs.embedded import ARTICLES
from text_envs.tasks.summarize import RougeL, Summarize, TooLong
from text_envs.tasks.text import best_of


def test_rouge_l_by_hand():
    rouge = RougeL()
    references = ["the cat sat on the mat"] * 5
    said = ["the cat sat on the mat", "The cat, on a mat.", "", "mat the on", "dog"]
    values = [1.0, 2 * 4 / (6 + 5), 0.0, 2 * 2 / (6 + 3), 0.0]
    assert rouge(references, said, reference=references) == pytest.approx(values)
    assert rouge(["", ""], ["", "a"], reference=["", ""]) == [0.0, 0.0]


def test_rouge_l_is_that_of_rouge_score():
    scorer = pytest.importorskip("rouge_score.rouge_scorer").RougeScorer(["rougeL"])
    rng = np.random.default_rng(0)
    words = "the old bridge will close until spring after rain".split()
    for _ in range(200):
        reference, said = (" ".join(rng.choice(words, rng.integers(1, 15))) for _ in range(2))
        ours = RougeL("r")([""], [said], r=[reference])[0]
        assert ours == pytest.approx(scorer.score(reference, said)["rougeL"].fmeasure)


def test_words_beyond_the_limit_cost():
    assert TooLong(3)([""] * 3, ["a b c", "a b c d", ""]) == [0.0, 0.25, 0.0]
    with pytest.raises(ValueError, match="max_words is at least 1, got 0"):
        Summarize(max_words=0)


def test_the_reference_earns_1_and_can_be_said():
    env = gym.make_vec("text_envs/Summarize-v0", num_envs=200, level="utterance")
    known = dict(ARTICLES)
    assert best_of(env, 1, lambda contexts, n, generators: [[known[text]] for text in contexts]) == 1.0
    lead = best_of(env, 1, lambda contexts, n, generators: [[" ".join(text.split()[:12])] for text in contexts])
    assert best_of(env, 1) < 0 < lead < 1


def test_summaries_of_the_users(tmp_path):
    path = tmp_path / "news.jsonl"
    path.write_text(json.dumps({"article": "a b c", "short": "x y", "n": 3}), encoding="utf-8")
    task = Summarize(prompts=path, column="article", reference="short")
    assert task.codec.unknown("a b c x y") == [] and task.prompts.columns["short"] == ("x y",)
    env = gym.make("text_envs/Summarize-v0", level="utterance", prompts=path, column="article", reference="short")
    env.reset(seed=1)
    assert env.step("x y")[1] == 1.0


def test_a_missing_reference_is_named():
    with pytest.raises(ValueError, match="no column 'reference' .* only their texts; pass reference= or a reward="):
        Summarize(prompts=["some text"])
    task = Summarize(prompts=["some text"], reward="text_envs.rewards:Length")
    assert task.prompts.texts == ("some text",)
