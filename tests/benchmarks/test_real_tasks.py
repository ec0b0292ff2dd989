"""What the language model of the suite `real` is shown and paid."""

import pytest

from benchmarks import real, real_tasks, suite_real, suites
from benchmarks.suites import Experiment
from text_envs.rewards.base import evaluate


def test_keywords_are_the_three_longest_words_in_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    sentences = (
        "the old SAILOR mends a torn mainsail , slowly .",
        "far too dull to like",
        "words words words wide awake",
    )
    monkeypatch.setattr(real_tasks, "movie_reviews", lambda: (sentences, {}))
    assert real_tasks.review_keywords().texts == ("sailor mainsail slowly", "words wide awake")


def test_paragraphs_of_30_to_45_words_are_their_own_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = tuple(" ".join(["word"] * count) for count in (29, 30, 45, 46))
    monkeypatch.setattr(real_tasks, "presidential_paragraphs", lambda: (texts, {"year": (1, 2, 3, 4)}))
    prompts = real_tasks.short_paragraphs()
    assert prompts.texts == texts[1:3] and prompts.columns == {"reference": texts[1:3]}


def test_a_summary_is_paid_for_closeness_and_not_for_length() -> None:
    text = "Congress should pay for new roads and bridges this year , because the old ones are not safe ."
    said = [
        "Congress should pay for safe roads.",
        "My cat sleeps.",
        "Congress should pay for safe roads. " + "very " * 40,
    ]
    reward = real_tasks.close_and_brief()
    close, far, long = evaluate(reward, [text] * 3, said, {"reference": [text] * 3})[0]
    assert close > 0.5 and close > far + 0.2 and close > long + 0.2


def test_every_task_has_a_row_for_each_agent_and_ppo_says_one_completion_a_rollout() -> None:
    experiments = suites.get("real").experiments
    for task in real_tasks.TASKS:
        agents = [e.agent for e in experiments if e.task == task.name]
        assert {"reference", "best of 4", "PPO"} <= set(agents)
        assert task.env_kwargs["max_new_tokens"] == suite_real.LEARN["n_steps"] and task.steps % (32 * 24) == 0


def test_prompts_may_be_made_by_a_function(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {}
    monkeypatch.setattr(real, "make_env", lambda env_id, num_envs, keywords: given.update(keywords))
    monkeypatch.setattr(real, "load_tokenizer", lambda: None)
    monkeypatch.setattr(real_tasks, "movie_reviews", lambda: (("three longest words",), {}))
    experiment = next(e for e in suites.get("real").experiments if e.task.startswith("Keywords"))
    assert isinstance(experiment, Experiment) and isinstance(experiment.env_kwargs["prompts"], str)
    real._make_env(experiment, 2, "train")
    assert given["prompts"].texts == ("three longest words",) and given["split"] == "train"
