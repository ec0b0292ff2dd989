"""What is measured: what an experiment and a suite are, and the names of all suites.

The suites themselves live in `suite_*.py` and `feedback.py`; how they are measured in `trial.py` and `runner.py`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatchcase
from functools import cache
from importlib import import_module
from typing import Any

from .errors import UserError

_ADDED = ("target", "seconds")  # fields of `Experiment` that the first rows did not have
TAG = "own"  # of experiments that `own.py` makes, for `--only`
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
        target: training stops at the first point of the learning curve whose normalised training score is at least
            this, and the row says at which step. None: never.
        seconds: training stops after this many seconds, if `steps`, which is what schedules count on, take
            longer. None: never. Such a budget depends on the machine: rows differ from run to run.
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
    target: float | None = None
    seconds: float | None = None

    @property
    def name(self) -> str:
        """The name that `--only` patterns and progress bars use."""
        return f"{self.task} / {self.agent}"

    def configuration(self) -> dict[str, Any]:
        """Return everything that a row records of the experiment, JSON-able.

        What was added to `Experiment` later is left out where it is not used: older rows keep their keys.
        """
        exact = {name: value for name, value in asdict(self).items() if name not in _ADDED or value is not None}
        return json.loads(json.dumps(exact, default=dict))

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
        sections: "module:function" that adds sections of its own to the report, called with the rows
            and the agents' inks; it returns a list of `report.document.Section`.
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
        ImportError: if the module needs a package that is not installed.
    """
    module, _, name = path.partition(":")
    try:
        return getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        if isinstance(error, ImportError) and not f"{module}.".startswith(f"{error.name}."):
            raise  # it is there; what it imports is not
        raise ValueError(f"{path!r} does not name a function as 'module:function': {error}") from error


_BASELINES = "benchmarks.baselines"
DEMONSTRATED = "benchmarks.trial:clone_and_evaluate"  # the trial of agents that learn from demonstrations
AGENTS: Mapping[str, Mapping[str, Any]] = {  # name in tables -> the fields of `Experiment` that make it
    "random": {"factory": f"{_BASELINES}:random_agent"},
    "behaviour cloning": {
        "factory": f"{_BASELINES}:our_cloning",
        "trial": DEMONSTRATED,
    },
    "PPO": {"factory": f"{_BASELINES}:our_ppo"},
    "DQN": {"factory": f"{_BASELINES}:our_dqn"},
    "GRPO": {"factory": f"{_BASELINES}:our_grpo"},
    "SB3 PPO, raw ids": {"factory": f"{_BASELINES}:stock_ppo", "agent_kwargs": {"one_hot": False}},
    "SB3 PPO, one-hot": {"factory": f"{_BASELINES}:stock_ppo", "agent_kwargs": {"one_hot": True}},
    "SB3 DQN, one-hot": {"factory": f"{_BASELINES}:stock_dqn"},
    "MaskablePPO, one-hot": {"factory": f"{_BASELINES}:maskable_ppo"},
}


def experiment(
    agent: str, task: str, env_id: str, steps: int, *, name: str | None = None, **fields: Any
) -> Experiment:
    """Return the experiment of an agent of `AGENTS`; uniform random actions need no steps of training.

    Args:
        agent: which of them.
        task: the task's name in tables.
        env_id: a registered Gymnasium id.
        steps: environment steps of training.
        name: the agent's name in tables, where it is not that of `AGENTS`.
        fields: other fields of `Experiment`.
    """
    return Experiment(
        task=task,
        agent=name or agent,
        env_id=env_id,
        steps=0 if agent == "random" else steps,
        **{**AGENTS[agent], **fields},
    )


_SUITES = {  # name -> what makes it; imported when asked for
    "quick": "benchmarks.suite_quick:quick",
    "core": "benchmarks.suite_core:core",
    "sweeps": "benchmarks.suite_sweeps:sweeps",
    "granularity": "benchmarks.suite_granularity:granularity",
    "frontier": "benchmarks.suite_frontier:frontier",
    "real": "benchmarks.suite_real:real",
    "feedback": "benchmarks.feedback:suite",
    "sparse": "benchmarks.suite_quick:sparse",
}
NAMES = tuple(_SUITES)


@cache
def get(name: str) -> Suite:
    """Return the suite of that name.

    Raises:
        UserError: if there is none.
    """
    if name not in _SUITES:
        raise UserError(f"no suite is called {name!r}; choose one of {', '.join(NAMES)}")
    module, _, function = _SUITES[name].partition(":")
    return getattr(import_module(module), function)()
