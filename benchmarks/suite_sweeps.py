"""Suite `sweeps`: one knob of a task is turned, everything else stays; `report/sweeps.py` says what comes of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .suites import Experiment, Suite, experiment

AGENTS = ("random", "PPO", "DQN", "SB3 PPO, one-hot")
_SMALL = {"vocab_size": 8, "length": 5, "dense": True}  # solved in the steps of a sweep while no knob is turned


@dataclass(frozen=True)
class Knob:
    """One keyword of one task, and the values it is turned to.

    Attributes:
        name: of the knob, a spoke of the radar plot.
        task: whose keyword it is, as in its id.
        keyword: of the environment.
        values: from the easiest on, where there is an order.
        others: the other keywords.
        steady: whether what the agent scores should be the same at every value; see `report.sweeps.score`.
    """

    name: str
    task: str
    keyword: str
    values: tuple[float, ...]
    others: Mapping[str, Any] = field(default_factory=lambda: _SMALL)
    steady: bool = False

    def setting(self, value: float) -> str:
        """Return the name of the task at a value."""
        return f"{self.name} {value:g}"

    def experiments(self, steps: int) -> list[Experiment]:
        """Return each agent at each value."""
        return [
            experiment(
                agent,
                self.setting(value),
                f"text_envs/{self.task}-v0",
                steps,
                env_kwargs={**self.others, self.keyword: value},
                tags=(self.name,),
            )
            for value in self.values
            for agent in AGENTS
        ]


KNOBS = (
    Knob("vocabulary", "Copy", "vocab_size", (4, 16, 64, 256, 1024, 4096)),
    Knob("length", "Copy", "length", (4, 8, 16, 32, 64)),
    Knob("reward delay", "Copy", "reward_delay", (1, 2, 4, 8), {"vocab_size": 8, "length": 8}),
    Knob("reward noise", "Copy", "reward_noise", (0.0, 0.1, 0.3, 1.0, 3.0), steady=True),
    Knob("reward scale", "Copy", "reward_scale", (0.001, 0.03, 1.0, 30.0, 1000.0), steady=True),
    Knob("distractors", "Copy", "distractors", (0, 4, 8, 16, 32)),
    Knob("exploration", "Password", "length", (2, 4, 6, 8, 10, 12), {"vocab_size": 2}),
)


def sweeps() -> Suite:
    """Return all knobs.

    Source: the sweeps of Osband et al. 2020, "Behaviour suite for reinforcement learning", arXiv:1908.03568.
    """
    return Suite(
        name="sweeps",
        description="One knob at a time, from easy to hard: what PPO, DQN and stock SB3 PPO can stand (hours).",
        experiments=tuple(row for knob in KNOBS for row in knob.experiments(steps=60_000)),
        seeds=2,
        sections="benchmarks.report.sweeps:sections",
    )
