"""Suite `core`: the diagnostics and small games by all agents."""

from __future__ import annotations

from .suites import Experiment, Suite, experiment

CORE = {  # task -> environment steps of on-policy agents; off-policy ones get half
    "Bandit": 300_000,
    "Copy": 300_000,
    "Reverse": 300_000,
    "Sort": 300_000,
    "Brackets": 300_000,
    "Pattern": 300_000,
    "Lipogram": 300_000,
    "GuessNumber": 300_000,
    "Recall": 300_000,
    "Delay": 300_000,
    "Password": 300_000,
    "NGram": 300_000,
    "Arithmetic": 1_000_000,
    "Mastermind": 300_000,
    "TwentyQuestions": 300_000,
}
OFF_POLICY = ("DQN", "SB3 DQN, one-hot")
STOCK = ("SB3 PPO, one-hot", "SB3 DQN, one-hot", "MaskablePPO, one-hot")
EVERYONE = ("random", "PPO", "DQN", "GRPO", "behaviour cloning", *STOCK)


def core() -> Suite:
    """Return all agents on all tasks with an exact optimum that are quickly played.

    On-policy agents get equal steps, and so do off-policy ones; behaviour cloning sees as many demonstrated tokens
    as PPO says.
    """
    return Suite(
        name="core",
        description="All diagnostics and small multi-turn games, our agents, stock SB3 and sb3-contrib (a day).",
        experiments=tuple(row(task, agent) for task in CORE for agent in EVERYONE),
        seeds=5,
    )


def row(task: str, agent: str) -> Experiment:
    """Return the experiment of an agent on a task at its default size, rewarded at every token."""
    return experiment(
        agent,
        task,
        f"text_envs/{task}-v0",
        CORE[task] // 2 if agent in OFF_POLICY else CORE[task],
        env_kwargs={"dense": True},
        tags=(agent,),
    )
