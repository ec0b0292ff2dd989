"""The loop at a tiny size, the real case on a few sentences, and what the report says of both."""

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode
from transformers import BertConfig, BertModel

import text_envs
from agents.reward_model import RewardModel, train_reward_model
from benchmarks import feedback, feedback_loop, feedback_movies, suites
from benchmarks.report.feedback import sections
from benchmarks.suites import Experiment
from text_envs import TokenVectorEnv
from text_envs.rewards import Classifier, WeightedSum
from text_envs.tasks.copy import Copy
from text_envs.tasks.ngram import NGram
from text_envs.tasks.sort import Sort

LOOP: dict[str, Any] = {
    "task": feedback.TASK,
    "env_id": "text_envs/Copy-v0",
    "factory": "benchmarks.feedback_loop:trial",
    "env_kwargs": {"vocab_size": 2, "length": 5},
    "steps": 4096,
}


def length(prompts: list[str], completions: list[str], **columns: Any) -> list[float]:
    return [float(completion.count("a")) for completion in completions]


@pytest.mark.parametrize("kind", [Copy, Sort])
def test_a_judged_task_pays_the_reward_and_tells_the_gold(kind: Any) -> None:
    gold = kind(vocab_size=3, length=4)
    env = TokenVectorEnv(feedback_loop.Judged(gold, length), 50, autoreset_mode=AutoresetMode.SAME_STEP)
    plain = TokenVectorEnv(gold, 50, autoreset_mode=AutoresetMode.SAME_STEP)
    rng = np.random.default_rng(0)
    assert (env.reset(seed=1)[0] == plain.reset(seed=1)[0]).all()
    for _ in range(4):
        actions = rng.integers(3, size=50)
        _, paid, _, _, infos = env.step(actions)
        _, worth, _, _, others = plain.step(actions)
    context = np.stack(others["final_obs"])
    said = context[:, 4:]
    assert paid.tolist() == (said == 0).sum(axis=1).tolist()
    assert infos["final_info"]["gold"].tolist() == worth.tolist()


def test_the_gold_reward_is_the_tasks_own() -> None:
    task = feedback_loop.Judged(NGram(vocab_size=3), feedback_loop.gold)
    env = TokenVectorEnv(task, 20, autoreset_mode=AutoresetMode.SAME_STEP)
    plain = TokenVectorEnv(task.task, 20, autoreset_mode=AutoresetMode.SAME_STEP)
    for made in (env, plain):
        made.reset(seed=1)
    for action in range(8):
        paid, worth = (made.step(np.full(20, action % 3))[1] for made in (env, plain))
    assert paid.tolist() == worth.tolist() and len(set(paid)) > 1


def test_a_standardized_reward_has_mean_0_and_deviation_1() -> None:
    prompts, completions = [""] * 4, ["a", "aa", "b", "aaaa"]
    reward = feedback_loop.Standardized(length, prompts, completions)
    found = np.array(reward(prompts, completions))
    assert found.mean() == pytest.approx(0) and found.std() == pytest.approx(1)
    assert np.argsort(found).tolist() == [2, 0, 1, 3]


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The loop's module with little to do."""
    small = {"SCORES": (0.0, 0.1, 0.2, 0.4), "TEST": 8, "PROMPTS": 400, "POINTS": 2, "EPISODES": 64}
    for name, value in small.items():
        monkeypatch.setattr(feedback_loop, name, value)
    monkeypatch.setitem(feedback_loop.FIT, "epochs", 1)
    feedback_loop.source.cache_clear()
    yield
    feedback_loop.source.cache_clear()


