"""Suite `granularity`: the same tasks said token by token, and as whole utterances chosen among all there are."""

from __future__ import annotations

import string
from collections.abc import Mapping
from itertools import product
from typing import Any

from .suites import Experiment, Suite, experiment

TOKENS = 40_000  # said in training, at either level
_TRIAL = "benchmarks.suite_granularity:train_evaluate_and_count"


def granularity() -> Suite:
    """Return the tasks at both levels.

    Utterances have a fixed length and few enough forms that all of them are candidates: both levels can say the
    same, are rewarded alike, when an utterance closes, and are trained on equally many tokens.
    """
    return Suite(
        name="granularity",
        description="Short tasks token by token and by whole utterances, our PPO and DQN, equal tokens (an hour).",
        experiments=(
            *_rows("Bandit", {"vocab_size": 8}, _spelled(8, 1)),
            *_rows("Copy", {"vocab_size": 2, "length": 4}, _spelled(2, 4)),
            *_rows("Password", {"vocab_size": 2, "length": 4}, _spelled(2, 4)),
            *_rows("Mastermind", {"pegs": 2, "colours": 3, "turns": 4}, _spelled(3, 2)),
        ),
        seeds=2,
        sections="benchmarks.report.granularity:sections",
    )


def _spelled(symbols: int, length: int) -> list[str]:
    """Return all texts of some length over the first letters."""
    return ["".join(letters) for letters in product(string.ascii_lowercase[:symbols], repeat=length)]


def _rows(task: str, keywords: Mapping[str, Any], utterances: list[str]) -> list[Experiment]:
    def row(agent: str, level: str, steps: int, **fields: Any) -> Experiment:
        return experiment(
            agent, task, f"text_envs/{task}-v0", steps, name=f"{agent}, {level}", trial=_TRIAL, **fields
        )

    candidates = {**keywords, "level": "candidate", "propose": utterances, "k": len(utterances)}
    choosers: dict[str, dict[str, str]] = {
        "random": {},
        "PPO": {"factory": "benchmarks.baselines:candidate_ppo"},
        "DQN": {"factory": "benchmarks.baselines:candidate_dqn"},
    }
    return [
        *(row(agent, "tokens", TOKENS, env_kwargs=keywords) for agent in ("random", "PPO", "DQN")),
        *(
            row(agent, "utterances", TOKENS // len(utterances[0]), env_kwargs=candidates, **how)
            for agent, how in choosers.items()
        ),
    ]


def train_evaluate_and_count(experiment: Experiment, seed: int, report: Any) -> dict[str, Any]:
    """Return the measured fields of a row, and `tokens`: how many were said in training."""
    from .trial import train_and_evaluate

    fields = train_and_evaluate(experiment, seed, report)
    return {**fields, "tokens": fields["steps"] * tokens_a_step(experiment)}


def tokens_a_step(experiment: Experiment) -> int:
    """Return how many tokens a step says: 1, or those of a candidate, which are equally long in this suite."""
    propose = experiment.env_kwargs.get("propose")
    return 1 if propose is None else len(propose[0])
