"""What is measured: experiments and suites, as data. How it is measured lives in `trial.py` and `runner.py`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatchcase
from importlib import import_module
from typing import Any

from .errors import UserError

SCHEMA = 1  # part of every key: raise it when the same configuration no longer means the same measurement


@dataclass(frozen=True)
class Experiment:
    """One agent on one task; with a seed it is one trial, and its result one row.

    Attributes:
        task: the task's name in tables and figures.
        agent: the agent's name in tables and figures.
        env_id: a registered Gymnasium id.
        factory: "module:function" that makes the agent, called as function(env, seed, **agent_kwargs); what it
            returns has `learn(total_timesteps, callback=)` and `predict(observations, deterministic=)`.
        env_kwargs: keywords of the environment.
        agent_kwargs: keywords of the factory.
        steps: environment steps of training, over all rows.
        num_envs: rows of the batched environment in training.
        eval_episodes: fresh episodes of the final evaluation, sampled and again greedy.
        trial: "module:function" that makes the row, called as function(experiment, seed, report). The one in
            `trial.py` trains and evaluates; another may add fields of its own to the row.
        tags: for `--only`.
    """

    task: str
    agent: str
    env_id: str
    factory: str
    env_kwargs: Mapping[str, Any] = field(default_factory=dict)
    agent_kwargs: Mapping[str, Any] = field(default_factory=dict)
    steps: int = 0
    num_envs: int = 16
    eval_episodes: int = 512
    trial: str = "benchmarks.trial:train_and_evaluate"
    tags: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The name that `--only` patterns and progress bars use."""
        return f"{self.task} / {self.agent}"

    def configuration(self) -> dict[str, Any]:
        """Return everything that a row records of the experiment, JSON-able."""
        return json.loads(json.dumps(asdict(self), default=dict))

    def key(self, seed: int) -> str:
        """Return the hash of the exact configuration and the seed, by which a finished row is known."""
        exact = {**self.configuration(), "seed": seed, "schema": SCHEMA}
        del exact["tags"]
        text = json.dumps(exact, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def matches(self, pattern: str) -> bool:
        """Return whether a shell pattern, or a part of the name, picks this experiment; case does not matter."""
        pattern = pattern.lower()
        names = [self.name.lower(), *(tag.lower() for tag in self.tags)]
        return any(fnmatchcase(name, pattern) or pattern in name for name in names)


@dataclass(frozen=True)
class Suite:
    """Experiments that are run and reported together.

    Attributes:
        name: as typed after `run`.
        description: one sentence, for `list` and the report.
        experiments: what is run, in the order of the tables.
        seeds: how many seeds each experiment gets unless `--seeds` says otherwise.
        sections: "module:function" that adds sections of its own to the report, called with the rows; it
            returns a list of `report.Section`.
    """

    name: str
    description: str
    experiments: tuple[Experiment, ...]
    seeds: int = 3
    sections: str | None = None


def resolve(path: str) -> Any:
    """Return the object that "module:name" names.

    Raises:
        ValueError: if there is no such module or name.
    """
    module, _, name = path.partition(":")
    try:
        return getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"{path!r} does not name a function as 'module:function': {error}") from error


RANDOM = "benchmarks.baselines:random_agent"
STOCK_PPO = "benchmarks.baselines:stock_ppo"
OUR_PPO = "benchmarks.baselines:our_ppo"
OUR_DQN = "benchmarks.baselines:our_dqn"

_AGENTS: dict[str, dict[str, Any]] = {
    "random": {"factory": RANDOM},
    "SB3 PPO, raw ids": {"factory": STOCK_PPO, "agent_kwargs": {"one_hot": False}},
    "SB3 PPO, one-hot": {"factory": STOCK_PPO, "agent_kwargs": {"one_hot": True}},
    "PPO": {"factory": OUR_PPO},
    "DQN": {"factory": OUR_DQN},
}


def _quick(task: str, env_id: str, env_kwargs: dict[str, Any], steps: int) -> list[Experiment]:
    """Return every agent on one task, with equal steps."""
    return [
        Experiment(
            task=task,
            agent=agent,
            env_id=env_id,
            env_kwargs=env_kwargs,
            steps=0 if agent == "random" else steps,
            tags=("baseline",) if agent in ("random", "SB3 PPO, raw ids", "SB3 PPO, one-hot") else (),
            **how,
        )
        for agent, how in _AGENTS.items()
    ]


def _quick_suite() -> Suite:
    small = {"vocab_size": 8, "length": 5, "dense": True}
    return Suite(
        name="quick",
        description="Random, stock SB3 PPO and our PPO and DQN on three small diagnostics, minutes on 2 cores.",
        experiments=(
            *_quick("Copy", "text_envs/Copy-v0", small, 60_000),
            *_quick("Reverse", "text_envs/Reverse-v0", small, 60_000),
            *_quick("Password", "text_envs/Password-v0", {"vocab_size": 3, "length": 4}, 25_000),
        ),
    )


def _learning_suite() -> Suite:
    def rows(task: str, ppo: int, dqn: int) -> list[Experiment]:
        return [
            Experiment(
                task=task,
                agent=agent,
                env_id=f"text_envs/{task}-v0",
                factory=factory,
                env_kwargs={"dense": True},
                steps=steps,
                tags=(agent,),
            )
            for agent, factory, steps in (("random", RANDOM, 0), ("PPO", OUR_PPO, ppo), ("DQN", OUR_DQN, dqn))
        ]

    short = ("Bandit", "Copy", "Reverse", "Sort", "Brackets", "Pattern", "Lipogram", "GuessNumber")
    long = ("Arithmetic", "Recall", "Delay")
    return Suite(
        name="learning",
        description="Our PPO and DQN, one setting for all tasks, at their default sizes, rewarded at every token.",
        experiments=(
            *(row for task in short for row in rows(task, 300_000, 150_000)),
            *(row for task in long for row in rows(task, 1_000_000, 500_000)),
            *rows("Password", 300_000, 150_000),
        ),
    )


def _sparse_suite() -> Suite:
    def rows(task: str) -> list[Experiment]:
        def row(agent: str, factory: str, steps: int, **agent_kwargs: Any) -> Experiment:
            return Experiment(
                task=f"{task}, sparse",
                agent=agent,
                env_id=f"text_envs/{task}-v0",
                factory=factory,
                env_kwargs={"vocab_size": 16, "length": 8, "dense": False},
                agent_kwargs=agent_kwargs,
                steps=steps,
            )

        return [
            row("PPO", OUR_PPO, 600_000),
            row("DQN, one-step", OUR_DQN, 150_000),
            row("DQN, whole episode", OUR_DQN, 150_000, n_steps=8),
        ]

    return Suite(
        name="sparse",
        description="Our PPO, and DQN with one-step and whole-episode returns, where only the end is rewarded.",
        experiments=(*rows("Copy"), *rows("Reverse")),
    )


_SUITES = {"quick": _quick_suite, "learning": _learning_suite, "sparse": _sparse_suite}
_ELSEWHERE = {"real": "benchmarks.real:suite"}  # suites that live in a module of their own
NAMES = (*_SUITES, *_ELSEWHERE)


def get(name: str) -> Suite:
    """Return the suite of that name.

    Raises:
        UserError: if there is none.
    """
    if name not in NAMES:
        raise UserError(f"no suite is called {name!r}; choose one of {', '.join(NAMES)}")
    return _SUITES[name]() if name in _SUITES else resolve(_ELSEWHERE[name])()
