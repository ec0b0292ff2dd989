"""Suite `real`: a small language model on real prompts; how it is measured is `real.py`."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any

from .real_tasks import MAX_NEW_TOKENS, TASKS, RealTask
from .suites import Experiment, Suite

BEST_OF = 4
LEARN = {  # PPO's settings, the same for all tasks
    "learning_rate": 3e-4,
    "n_steps": MAX_NEW_TOKENS,
    "batch_size": 384,
    "n_epochs": 1,
    "gae_lambda": 1.0,
    "kl_coef": 0.035,
}


def real() -> Suite:
    """Return the reference, best of several, PPO and, on one task, TRL's GRPO."""

    def row(task: RealTask, agent: str, trial: str, steps: int = 0, **agent_kwargs: Any) -> Experiment:
        return Experiment(
            task=task.name,
            agent=agent,
            env_id=task.env_id,
            factory=f"benchmarks.real:{trial}",
            env_kwargs=task.env_kwargs,
            agent_kwargs=agent_kwargs,
            steps=steps,
            num_envs=32,
            trial=f"benchmarks.real:{trial}",
            tags=("trl",) if trial == "train_grpo" else (),
        )

    def rows(task: RealTask) -> Iterator[Experiment]:
        yield row(task, "reference", "measure_reference")
        yield row(task, f"best of {BEST_OF}", "measure_best_of")
        yield row(task, "PPO", "train_ppo", steps=task.steps, **LEARN)

    settings = {"learning_rate": 1e-4, "beta": 0.02, "batch": 16, "gradient_checkpointing": False}
    trl = row(TASKS[0], "TRL GRPO", "train_grpo", steps=TASKS[0].steps, **settings)
    sentiment, *others = map(rows, TASKS)
    return Suite(
        name="real",
        description="SmolLM2-135M-Instruct on reviews, keywords and summaries: PPO, best-of-4, TRL (hours).",
        experiments=(*sentiment, trl, *chain.from_iterable(others)),
        seeds=1,
        sections="benchmarks.report.real:sections",
    )
