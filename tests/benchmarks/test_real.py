"""The real suite on a tiny model: same code, seconds instead of an hour."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

import text_envs
from agents.export import fast_tokenizer
from agents.models import load_model
from benchmarks import real, real_tasks, suite_real
from benchmarks.report.real import _over_seeds, sections
from benchmarks.suites import Experiment
from text_envs.sources import smollm2

WORDS = "the film was a great and lovely joy but a dull bad mess it is this story so very good awful".split()
PROMPTS = [f"{first} film was {last}" for first in ("the", "a", "this") for last in WORDS[3:]]


@pytest.fixture
def experiment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Experiment:
    """An experiment of the suite, on a random model of a few words."""
    torch.manual_seed(0)
    tokenizer = fast_tokenizer(text_envs.WordTokenizer(WORDS))
    config = GPT2Config(vocab_size=len(tokenizer), n_positions=32, n_embd=16, n_layer=1, n_head=2)
    GPT2LMHeadModel(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    monkeypatch.setattr(real, "smollm2_folder", lambda: tmp_path)
    monkeypatch.setattr(real, "load_tokenizer", lambda: AutoTokenizer.from_pretrained(tmp_path))
    monkeypatch.setattr(real, "CHECKPOINT", 64)
    return replace(
        suite_real.real().experiments[0],
        env_kwargs={"prompts": PROMPTS, "prompt_words": 6, "max_new_tokens": 5},
        eval_episodes=512,
        num_envs=8,
    )


def completions(texts: list[str], **fields: Any) -> real.Completions:
    n = len(texts)
    given = {"rewards": np.zeros(n), "log_ratio": np.zeros(n), "lengths": np.full(n, 3), **fields}
    return real.Completions(prompts=["p"] * n, texts=texts, **given)


def test_the_figures_of_some_completions() -> None:
    measured = real.measure(
        completions(["a b a b", "a b", ""], rewards=np.array([1.0, 0.0, 0.5]), log_ratio=np.array([3.0, 0.0, 0.0]))
    )
    assert measured.reward == pytest.approx(0.5) and measured.kl == pytest.approx(1.0)
    assert measured.reward_error == pytest.approx(1.96 * 0.5 / np.sqrt(3))
    assert measured.distinct_2 == pytest.approx(2 / 4)  # ab ba ab, ab
    assert measured.repetition == pytest.approx((0.5 + 0 + 0) / 3)


def test_the_reference_is_at_distance_zero_from_itself(experiment: Experiment) -> None:
    row = real.measure_reference(experiment, 0, lambda done: None)
    assert row["measurement"]["completions"] == 512 and row["measurement"]["kl"] == 0.0
    assert len(row["completions"]) == real.SIDE_BY_SIDE


def test_held_out_prompts_are_not_trained_on(experiment: Experiment) -> None:
    train, test = (set(real._make_env(experiment, 2, split).task.prompts.texts) for split in ("train", "test"))
    assert train and test and not train & test


def test_the_log_ratio_is_the_models(experiment: Experiment) -> None:
    """One padded forward of each whole text by plain transformers, instead of packs."""
    evaluator = real.Evaluator(experiment, 0)
    evaluator.env = real._make_env(experiment, 16, "test")
    torch.manual_seed(1)
    other = GPT2LMHeadModel(evaluator.reference.backbone.config).eval()
    said = evaluator.sample(evaluator.policy(other), 16)
    tokenizer = real.load_tokenizer()
    for prompt, text, ratio, length in zip(said.prompts, said.texts, said.log_ratio, said.lengths, strict=True):
        begin = len(tokenizer.encode(prompt))
        ids = tokenizer.encode(f"{prompt} {text}")
        ids += [tokenizer.eos_token_id] * (begin + length - len(ids))
        inputs = torch.tensor([ids])
        with torch.no_grad():
            logs = [m(inputs).logits.log_softmax(-1) for m in (other, evaluator.reference.backbone.model)]
        differences = (logs[0] - logs[1])[0, begin - 1 : -1]
        expected = differences.gather(1, inputs[0, begin:, None]).sum().item()
        assert ratio == pytest.approx(expected, abs=1e-4)


def test_best_of_is_better_and_ppo_learns(experiment: Experiment, look_of: Callable) -> None:
    silent = lambda done: None  # noqa: E731
    reference = real.measure_reference(experiment, 0, silent)
    best = real.measure_best_of(experiment, 0, silent)
    assert best["measurement"]["reward"] > reference["measurement"]["reward"] + 0.2
    options = {
        **suite_real.LEARN,
        "learning_rate": 1e-2,
        "n_steps": 10,
        "n_epochs": 4,
        "batch_size": 40,
        "kl_coef": 0.01,
    }
    trained = real.train_ppo(replace(experiment, steps=4000, agent_kwargs=options), 0, silent)
    assert trained["measurement"]["reward"] > reference["measurement"]["reward"] + 0.07
    assert trained["measurement"]["kl"] > 0.02
    tokens = [point["tokens"] for point in trained["held_out"]]
    assert len(tokens) == 4 and tokens == sorted(tokens) and tokens[-1] >= 4000
    rows = [
        {"experiment": {"task": experiment.task, "agent": agent}, "seed": 0, **row}
        for agent, row in (("reference", reference), ("best of 4", best), ("PPO", trained))
    ]
    table, curves, side_by_side = sections(rows := json.loads(json.dumps(rows)), look_of(rows))
    assert [row[1].text for row in table.tables[0].rows] == ["reference", "best of 4", "PPO"]
    assert len(curves.figures) == 3 and all("<svg" in figure.svg for figure in curves.figures)
    assert len(side_by_side.tables[0].rows) == real.SIDE_BY_SIDE


def test_seeds_are_averaged_none_is_lost(look_of: Callable) -> None:
    def row(seed: int, reward: float, agent: str = "PPO") -> dict[str, Any]:
        figures = {"reward": reward, "kl": 2.0, "distinct_2": 0.5, "repetition": 0.1, "length": 20.0}
        errors = {"reward_error": 0.3, "kl_error": 0.4}
        point = {"seconds": 10.0 * seed, "tokens": 100, **figures, **errors}
        return {
            "experiment": {"task": real_tasks.TASKS[0].name, "agent": agent},
            "seed": seed,
            "measurement": {**figures, **errors, "completions": 512},
            "held_out": [point],
            "train_seconds": 60.0 + 60 * seed,
            "tokens": 100,
            "completions": [{"prompt": f"prompt {seed}", "completion": "c", "reward": 1.0}],
        }

    rows = [row(0, 1.0), row(1, 2.0)]
    table, curves, _ = sections(rows, look_of(rows))
    (line,) = table.tables[0].rows
    assert [cell.text for cell in line[2:4]] == ["1.500 ± 0.212", "2.00 ± 0.28"]  # 0.3 and 0.4 over the root of 2
    assert line[7].text == "1.5" and line[9].text == "2"
    assert _over_seeds(rows)[0]["seconds"] == 5.0

    rows = [row(1, 1.0), row(0, 1.0, "GRPO"), row(1, 1.0, "GRPO")]
    shown = sections(rows, look_of(rows))[2]
    assert [cell.text for cell in shown.tables[0].rows[0]] == ["prompt 1", "c (+1.00)", "c (+1.00)"]
    assert len(sections(rows[:2], look_of(rows))) == 2  # no seed of both: their prompts differ


@pytest.mark.network
@pytest.mark.slow
def test_the_gguf_file_becomes_a_folder_with_the_same_model(look_of: Callable) -> None:
    folder = real.smollm2_folder()
    direct, converted = load_model(smollm2()), load_model(folder)
    ids = torch.tensor([real.load_tokenizer().encode("The movie was")])
    with torch.no_grad():
        torch.testing.assert_close(direct(ids).logits, converted(ids).logits)
    assert not hasattr(converted.config, "quantization_config")
