"""Two small suites: `quick`, minutes long, and `sparse`, where only the end of an episode is rewarded."""

from __future__ import annotations

from typing import Any

from .suites import Experiment, Suite, experiment

SOLVED = 0.95  # the training score at which a run of `quick` stops
_BASELINES = ("random", "SB3 PPO, raw ids", "SB3 PPO, one-hot")


def quick() -> Suite:
    """Return stock SB3 and our agents on small tasks; each run stops when its task is solved.

    Scores of agents that solve a task are therefore all near the target: what tells them apart is the steps they
    took. Steps and scores alone decide when a run stops, so that two runs agree bit for bit.
    """
    small = {"vocab_size": 8, "length": 5, "dense": True}
    tasks: list[tuple[str, dict[str, Any], int]] = [
        ("Copy", small, 60_000),
        ("Reverse", small, 60_000),
        ("Password", {"vocab_size": 3, "length": 4}, 25_000),
    ]
    return Suite(
        name="quick",
        description=(
            "Random, stock SB3 PPO and our PPO and DQN on three small diagnostics, minutes on 2 cores; "
            f"a run stops at a training score of {SOLVED}."
        ),
        experiments=tuple(
            experiment(
                agent,
                task,
                f"text_envs/{task}-v0",
                steps,
                env_kwargs=env_kwargs,
                target=None if agent == "random" else SOLVED,
                tags=("baseline",) if agent in _BASELINES else (),
            )
            for task, env_kwargs, steps in tasks
            for agent in (*_BASELINES, "PPO", "DQN")
        ),
    )


def sparse() -> Suite:
    """Return PPO, and DQN with one-step and with whole-episode returns."""

    def rows(task: str) -> list[Experiment]:
        def row(name: str, agent: str, steps: int, **agent_kwargs: Any) -> Experiment:
            return experiment(
                agent,
                f"{task}, sparse",
                f"text_envs/{task}-v0",
                steps,
                name=name,
                env_kwargs={"vocab_size": 16, "length": 8, "dense": False},
                agent_kwargs=agent_kwargs,
            )

        return [
            row("PPO", "PPO", 600_000),
            row("DQN, one-step", "DQN", 150_000),
            row("DQN, whole episode", "DQN", 150_000, n_steps=8),
        ]

    return Suite(
        name="sparse",
        description="Our PPO, and DQN with one-step and whole-episode returns, where only the end is rewarded.",
        experiments=(*rows("Copy"), *rows("Reverse")),
    )
