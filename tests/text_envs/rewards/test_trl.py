"""Rewards move between TRL's trainers and ours unchanged."""

import types

import pytest

from text_envs.rewards import Cached, ChrF, Keywords, Length, Regex, VaderSentiment, WeightedSum, conversational
from text_envs.rewards import per_sample as each
from text_envs.rewards.base import evaluate

PROMPTS = ["What is a half?", "What is a third?", "Why?"]
COMPLETIONS = [
    r"<think>1/2</think>It is $\boxed{\frac{1}{2}}$.",
    r"It is $\boxed{\frac{1}{2}}$.",
    "So. So. So. So.",
]
COLUMNS = {
    "solution": [r"\frac{1}{2}", r"\frac{1}{3}", "none"],
    "completion_ids": [[1, 2, 3, 4, 5, 6], [1, 2], [7, 7, 7, 7]],
}


def call(reward, **columns):
    return evaluate(reward, PROMPTS, COMPLETIONS, {**COLUMNS, **columns})[0].tolist()


def test_rewards_of_trl_on_tokens_work_directly():
    rewards = pytest.importorskip("trl.rewards")
    assert call(rewards.get_soft_overlong_punishment(5, 2)) == [-1.0, 0.0, -0.5]
    assert call(rewards.get_repetition_penalty_reward(ngram_size=1)) == [0.0, 0.0, -0.75]


def test_rewards_of_trl_on_messages_work_through_conversational():
    rewards = pytest.importorskip("trl.rewards")
    assert call(conversational(rewards.think_format_reward)) == [1.0, 0.0, 0.0]


def test_rewards_of_trl_that_check_mathematics_work_as_terms():
    rewards = pytest.importorskip("trl.rewards")
    pytest.importorskip("math_verify")
    answer = conversational(rewards.accuracy_reward)
    reward = WeightedSum({
        "answer": (answer, 2.0),
        "short": (conversational(rewards.get_cosine_scaled_reward(max_len=10)), 1.0),
        "format": (conversational(rewards.think_format_reward), 0.5),
    })  # fmt: skip
    values, terms = evaluate(reward, PROMPTS, COMPLETIONS, COLUMNS)
    assert terms["answer"].tolist()[:2] == [1.0, 0.0] and str(terms["answer"][2]) == "nan"  # not applicable
    assert values[0] > 2.5 and values[1] < 0 and values[2] == 0.0


def trainer_calls(reward, dataset_columns):
    """Call a reward as TRL's GRPO trainer does, with all that it adds to the data's columns."""
    logged = []
    return list(
        reward(
            prompts=PROMPTS,
            completions=COMPLETIONS,
            completion_ids=COLUMNS["completion_ids"],
            **dataset_columns,
            trainer_state=types.SimpleNamespace(global_step=3),
            log_extra=lambda column, values: logged.append(column),
            log_metric=lambda name, value: logged.append(name),
            environments=[object()] * 3,
        )
    )


async def later(prompts, completions, **columns):
    return [1.0] * len(completions)


def logs(prompts, completions, log_metric, trainer_state, **columns):
    log_metric("mean", 1.0)
    return [float(trainer_state.global_step)] * len(completions)


@pytest.mark.parametrize(
    ("reward", "expected"),
    [
        (Length(unit="tokens"), [6, 2, 4]),
        (Keywords(["so"]), [0, 0, 1]),
        (Regex(r"<think>.*</think>.*"), [1, 0, 0]),
        (each(lambda prompt, completion: len(prompt)), [15, 16, 4]),
        (Cached(ChrF("solution"), columns=["solution"]), [0.8, 0.8, 0]),
        (VaderSentiment(), [0, 0, 0]),
        (WeightedSum({"logs": (logs, 2.0), "later": (later, 1.0), "length": (Length(), 1.0)}), [10, 10, 11]),
    ],
)
def test_ours_are_called_as_trl_calls_them(reward, expected):
    values = trainer_calls(reward, {"solution": COLUMNS["solution"]})
    assert values == pytest.approx(expected, abs=0.3) and all(type(value) in (float, int) for value in values)


def test_trl_asks_for_no_more_than_is_tested_here():
    """The names that TRL's trainer hands to rewards beside the data's columns, read from its source."""
    import inspect
    import re

    trainer = pytest.importorskip("trl.trainer.grpo_trainer").GRPOTrainer
    source = inspect.getsource(trainer._calculate_rewards)
    added = set(re.findall(r'\breward_kwargs\["(\w+)"\] =', source))
    assert added == {"trainer_state", "log_extra", "log_metric", "environments"}
