"""Suite `frontier`: reward against KL to a language model; how it is measured is `frontier.py`."""

from __future__ import annotations

from .suites import Experiment, Suite

PRICES = (0.1, 0.05, 0.03, 0.02)  # of a nat, in reward: from 0.6 nats to 6


def frontier() -> Suite:
    """Return our PPO and DQN on NGram at several prices of a nat."""
    return Suite(
        name="frontier",
        description="Reward against KL to a language model, beside the exact frontier (NGram).",
        experiments=tuple(
            Experiment(
                task=f"NGram, {beta:g} a nat",
                agent=agent,
                env_id="text_envs/NGram-v0",
                factory=factory,
                env_kwargs={"dense": True},
                agent_kwargs={"beta": beta},
                steps=steps,
                trial="benchmarks.frontier:trial",
                tags=(agent,),
            )
            for beta in PRICES
            for agent, factory, steps in (
                ("PPO", "benchmarks.frontier:ppo", 300_000),
                ("DQN", "benchmarks.frontier:dqn", 150_000),
            )
        ),
        sections="benchmarks.report.frontier:sections",
    )
