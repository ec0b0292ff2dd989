"""Suite `core`, the diagnostics and small games by all agents, and `learning`, the part of it that is ours."""

from __future__ import annotations

from .suites import Experiment, Suite, experiment

LEARNING = {  # task -> environment steps of on-policy agents; off-policy ones get half
    "Bandit": 300_000,
    "Copy": 300_000,
    "Reverse": 300_000,
    "Sort": 300_000,
    "Brackets": 300_000,
    "Pattern": 300_000,
    "Lipogram": 300_000,
    "GuessNumber": 300_000,
    "Arithmetic": 1_000_000,
    "Recall": 1_000_000,
    "Delay": 1_000_000,
    "Password": 300_000,
}
CORE = {**LEARNING, "NGram": 300_000, "Mastermind": 1_000_000, "TwentyQuestions": 1_000_000}
OFF_POLICY = ("DQN", "SB3 DQN, one-hot")
OURS = ("random", "PPO", "DQN")
STOCK = ("SB3 PPO, one-hot", "SB3 DQN, one-hot", "MaskablePPO, one-hot")
EVERYONE = (*OURS, "GRPO", "behaviour cloning", *STOCK)


def learning() -> Suite:
    """Return our PPO and DQN beside uniform random actions."""
    return Suite(
        name="learning",
        description="Our PPO and DQN, one setting for all tasks, at their default sizes, rewarded at every token.",
        experiments=tuple(row(task, agent) for task in LEARNING for agent in OURS),
    )


def core() -> Suite:
    """Return all agents on all tasks with an exact optimum that are quickly played.

    On-policy agents get equal steps, and so do off-policy ones; behaviour cloning sees as many demonstrated tokens
    as PPO says. What `learning` holds is the same here, so that its rows count.
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