def test_comparisons_are_of_different_checkpoints_and_as_noisy_as_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feedback_loop, "TEST", 2000)
    rng = np.random.default_rng(0)
    prompts = ["".join(rng.choice(["a", "b"], 16)) for _ in range(10_000)]
    wrong = [prompt.translate({97: "b", 98: "a"}) for prompt in prompts]
    texts = [wrong, [p[:8] + w[8:] for p, w in zip(prompts, wrong, strict=True)], prompts]
    gold = np.repeat([[0.0], [0.5], [1.0]], 10_000, axis=1)
    found = feedback_loop.Source(Copy(vocab_size=2, length=16), None, prompts, texts, gold)  # type: ignore[arg-type]
    made = feedback_loop.compare(found, 3000, 0.2, 0)
    assert [len(made.test), len(made.aside), len(made.train)] == [2000, 300, 2700]
    test, aside, train = ({c["prompt"] for c in side} for side in (made.test, made.aside, made.train))
    assert not test & aside and not (test | aside) & train
    chosen, rejected = (
        np.array([sum(map(str.__eq__, c["prompt"], c[side])) / 16 for c in made.test])
        for side in ("chosen", "rejected")
    )
    assert (chosen != rejected).all()
    assert (chosen < rejected).mean() == pytest.approx(0.2, abs=0.04) and made.best == pytest.approx(0.8, abs=0.01)
    assert feedback_loop.compare(found, 500, 0.2, 0).test == made.test
    with pytest.raises(ValueError, match=r"are too few for \(2000, 900, 8100\) comparisons"):
        feedback_loop.compare(found, 9000, 0.2, 0)


@pytest.mark.slow
@pytest.mark.usefixtures("tiny")
def test_the_loop_end_to_end(look_of: Callable) -> None:
    rows = []
    for name, options in (
        (feedback.GOLD, {}),
        ("60 at 10%", {"comparisons": 60, "noise": 0.1}),
        ("ensemble", {"comparisons": 60, "noise": 0.1, "members": 2}),
    ):
        experiment = Experiment(agent=name, agent_kwargs={**options, "kl_coef": 0.1}, **LOOP)
        told: list[float] = []
        fields = feedback_loop.trial(experiment, 0, told.append)
        assert told == sorted(told) and told[-1] == 1
        assert [len(fields["points"]), fields["points"][0]["steps"]] == [3, 0]
        assert fields["points"][0]["kl"] == pytest.approx(0, abs=1e-6) and fields["points"][-1]["kl"] > 0.001
        assert abs(fields["points"][0]["gold_standard"]) < 0.5 and abs(fields["points"][0]["proxy"]) < 0.5
        rows.append({**fields, "experiment": experiment.configuration(), "seed": 0})
    again = feedback_loop.trial(experiment, 0, lambda done: None)
    assert again["points"] == rows[-1]["points"] and again["reward_model"] == rows[-1]["reward_model"]
    (section,) = sections(rows, look_of(rows))
    assert [row[0].text for row in section.tables[0].rows] == [feedback.GOLD, "60 at 10%", "ensemble"]
    assert section.tables[0].rows[0][5].text == "1.00"
    assert {figure.name for figure in section.figures} >= {"feedback-amount", "feedback-calibration"}


def test_accuracies_and_intervals_are_what_loops_say() -> None:
    rng = np.random.default_rng(0)
    ratings = rng.normal(size=60)
    good, poor = ratings + rng.normal(size=60), np.round(rng.normal(size=60))
    found = feedback_movies.held_against(ratings, {"proxy": good, "vader": poor}, 0.5, rng)
    pairs, hits = 0, {"proxy": 0.0, "vader": 0.0}
    for i in range(60):
        for j in range(60):
            if ratings[i] - ratings[j] >= 0.5:
                pairs += 1
                for name, values in (("proxy", good), ("vader", poor)):
                    hits[name] += 1.0 if values[i] > values[j] else 0.5 if values[i] == values[j] else 0.0
    assert found["pairs"] == pairs
    for name, hit in hits.items():
        value, low, high = found[name]
        assert value == pytest.approx(hit / pairs) and low < value < high
    assert found["difference"][0] == pytest.approx((hits["proxy"] - hits["vader"]) / pairs)
    assert found["difference"][1] > 0


