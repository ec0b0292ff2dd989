"""Suite `feedback`: rewards learned from preferences, held against the truth: simulated and people's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .suites import Experiment, Suite

TASK, MOVIES = "Copy", "Movie sentences"
GOLD = "gold reward"
LEARNED: Mapping[str, Mapping[str, Any]] = {  # name in tables -> what its reward is learned from
    "300 at 10%": {"comparisons": 300, "noise": 0.1},
    "1,000 at 10%": {"comparisons": 1000, "noise": 0.1},
    "5,000 at 10%": {"comparisons": 5000, "noise": 0.1},
    "1,000 at 0%": {"comparisons": 1000, "noise": 0.0},
    "1,000 at 30%": {"comparisons": 1000, "noise": 0.3},
    "1,000 at 10%, ensemble of 3": {"comparisons": 1000, "noise": 0.1, "members": 3},
}
SCORES = (0.0, 0.15, 0.3, 0.45, 0.6, 0.75, 0.9)  # normalised; a checkpoint is made when training first reaches each
WEAK = 1  # the checkpoint that the loop begins with
TEST = 2000  # comparisons that nothing is chosen by
_ENV = {"vocab_size": 4, "length": 6}
_STEPS = 50_000
_KL = 0.05  # standard deviations of the reward, as the weak policy earns it, for each nat
_MOVIES = {"comparisons": 8000, "epochs": 1, "learning_rate": 5e-5}


def suite() -> Suite:
    """Return the suite."""
    loop = [
        Experiment(
            task=TASK,
            agent=name,
            env_id="text_envs/Copy-v0",
            factory="benchmarks.feedback_loop:trial",
            env_kwargs=_ENV,
            agent_kwargs={**options, "kl_coef": _KL},
            steps=_STEPS,
            trial="benchmarks.feedback_loop:trial",
            tags=("loop",),
        )
        for name, options in {GOLD: {}, **LEARNED}.items()
    ]
    movies = [
        Experiment(
            task=MOVIES,
            agent=name,
            env_id="text_envs/Sentiment-v0",
            factory="benchmarks.feedback_movies:trial",
            agent_kwargs=options,
            trial="benchmarks.feedback_movies:trial",
            tags=("movies",),
        )
        for name, options in {"VADER": {}, "reward model": _MOVIES}.items()
    ]
    return Suite(
        name="feedback",
        description="Preferences, simulated and people's -> reward model -> PPO on it, held against the truth.",
        experiments=(*loop, *movies),
        sections="benchmarks.report.feedback:sections",
    )