def test_the_real_case_on_a_few_sentences(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, look_of: Callable
) -> None:
    good, bad = "great good superb fine lovely".split(), "awful bad dire poor dull".split()
    texts = [f"it is {a} {b} {c}" for words in (good, bad) for a in words for b in words for c in words]
    ratings = [2.0 + i / 125 for i in range(125)] + [-2.0 - i / 125 for i in range(125)]
    reviews = text_envs.datasets.Prompts(tuple(texts), {"rating": tuple(ratings)})
    monkeypatch.setattr(feedback_movies, "load_prompts", lambda name: reviews)
    monkeypatch.setattr(feedback_movies, "VALIDATION", 20)
    monkeypatch.setattr(feedback_movies, "minilm", lambda: _encoder(tmp_path, texts))
    rows = []
    options = {"comparisons": 200, "epochs": 4, "learning_rate": 3e-3}
    for name, kwargs in (("VADER", {}), ("reward model", options)):
        experiment = Experiment(
            task=feedback.MOVIES, agent=name, env_id="text_envs/Sentiment-v0", factory="f", agent_kwargs=kwargs
        )
        fields = feedback_movies.trial(experiment, 0, lambda done: None)
        rows.append({**fields, "experiment": experiment.configuration(), "seed": 0})
    vader, learned = (row["movies"] for row in rows)
    assert vader["difference"] == [0, 0, 0] and vader["proxy"] == learned["vader"]
    assert learned["proxy"][0] > 0.9
    (section,) = sections(rows, look_of(rows))
    assert [cell.text for cell in section.tables[0].rows[1]][:1] == ["reward model"]


def _encoder(folder: Path, texts: list[str]) -> Path:
    """Return the folder of a small encoder that was never trained."""
    from agents.export import fast_tokenizer

    words = text_envs.tokenizer.WordTokenizer.from_texts(texts)
    config = BertConfig(
        vocab_size=words.vocab_size,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
    )
    BertModel(config).save_pretrained(folder / "encoder")
    fast_tokenizer(words).save_pretrained(folder / "encoder")
    return folder / "encoder"


def test_a_reward_model_is_a_reward_of_our_environments(tmp_path: Path) -> None:
    letters = text_envs.CharacterTokenizer("ab ", end=True)
    rng = np.random.default_rng(0)
    texts = ["".join(rng.choice(["a", "b"], 4)) for _ in range(200)]
    pairs = [sorted(pair, key=lambda text: text.count("a")) for pair in zip(texts[::2], texts[1::2], strict=True)]
    made = [{"prompt": "ab " * (1 + i % 7), "chosen": b, "rejected": a} for i, (a, b) in enumerate(pairs)]
    train_reward_model(made, tmp_path / "model", tokenizer=letters, device="cpu", progress_bar=False)
    reward = RewardModel(tmp_path / "model", device="cpu")
    keywords = {"prompts": ["ab ab", "b a"], "tokenizer": letters, "max_new_tokens": 4}
    envs = gym.make_vec(
        "text_envs/Sentiment-v0",
        4,
        vectorization_mode="vector_entry_point",
        reward=WeightedSum({"learned": (reward, 2.0)}),
        **keywords,
    )
    envs.reset(seed=0)
    for _ in range(4):
        _, paid, _, _, infos = envs.step(np.array([0, 1, 0, 3]))
    said = infos["final_info"]
    expected = reward(list(said["prompt"][:3]), list(said["completion"][:3]))
    assert paid[:3] == pytest.approx(2 * np.array(expected))
    classifier = Classifier(tmp_path / "model", output="logit", read="both", device="cpu")
    assert classifier(["ab ", "b"], ["abab", "aaa"]) == pytest.approx(
        reward(["ab ", "b"], ["abab", "aaa"]), abs=1e-5
    )
    env = gym.make("text_envs/Sentiment-v0", level="utterance", reward=reward, **keywords)
    assert copy.deepcopy(env.spec) is not None and pickle.loads(pickle.dumps(reward))([""], ["a"]) == reward(
        [""], ["a"]
    )


def test_the_suite_has_what_its_figures_show() -> None:
    suite = suites.get("feedback")
    learned = [e.agent_kwargs for e in suite.experiments if e.agent_kwargs.get("noise") is not None]
    assert {o["comparisons"] for o in learned if o["noise"] == 0.1} >= {300, 1000, 5000}
    assert len({o["noise"] for o in learned if o["comparisons"] == 1000}) == 3
    assert any(o.get("members", 1) > 1 for o in learned)
